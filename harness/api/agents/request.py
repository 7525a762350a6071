"""`AgentsRequest` is what a handler of the agents API gets: the client, the installation, the
turns of this process, and the key under which the request may be sent again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated

from fastapi import Depends, Header, Request
from pydantic import BaseModel
from starlette.responses import Response

from harness.api.agents.answers import AgentsAnswer
from harness.app.agents.turn_service import ControlPlane, TurnService
from harness.app.installation import Installation
from harness.control.agents import agents, sessions, turns
from harness.control.agents.client import AgentsClient
from harness.control.agents.turn_runner import TurnRunner
from harness.control.context import Context
from harness.domain.agents.agent import Agent, AgentSession
from harness.domain.agents.turn import IdempotencyKey, IdempotentAnswer
from harness.domain.content_hash import digest


@dataclass(frozen=True)
class AgentsRequest:
    client: AgentsClient
    installation: Installation
    http: Request
    key: str | None  # the client's own name of the request

    @property
    def service(self) -> TurnService | None:
        """The turns of this process; None in the control plane, which runs no turns."""
        service: TurnService | None = self.http.app.state.service
        return service

    @property
    def turns(self) -> TurnRunner:
        assert self.service is not None  # noqa: S101 - the control plane serves no sessions
        return self.service.turns

    @property
    def control(self) -> ControlPlane | None:
        """The control plane, which signs; None where this process signs itself."""
        return None if self.service is None else self.service.control

    @property
    def ctx(self) -> Context:
        return self.installation.context

    def idempotency(self, body: object) -> IdempotencyKey | None:
        """Builds the key under which the answer to this request is kept; None where the client
        sent none. body: the request's content, as plain JSON.
        """
        if self.key is None:
            return None
        place = f"{self.http.method} {self.http.url.path}"
        return IdempotencyKey(f"{self.client.name} {place}", self.key, digest(body))

    def once(
        self,
        kind: type[AgentsAnswer],
        body: BaseModel,
        create: Callable[[Context], Agent | AgentSession],
    ) -> Response:
        """201 with what `create` makes, or what the same request was answered before. create:
        gets the context of the unit of work that keeps its answer.
        """

        def answer(ctx: Context) -> tuple[int, str, str]:
            created = create(ctx)
            session = created.id if isinstance(created, AgentSession) else ""
            return HTTPStatus.CREATED, kind.write(created), session

        key = self.idempotency(body.model_dump(mode="json"))
        if key is None:
            status, text, _ = answer(self.ctx)
            return Response(text, status, media_type="application/json")
        kept, is_replay = turns.do_once(self.ctx, key, answer)
        return kept_response(kept, is_replay=is_replay)

    def require_agent(self, id_: str) -> Agent:
        return agents.load_agent(self.ctx, self.client, id_)

    def require_session(self, agent: str, id_: str) -> AgentSession:
        self.require_agent(agent)
        return sessions.load_session(self.ctx, self.client, agent, id_)


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
    installation = request.app.state.installation
    return AgentsRequest(request.state.client, installation, request, idempotency_key)


AgentsRequestParam = Annotated[AgentsRequest, Depends(_agents_request)]
