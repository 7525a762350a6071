"""`AgentsRequest` is what a handler of the agents API gets: the client, the context, the turns
and tools of this process, and the key under which the request may be sent again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated

from fastapi import Depends, Header, Request
from pydantic import BaseModel
from starlette.responses import Response

from harness.api.agents.answers import AgentsResponse, SessionAnswer
from harness.control.agents import agents, idempotency, sessions
from harness.control.agents.client import AgentsClient
from harness.control.agents.turn_runner import TurnRunner
from harness.control.context import Context
from harness.domain.agents.agent import Agent, AgentSession
from harness.domain.agents.turn_lease import IdempotencyKey, IdempotentAnswer
from harness.domain.content_hash import digest
from harness.domain.errors import NotFound
from harness.domain.routing.kill_switch import KillSwitch
from harness.domain.settings import AgentSettings
from harness.ports.agent_calls import ToolRuntime


@dataclass(frozen=True)
class AgentsService:
    """What the agents API serves from."""

    ctx: Context
    settings: AgentSettings
    turns: TurnRunner
    tools: ToolRuntime
    standing: Sequence[KillSwitch] = ()  # of the environment and the file


@dataclass(frozen=True)
class AgentsRequest:
    """Who asks, and what a handler needs."""

    client: AgentsClient
    service: AgentsService
    place: str  # method and path
    key: str | None  # the client's own name of the request

    @property
    def ctx(self) -> Context:
        return self.service.ctx

    def idempotency(self, body: object) -> IdempotencyKey | None:
        """body: the request's content, as plain JSON."""
        if self.key is None:
            return None
        return IdempotencyKey(f"{self.client.name} {self.place}", self.key, digest(body))

    def once(
        self, status: int, body: object, create: Callable[[Context], BaseModel]
    ) -> Response:
        """What `create` makes, or what the same request was answered before. create: gets the
        context of the unit of work that keeps its answer.
        """
        key = self.idempotency(body)
        if key is None:
            return AgentsResponse(create(self.ctx), status)

        def kept(ctx: Context) -> tuple[int, str, str]:
            answer = create(ctx)
            session = answer.id if isinstance(answer, SessionAnswer) else ""
            return status, answer.model_dump_json(by_alias=True), session

        answer, is_replay = idempotency.do_once(self.ctx, key, kept)
        return kept_response(answer, is_replay=is_replay)

    def require_agent(self, id_: str) -> Agent:
        """Raises NotFound with a code of its own."""
        try:
            return agents.load_agent(self.ctx, self.client, id_)
        except NotFound as error:
            raise NotFound(f"there is no agent {id_[:80]!r}", code="agent_not_found") from error

    def require_session(self, agent: str, id_: str) -> AgentSession:
        """As `require_agent`."""
        self.require_agent(agent)
        try:
            return sessions.load_session(self.ctx, self.client, agent, id_)
        except NotFound as error:
            raise NotFound(
                f"there is no session {id_[:80]!r} of this agent", code="session_not_found"
            ) from error


def kept_response(answer: IdempotentAnswer, *, is_replay: bool) -> Response:
    headers = {"idempotent-replayed": "true"} if is_replay else {}
    status = answer.status or HTTPStatus.OK
    return Response(answer.body, status, headers, media_type="application/json")


def _agents_request(
    request: Request,
    idempotency_key: Annotated[
        str | None, Header(alias="Idempotency-Key", min_length=1, max_length=200)
    ] = None,
) -> AgentsRequest:
    return AgentsRequest(
        request.state.client,
        request.app.state.service,
        f"{request.method} {request.url.path}",
        idempotency_key,
    )


AgentsRequestParam = Annotated[AgentsRequest, Depends(_agents_request)]
