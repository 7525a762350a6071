"""Loads what the Sessions page shows: agents' sessions and the switches that wait for a person,
or one session with a page of its transcript, its switches, its children and what each model
cost.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from harness.control.agents import queries
from harness.control.agents.messages import decode_message
from harness.control.context import Context
from harness.domain.agents.agent import Agent, AgentSession
from harness.domain.agents.message import MessageRecord, SessionMessage
from harness.domain.agents.model_usage import ModelUsage, cost_alone, find_price
from harness.domain.agents.switch_request import ModelSwitchRequest, SwitchState
from harness.domain.errors import SwapgateError
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
    agents: Mapping[str, Agent]  # of both, by id
    now: datetime


@dataclass(frozen=True)
class TranscriptMessage:
    """A message, or why what was said in it cannot be read."""

    message: SessionMessage
    unreadable: str = ""


@dataclass(frozen=True)
class CostAlone:
    """What a session's tokens would have cost on one model."""

    target: str
    price: Price | None  # today's; None where it is not known
    cost_usd: float | None


@dataclass(frozen=True)
class SessionView:
    """What the page shows of a session."""

    session: AgentSession
    agent: Agent
    messages: Sequence[TranscriptMessage]
    after: int  # the position that the page of messages goes on behind
    total: int  # how many messages the session has
    switches: Page[ModelSwitchRequest]
    children: Page[AgentSession]
    usage: Sequence[ModelUsage]  # of the session and all below it
    alone: Sequence[CostAlone]  # on each model that answered in it
    now: datetime

    @property
    def waiting(self) -> Sequence[ModelSwitchRequest]:
        return [s for s in self.switches if s.state_at(self.now) is SwitchState.PENDING]


def list_sessions(ctx: Context, after: str | None = None) -> SessionsView:
    """after: the cursor of the page before. Raises InputError for what is none."""
    page = queries.list_sessions(ctx, PageRequest(MOST_SESSIONS, after), parent="")
    now, first = ctx.clock.now(), PageRequest(MOST_SWITCHES)
    pending = queries.list_switch_requests(ctx, first, pending_only=True)
    waiting = [request for request in pending if request.state_at(now) is SwitchState.PENDING]
    ids = {session.agent for session in page} | {request.agent for request in waiting}
    return SessionsView(page, waiting, _agents(ctx, ids), now)


def _agents(ctx: Context, ids: Collection[str]) -> Mapping[str, Agent]:
    with ctx.store.read() as tx:
        return {id_: tx.agents.get(id_) for id_ in ids}


def load_session(ctx: Context, id_: str, after: int | None = None) -> SessionView:
    """after: the position to go on behind; None for the newest messages. Raises NotFound."""
    with ctx.store.read() as tx:
        session = tx.sessions.get(id_)
        agent = tx.agents.get(session.agent)
        total = tx.session_messages.last_position(id_)
        below = _descendants(tx.sessions.children, id_)
        providers = tx.providers.all()
    start = max(0, total - MOST_MESSAGES) if after is None else min(max(0, after), total)
    records = queries.list_message_records(ctx, id_, PageRequest(MOST_MESSAGES, str(start)))
    usage = queries.load_model_usage(ctx, (id_, *below))
    prices = {model.target: find_price(providers, model.target) for model in usage}
    return SessionView(
        session=session,
        agent=agent,
        messages=[_readable(ctx, record) for record in records],
        after=start,
        total=total,
        switches=queries.list_switch_requests(ctx, PageRequest(MOST_SWITCHES), session=id_),
        children=queries.list_sessions(ctx, PageRequest(MOST_LISTED), parent=id_),
        usage=usage,
        alone=[
            CostAlone(target, price, cost_alone(usage, price))
            for target, price in prices.items()
        ],
        now=ctx.clock.now(),
    )


def _descendants(children: Callable[[str], Sequence[str]], id_: str) -> list[str]:
    """Ids of all that it spawned, and of what those did."""
    below: list[str] = []
    for child in children(id_):
        below += [child, *_descendants(children, child)]
    return below


def _readable(ctx: Context, record: MessageRecord) -> TranscriptMessage:
    """One that cannot be read does not hide the others."""
    try:
        return TranscriptMessage(decode_message(ctx, record))
    except SwapgateError as error:
        return TranscriptMessage(record.message, str(error))
