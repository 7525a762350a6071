"""Answers what people look up of agents, a page at a time (`list_…`): agents, their sessions,
messages, switch requests and grants, and what each model did (`load_model_usage`).

A grant that is not as it was signed is named beside its list, and does not hide the others.
"""

from collections.abc import Collection, Sequence

from harness.control.agents import agents
from harness.control.agents.client import AgentsClient
from harness.control.context import Context
from harness.domain.agents.agent import Agent, AgentSession
from harness.domain.agents.grant import AgentGrant
from harness.domain.agents.message import SessionMessage
from harness.domain.agents.model_figures import ModelUsage
from harness.domain.agents.switch_request import ModelSwitchRequest
from harness.domain.pagination import FIRST_PAGE, Page, PageRequest


def list_switch_requests(
    ctx: Context,
    page_request: PageRequest = FIRST_PAGE,
    *,
    session: str | None = None,
    pending_only: bool = False,
) -> Page[ModelSwitchRequest]:
    """Lists the switch requests, newest first."""
    with ctx.store.listings() as stored:
        return stored.switch_requests(page_request, session=session, pending_only=pending_only)


def list_agent_grants(
    ctx: Context, page_request: PageRequest = FIRST_PAGE, *, agent: str | None = None
) -> Page[AgentGrant]:
    """Lists the agents' grants, newest first; revoked and expired ones too."""
    with ctx.store.listings() as stored:
        return stored.agent_grants(page_request, agent=agent)


def list_sessions(
    ctx: Context, page_request: PageRequest = FIRST_PAGE, *, parent: str | None = None
) -> Page[AgentSession]:
    """Lists the sessions, newest first; closed ones too. parent: the session that spawned them,
    empty for those that none did.
    """
    with ctx.store.listings() as stored:
        return stored.sessions(page_request, parent=parent)


def load_model_usage(ctx: Context, sessions: Collection[str]) -> Sequence[ModelUsage]:
    """What each model did in these sessions, by the model's name."""
    with ctx.store.listings() as stored:
        return stored.model_usage(sessions=sessions)


def list_agents(
    ctx: Context, client: AgentsClient, page_request: PageRequest = FIRST_PAGE
) -> Page[Agent]:
    """Lists the agents that the client sees, the newest first."""
    owner_key = "" if client.is_open else client.key
    with ctx.store.listings() as stored:
        return stored.agents(page_request, owner_key=owner_key)


def list_agent_sessions(
    ctx: Context,
    client: AgentsClient,
    agent: str,
    page_request: PageRequest = FIRST_PAGE,
    *,
    user_id: str | None = None,
) -> Page[AgentSession]:
    """The newest first; closed ones too. Raises NotFound without an agent that is seen."""
    agents.load_agent(ctx, client, agent)
    with ctx.store.listings() as stored:
        return stored.sessions(page_request, agent=agent, user_id=user_id)


def list_session_messages(
    ctx: Context, session: str, page_request: PageRequest = FIRST_PAGE
) -> Page[SessionMessage]:
    """Lists a session's messages by position; damaged ones too, with their `fault`."""
    with ctx.store.listings() as stored:
        return stored.session_messages(page_request, session=session)
