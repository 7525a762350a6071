"""Reads and writes agents (`Agents`), the switch requests of their sessions
(`SwitchRequests`), and the grants by which a literal target answers (`AgentGrants`),
which are signed and verified like all that makes a snapshot.

Reads lists of agents, their sessions and messages, switch requests and grants for people to
look at, page by page, and what each model did in sessions (part of `Listings`).
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from harness.domain.agents.agent import Agent, AgentSession
from harness.domain.agents.grant import AgentGrant
from harness.domain.agents.message import MessageRole, SessionMessage
from harness.domain.agents.model_figures import ModelUsage
from harness.domain.agents.switch_request import ModelSwitchRequest, SwitchState
from harness.domain.errors import NotFound
from harness.domain.pagination import FIRST_PAGE, Page, PageRequest
from harness.store.schema.agents import (
    agent,
    agent_from_row,
    agent_grant,
    agent_switch,
    grant_from_row,
    grant_to_row,
    switch_request_from_row,
    switch_request_to_row,
)
from harness.store.schema.sessions import (
    agent_message,
    agent_session,
    message_from_row,
    session_from_row,
)
from harness.store.sql.pages import Column, Order, PageReader
from harness.store.unit_of_work import Unit

AGENT = sa.select(agent).where(agent.c.id == sa.bindparam("which"))
REQUESTS = sa.select(agent_switch)
REQUEST = REQUESTS.where(agent_switch.c.id == sa.bindparam("which"))
PENDING = REQUESTS.where(agent_switch.c.state == SwitchState.PENDING.value).order_by(
    agent_switch.c.expires_at, agent_switch.c.id
)
OF_SESSION = REQUESTS.where(agent_switch.c.session == sa.bindparam("session")).order_by(
    agent_switch.c.asked_at.desc(), agent_switch.c.id.desc()
)
BLANK = {"model_requested": "", "reason": "", "omissions": [], "figures": {}}
GRANTS = sa.select(agent_grant).order_by(
    agent_grant.c.created_at.desc(), agent_grant.c.id.desc()
)
NAMED = sa.or_(
    *(
        sa.exists().where(table.c.agent == agent.c.id)
        for table in (agent_session, agent_switch, agent_grant)
    )
)


class Agents:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def add(self, new: Agent) -> None:
        self._unit.write(sa.insert(agent), asdict(new))

    def get(self, id_: str) -> Agent:
        """A deleted one, too. Raises NotFound."""
        row = self._unit.read(AGENT, {"which": id_}).first()
        if row is None:
            raise NotFound(
                f"there is no agent {id_}; GET /agents shows them", code="agent_not_found"
            )
        return agent_from_row(row)

    def lock(self, id_: str) -> Agent:
        self._unit.serialize()
        return self.get(id_)

    def save(self, known: Agent) -> None:
        self._unit.write(sa.update(agent).where(agent.c.id == known.id), asdict(known))

    def forget(self, before: datetime) -> int:
        """Delete those deleted before that nothing refers to any more; how many."""
        return self._unit.write(sa.delete(agent).where(agent.c.deleted_at < before, ~NAMED))


class SwitchRequests:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def add(self, new: ModelSwitchRequest) -> None:
        self._unit.write(sa.insert(agent_switch), switch_request_to_row(new))

    def get(self, id_: str) -> ModelSwitchRequest:
        row = self._unit.read(REQUEST, {"which": id_}).first()
        if row is None:
            raise NotFound(
                f"there is no switch request {id_}; `swapgate agent requests` lists them"
            )
        return switch_request_from_row(row)

    def decide(self, decided: ModelSwitchRequest) -> None:
        """Saves the request's state and who decided. An approval comes after its grants."""
        changes = {
            "state": decided.state.value,
            "decided_at": decided.decided_at,
            "decided_by": decided.decided_by,
            "decided_with": decided.decided_with,
            "decision_reason": decided.decision_reason,
        }
        same = agent_switch.c.id == decided.id
        self._unit.write(sa.update(agent_switch).where(same).values(changes))

    def of_session(self, session: str) -> Sequence[ModelSwitchRequest]:
        rows = self._unit.read(OF_SESSION, {"session": session})
        return [switch_request_from_row(row) for row in rows]

    def pending(self, *, session: str | None = None) -> Sequence[ModelSwitchRequest]:
        """The one that expires first comes first; those that have expired, too.

        In a unit of work that writes, nobody else decides before its end.
        """
        # Whoever decides on them, or closes their sessions, is alone until the end of the unit.
        self._unit.serialize()
        query = PENDING
        if session is not None:
            query = query.where(agent_switch.c.session == session)
        return [switch_request_from_row(row) for row in self._unit.read(query)]

    def blank(self, session: str) -> None:
        decided = (
            agent_switch.c.session == session,
            agent_switch.c.state != SwitchState.PENDING.value,
        )
        self._unit.write(sa.update(agent_switch).where(*decided).values(BLANK))


class AgentGrants:
    """Written by who consents: they are signed with control's key. None is ever deleted."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def add(self, new: AgentGrant) -> None:
        self._unit.insert(agent_grant, grant_to_row(new))

    def get(self, id_: str) -> AgentGrant:
        found = self._read(GRANTS.where(agent_grant.c.id == id_))
        if not found:
            raise NotFound(f"there is no grant {id_}")
        return found[0]

    def revoke(self, id_: str, now: datetime) -> AgentGrant:
        """Again changes nothing. Raises NotFound."""
        self._unit.serialize()
        stored = self.get(id_)
        if stored.revoked_at is not None:
            return stored
        self._unit.amend(agent_grant, agent_grant.c.id == id_, {"revoked_at": now})
        return replace(stored, revoked_at=now)

    def not_revoked(self, *, agent: str | None = None) -> Sequence[AgentGrant]:
        """Lists the grants that nobody revoked, newest first; expired ones too. Raises
        SignatureInvalid where one was changed.
        """
        query = GRANTS.where(agent_grant.c.revoked_at.is_(None))
        if agent is not None:
            return self._read(query.where(agent_grant.c.agent == agent))
        # In the order of the index of those that are not revoked: few, of all that ever were.
        return self._read(
            query.order_by(None).order_by(agent_grant.c.expires_at, agent_grant.c.id)
        )

    def _read(self, query: sa.Select[tuple[object, ...]]) -> "list[AgentGrant]":
        rows = self._unit.checked(agent_grant, self._unit.read(query))
        return [grant_from_row(row) for row in rows]


def _newest_first(*columns: Column) -> Order:
    """A cursor holds the place: the row that it names may be deleted, for privacy."""
    return Order(columns, frozenset(columns))


NEWEST_AGENTS: Final = _newest_first(agent.c.created_at, agent.c.id)
NEWEST_SESSIONS: Final = _newest_first(agent_session.c.created_at, agent_session.c.id)
NEWEST_REQUESTS: Final = _newest_first(agent_switch.c.asked_at, agent_switch.c.id)
NEWEST_GRANTS: Final = _newest_first(agent_grant.c.created_at, agent_grant.c.id)
BY_POSITION: Final = Order((agent_message.c.position,))


class AgentListings(PageReader):
    """See `harness.store.sql.listings`."""

    def agents(
        self, page_request: PageRequest = FIRST_PAGE, *, owner_key: str | None = None
    ) -> Page[Agent]:
        query = sa.select(agent).where(agent.c.deleted_at.is_(None))
        if owner_key is not None:
            query = query.where(
                agent.c.owner_key == owner_key if owner_key else agent.c.owner_key.is_(None)
            )
        return self.plain(query, NEWEST_AGENTS, page_request, agent_from_row)

    def sessions(
        self,
        page_request: PageRequest = FIRST_PAGE,
        *,
        agent: str | None = None,
        user_id: str | None = None,
        parent: str | None = None,
    ) -> Page[AgentSession]:
        query = sa.select(agent_session)
        if agent is not None:
            query = query.where(agent_session.c.agent == agent)
        if user_id is not None:
            query = query.where(agent_session.c.user_id == user_id)
        if parent is not None:
            spawned_by = agent_session.c.parent
            query = query.where(spawned_by == parent if parent else spawned_by.is_(None))
        return self.plain(query, NEWEST_SESSIONS, page_request, session_from_row)

    def session_messages(
        self, page_request: PageRequest = FIRST_PAGE, *, session: str
    ) -> Page[SessionMessage]:
        query = sa.select(agent_message).where(agent_message.c.session == session)
        return self.plain(query, BY_POSITION, page_request, message_from_row)

    def model_usage(self, *, sessions: Collection[str]) -> Sequence[ModelUsage]:
        message = agent_message.c
        query = (
            sa.select(
                message.target,
                sa.func.count().label("answers"),
                sa.func.sum(message.input_tokens).label("input_tokens"),
                sa.func.sum(message.output_tokens).label("output_tokens"),
                sa.func.sum(message.cached_tokens).label("cached_tokens"),
                sa.func.sum(message.cost_usd).label("cost_usd"),
                sa.func.count(message.cost_usd).label("priced"),
            )
            .where(message.session.in_(sessions))
            # Whom nobody answered, and who asked, used no model.
            .where(message.role == MessageRole.ASSISTANT.value, message.target != "")
            .group_by(message.target)
            .order_by(message.target)
        )
        return [
            ModelUsage(
                target=row.target,
                answers=row.answers,
                input_tokens=int(row.input_tokens),
                output_tokens=int(row.output_tokens),
                cached_tokens=int(row.cached_tokens),
                cost_usd=row.cost_usd or 0.0,
                unpriced=row.answers - row.priced,
            )
            for row in self.unit.read(query)
        ]

    def switch_requests(
        self,
        page_request: PageRequest = FIRST_PAGE,
        *,
        session: str | None = None,
        pending_only: bool = False,
    ) -> Page[ModelSwitchRequest]:
        query = sa.select(agent_switch)
        if session is not None:
            query = query.where(agent_switch.c.session == session)
        if pending_only:
            query = query.where(agent_switch.c.state == SwitchState.PENDING.value)
        return self.plain(query, NEWEST_REQUESTS, page_request, switch_request_from_row)

    def agent_grants(
        self, page_request: PageRequest = FIRST_PAGE, *, agent: str | None = None
    ) -> Page[AgentGrant]:
        query = sa.select(agent_grant)
        if agent is not None:
            query = query.where(agent_grant.c.agent == agent)
        return self.signed(agent_grant, query, NEWEST_GRANTS, page_request, grant_from_row)
