"""Loads what the Sessions page shows: agents' sessions and the switches that wait for a person,
or one session with a page of its transcript, its switches, its children and what each model
cost.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from harness.control.context import Context
from harness.domain.agents.agent import AgentSession
from harness.domain.agents.message import SessionMessage
from harness.domain.agents.model_figures import ModelUsage, find_price
from harness.domain.agents.switch_request import ModelSwitchRequest, SwitchState
from harness.domain.pagination import MOST_LISTED, Page, PageRequest
from harness.domain.routing.target import Price

MOST_SESSIONS: Final = 50
# Each may be as long as `agents.max_message_bytes`.
MOST_MESSAGES: Final = 30
MOST_SWITCHES: Final = 100


@dataclass(frozen=True)
class SessionsView:
    """What the page shows without a session."""

    sessions: Page[AgentSession]  # those that no other one spawned
    waiting: Sequence[ModelSwitchRequest]
    agents: Mapping[str, str]  # names of the agents of both, by id
    now: datetime


@dataclass(frozen=True)
class SessionView:
    session: AgentSession
    agent: str  # its name
    messages: Sequence[SessionMessage]  # what cannot be read says why in its `error`
    after: int  # the position that the page of messages goes on behind
    until: datetime  # when the first message of the next page came; without one, now
    total: int  # how many messages the session has
    switches: Sequence[ModelSwitchRequest]
    children: Sequence[AgentSession]
    usage: Sequence[ModelUsage]  # of the session and all below it
    prices: Mapping[str, Price | None]  # today's, of each model that answered in it
    now: datetime

    @property
    def waiting(self) -> Sequence[ModelSwitchRequest]:
        return [s for s in self.switches if s.state_at(self.now) is SwitchState.PENDING]


def list_sessions(ctx: Context, after: str | None = None) -> SessionsView:
    """Loads a page of the sessions and the switches that wait. after: the cursor of the page
    before. Raises InputError for what is none.
    """
    page = ctx.store.lists.sessions(PageRequest(MOST_SESSIONS, after), parent="")
    now, first = ctx.clock.now(), PageRequest(MOST_SWITCHES)
    pending = ctx.store.lists.switch_requests(first, pending_only=True)
    waiting = [request for request in pending if request.state_at(now) is SwitchState.PENDING]
    ids = {session.agent for session in page} | {request.agent for request in waiting}
    with ctx.store.read() as tx:
        names = {id_: tx.agents.get(id_).name for id_ in ids}
    return SessionsView(page, waiting, names, now)


def load_session(ctx: Context, id_: str, after: int | None = None) -> SessionView:
    """Loads a session with its messages. after: the position to go on behind; None for the
    newest messages. Raises NotFound.
    """
    with ctx.store.read() as tx:
        session = tx.sessions.get(id_)
        agent = tx.agents.get(session.agent).name
        total = tx.session_messages.last_position(id_)
        providers = tx.providers.all()
        family = below = [id_]
        while below:
            below = [child for parent in below for child in tx.sessions.children(parent)]
            family = [*family, *below]
    start = max(0, total - MOST_MESSAGES) if after is None else min(after, total)
    page = PageRequest(MOST_MESSAGES + 1, str(start))
    records = ctx.store.lists.session_messages(page, session=id_).items
    beyond = records[MOST_MESSAGES:]
    now, usage = ctx.clock.now(), ctx.store.lists.model_usage(sessions=family)
    return SessionView(
        session=session,
        agent=agent,
        messages=[_readable(record) for record in records[:MOST_MESSAGES]],
        after=start,
        until=beyond[0].created_at if beyond else now,
        total=total,
        switches=ctx.store.lists.switch_requests(PageRequest(MOST_SWITCHES), session=id_),
        children=ctx.store.lists.sessions(PageRequest(MOST_LISTED), parent=id_),
        usage=usage,
        prices={model.target: find_price(providers, model.target) for model in usage},
        now=now,
    )


def _readable(message: SessionMessage) -> SessionMessage:
    """One that cannot be read does not hide the others."""
    if message.fault:
        return replace(message, error=f"It cannot be read: {message.fault}")
    return message
