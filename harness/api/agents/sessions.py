"""Serves sessions of an agent: opens, shows, lists and closes them.

Serves `switch_model` of a session over HTTP, and shows what became of its requests.
"""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from harness.api.agents.answers import ListAnswer, SessionAnswer
from harness.api.agents.bodies import (
    AgentsPageQuery,
    SessionBody,
    SessionsQuery,
    SwitchModelBody,
)
from harness.api.agents.request import AgentsRequestParam
from harness.control.agents import sessions
from harness.control.agents.built_in_tools import SwitchModelAnswer, switch_answer, switch_model
from harness.domain.agents.agent import AgentSession
from harness.domain.agents.switch_request import SwitchState
from harness.domain.pagination import Page

router = APIRouter()
PATH = "/agents/{agent_id}/sessions"
SESSION = "/agents/{agent_id}/sessions/{session_id}"


@router.post(PATH, status_code=201, response_model=SessionAnswer, summary="Open a session")
def open_session(request: AgentsRequestParam, agent_id: str, body: SessionBody) -> AgentSession:
    """Opens a session, which begins with the agent's model."""
    return sessions.open_session(
        request.ctx, request.client, agent_id, body.user_id, body.metadata
    )


@router.get(PATH, response_model=ListAnswer[SessionAnswer], summary="List sessions")
def list_sessions(
    request: AgentsRequestParam, agent_id: str, page: Annotated[SessionsQuery, Query()]
) -> Page[AgentSession]:
    """The newest first; closed ones too."""
    request.require_agent(agent_id)
    return request.ctx.store.lists.sessions(page.page, agent=agent_id, user_id=page.user_id)


@router.get(SESSION, response_model=SessionAnswer, summary="Show a session")
def get_session(request: AgentsRequestParam, agent_id: str, session_id: str) -> AgentSession:
    return request.require_session(agent_id, session_id)


@router.delete(SESSION, status_code=204, summary="Close a session")
def close_session(request: AgentsRequestParam, agent_id: str, session_id: str) -> None:
    """What runs in it is interrupted, and it takes no more messages; they can still be read."""
    request.require_session(agent_id, session_id)
    sessions.close_session(request.ctx, request.client, agent_id, session_id)


@router.post(
    f"{SESSION}/switch_model",
    summary="List models, or ask a person for another one",
    responses={202: {"model": SwitchModelAnswer, "description": "A person has to decide"}},
)
async def post_switch_model(
    request: AgentsRequestParam,
    agent_id: str,
    session_id: str,
    body: SwitchModelBody,
    response: Response,
) -> SwitchModelAnswer:
    """An approved switch is in force from the next message on."""
    await run_in_threadpool(request.require_session, agent_id, session_id)
    request.client.require_write()
    answer = await switch_model(request.ctx, session_id, **body.model_dump())
    if answer.status == SwitchState.PENDING:
        response.status_code = HTTPStatus.ACCEPTED
    return answer


@router.get(
    f"{SESSION}/switch_requests",
    response_model=ListAnswer[SwitchModelAnswer],
    summary="List what was asked for, and what became of it",
)
def list_switch_requests(
    request: AgentsRequestParam,
    agent_id: str,
    session_id: str,
    page: Annotated[AgentsPageQuery, Query()],
) -> Page[SwitchModelAnswer]:
    """The newest first."""
    session = request.require_session(agent_id, session_id)
    found = request.ctx.store.lists.switch_requests(page.page, session=session.id)
    return found.map(lambda switch: switch_answer(request.ctx, switch))
