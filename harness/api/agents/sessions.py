"""Serves sessions of an agent: opens, shows, lists and closes them, and deletes a user's."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from harness.api.agents.answers import ListAnswer, PurgeAnswer, SessionAnswer
from harness.api.agents.bodies import SessionBody, SessionsQuery
from harness.api.agents.request import AgentsRequestParam
from harness.control.agents import queries, sessions
from harness.control.agents.sessions import SessionSpec
from harness.control.privacy import user_deletion
from harness.domain.agents.agent import AgentSession
from harness.domain.pagination import Page

router = APIRouter()
PATH = "/agents/{agent_id}/sessions"
ONE = "/agents/{agent_id}/sessions/{session_id}"
USER = "/agents/users/{user_id:path}"


@router.delete(USER, summary="Delete what a user said")
def purge_user(request: AgentsRequestParam, user_id: str) -> PurgeAnswer:
    """All sessions of that `userId` with their messages, of all agents, and the user's captured
    requests. Needs an admin.
    """
    actor, secret = request.client.require_person(), request.installation.secret
    done = user_deletion.purge_user(request.ctx, actor, user_id, secret=secret)
    return PurgeAnswer(deleted=done.sessions)


@router.post(PATH, status_code=201, response_model=SessionAnswer, summary="Open a session")
def open_session(request: AgentsRequestParam, agent_id: str, body: SessionBody) -> Response:
    """Opens a session, which begins with the agent's model."""
    spec = SessionSpec(body.user_id, body.metadata)
    return request.once(
        SessionAnswer,
        body,
        lambda ctx: sessions.open_session(ctx, request.client, agent_id, spec),
    )


@router.get(PATH, response_model=ListAnswer[SessionAnswer], summary="List sessions")
def list_sessions(
    request: AgentsRequestParam, agent_id: str, page: Annotated[SessionsQuery, Query()]
) -> Page[AgentSession]:
    """The newest first; closed ones too."""
    return queries.list_agent_sessions(
        request.ctx, request.client, agent_id, page.page, user_id=page.user_id
    )


@router.get(ONE, response_model=SessionAnswer, summary="Show a session")
def get_session(request: AgentsRequestParam, agent_id: str, session_id: str) -> AgentSession:
    return request.require_session(agent_id, session_id)


@router.delete(ONE, status_code=204, summary="Close a session")
def close_session(request: AgentsRequestParam, agent_id: str, session_id: str) -> None:
    """What runs in it is interrupted, and it takes no more messages; they can still be read."""
    request.require_session(agent_id, session_id)
    sessions.close_session(request.ctx, request.client, agent_id, session_id)
