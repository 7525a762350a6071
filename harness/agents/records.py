"""Records of agents and their sessions. Sessions are deleted for privacy, so grants and switch
requests name their session without a foreign key.

A repository stores and finds rows. `agents`, `turns` and `switches` check permissions and
states. The database's constraints and triggers refuse invalid rows. Lock order in every
transaction: the switch decisions first, then a session.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from harness.agents.message import (
    IdempotencyKey,
    MessageRole,
    MessageState,
    SessionMessage,
)
from harness.agents.switch_request import ModelSwitchRequest, SwitchState
from harness.frame.errors import StaleWrite
from harness.frame.pagination import FIRST_PAGE, Page, PageRequest
from harness.frame.records.columns import (
    amount,
    at_least,
    index_where,
    json_value,
    not_blank,
    one_of,
    text,
)
from harness.frame.records.record import record
from harness.frame.records.repository import (
    Column,
    Order,
    PageReader,
    Records,
    given,
)
from harness.frame.records.signed_tables import decide_by, sign_rows_of
from harness.providers.records import target
from harness.routing.agent import (
    Agent,
    AgentGrant,
    AgentSession,
    GrantKind,
    SessionState,
)

# The row of a deleted agent remains while a session, grant or switch request names the agent.
# owner_key is not a foreign key, so that an admin can delete a forged key and keep its
# conversations.
AGENT: Final = record(
    Agent,
    "agent",
    not_blank("name"),
    sa.Index("ix_agent_owner_key", "owner_key", "created_at", "id"),
    index_where(
        "ix_agent_created_at",
        sa.text("deleted_at IS NULL"),
        "created_at",
        "id",
    ),
)

agent = AGENT.table

# Triggers refuse a second decision and a deletion. They allow `blank` to remove the texts.
AGENT_SWITCH: Final = record(
    ModelSwitchRequest,
    "agent_switch",
    one_of("state", SwitchState),
    sa.CheckConstraint("expires_at > asked_at", name="expires_later"),
    sa.CheckConstraint("(state = 'pending') = (decided_at IS NULL)", name="decided_when"),
    sa.CheckConstraint(
        "state NOT IN ('approved', 'rejected') OR trim(decided_by) <> ''",
        name="decided_by_whom",
    ),
    sa.CheckConstraint(
        "state <> 'approved' OR decided_at < expires_at",
        name="approved_in_time",
    ),
    sa.Index("ix_agent_switch_session", "session", "asked_at"),
    sa.Index("ix_agent_switch_asked_at", "asked_at", "id"),
    sa.Index("ix_agent_switch_state", "state", "asked_at", "id"),
    index_where("ix_agent_switch_pending", sa.text("state = 'pending'"), "expires_at"),
    refers={"agent": agent},
)

agent_switch = decide_by(AGENT_SWITCH.table)

# Triggers refuse every change except the first revocation.
AGENT_GRANT: Final = record(
    AgentGrant,
    "agent_grant",
    text("request", nullable=True),
    not_blank("granted_by"),
    not_blank("reason"),
    one_of("kind", GrantKind),
    sa.CheckConstraint("expires_at > created_at", name="expires_later"),
    sa.CheckConstraint(
        "(kind = 'switch') = (request IS NOT NULL)",
        name="request_of_a_switch",
    ),
    sa.CheckConstraint("(kind = 'switch') = (session <> '')", name="session_of_a_switch"),
    sa.UniqueConstraint("request", "target"),
    sa.Index("ix_agent_grant_agent", "agent", "created_at"),
    sa.Index("ix_agent_grant_created_at", "created_at", "id"),
    index_where("ix_agent_grant_valid", sa.text("revoked_at IS NULL"), "expires_at"),
    refers={
        "agent": agent,
        "target": target,
        "request": agent_switch,
    },
    signed=True,
)

agent_grant = sign_rows_of(AGENT_GRANT.table, live=AGENT_GRANT.table.c.revoked_at.is_(None))

AGENT_SESSION: Final = record(
    AgentSession,
    "agent_session",
    one_of("state", SessionState),
    amount("cost_usd"),
    sa.CheckConstraint("(turn = '') = (lease_until IS NULL)", name="leased_when"),
    sa.Index("ix_agent_session_agent", "agent", "created_at", "id"),
    sa.Index("ix_agent_session_created_at", "created_at", "id"),
    sa.Index("ix_agent_session_user_id", "user_id"),
    sa.Index("ix_agent_session_parent", "parent"),
    sa.Index("ix_agent_session_last_at", "last_at"),
    index_where("ix_agent_session_running", sa.text("turn <> ''"), "lease_until"),
    refers={"agent": agent, "parent": "agent_session"},
)

agent_session = AGENT_SESSION.table

AGENT_MESSAGE: Final = record(
    SessionMessage,
    "agent_message",
    json_value("content"),
    sa.UniqueConstraint("id"),
    at_least("position", 1),
    one_of("role", MessageRole),
    one_of("state", MessageState),
    amount("cost_usd"),
    sa.CheckConstraint("(state = 'streaming') = (done_at IS NULL)", name="done_when"),
    sa.CheckConstraint("state = 'complete' OR role = 'assistant'", name="only_answers_fail"),
    key="session position",
    refers={"session": agent_session},
    flat="served usage sent",
)

agent_message = AGENT_MESSAGE.table
IS_PENDING = agent_switch.c.state == SwitchState.PENDING.value
IS_REFERENCED = sa.or_(
    *(
        sa.exists().where(table.c.agent == agent.c.id)
        for table in (agent_session, agent_switch, agent_grant)
    )
)


class Agents(Records[Agent]):
    record = AGENT
    missing = "there is no agent {}; GET /agents shows them"
    missing_code = "agent_not_found"

    def lock(self, id_: str) -> Agent:
        """Loads an agent; other writers wait until the transaction ends."""
        self._tx.serialize()
        return self.get(id_)

    def save(self, row: Agent) -> None:
        self._change(self._is(row.id), **self.record.write(row))

    def forget(self, before: datetime) -> int:
        """Deletes the rows of agents that were deleted before that time, unless a session,
        grant or switch request names them. Returns their number.
        """
        return self._delete(agent.c.deleted_at < before, ~IS_REFERENCED)


class SwitchRequests(Records[ModelSwitchRequest]):
    record = AGENT_SWITCH
    order = (agent_switch.c.asked_at.desc(), agent_switch.c.id.desc())
    missing = "there is no switch request {}; `swapproof agent requests` lists them"

    def decide(self, request: ModelSwitchRequest) -> None:
        """Stores a decision. The caller must store an approval's grants before it."""
        names = (
            "state",
            "decided_at",
            "decided_by",
            "decided_with",
            "decision_reason",
        )
        self._change(self._is(request.id), **self.record.only(request, *names))

    def of_session(self, session: str) -> Sequence[ModelSwitchRequest]:
        return self._all(self._select(agent_switch.c.session == session))

    def pending(self, *, session: str | None = None) -> Sequence[ModelSwitchRequest]:
        """Lists the pending and overdue requests by expiry. In a write transaction, it also
        locks the decisions until the transaction ends.
        """
        self._tx.serialize()
        query = self._select(IS_PENDING, given(agent_switch.c.session, session))
        by_end = (agent_switch.c.expires_at, agent_switch.c.id)
        return self._all(query.order_by(None).order_by(*by_end))

    def blank(self, session: str) -> None:
        """Removes the texts of a deleted session's decided requests. The decisions stay for the
        audit.
        """
        empty_texts = {
            "model_requested": "",
            "reason": "",
            "facts": [],
        }
        self._change(agent_switch.c.session == session, ~IS_PENDING, **empty_texts)


class AgentGrants(Records[AgentGrant]):
    record = AGENT_GRANT
    order = (agent_grant.c.created_at.desc(), agent_grant.c.id.desc())
    missing = "there is no grant {}"

    def revoke(self, id_: str, now: datetime) -> AgentGrant:
        return self._close(id_, revoked_at=now)

    def not_revoked(self, *, agent: str | None = None) -> Sequence[AgentGrant]:
        """Lists grants that are not revoked, including expired grants. With an agent, the
        newest grant is first; otherwise the order is by expiry.
        """
        query = self._select(agent_grant.c.revoked_at.is_(None))
        if agent is not None:
            return self._all(query.where(agent_grant.c.agent == agent))
        # This is the order of the partial index.
        return self._all(
            query.order_by(None).order_by(agent_grant.c.expires_at, agent_grant.c.id)
        )


_child = agent_session.alias("child")
_HAS_CHILDREN = sa.exists().where(_child.c.parent == agent_session.c.id)
IS_OPEN = agent_session.c.state == SessionState.OPEN.value
IS_STREAMING = agent_message.c.state == MessageState.STREAMING.value


class Sessions(Records[AgentSession]):
    record = AGENT_SESSION
    missing = "there is no session {}"
    missing_code = "session_not_found"

    def lock(self, id_: str) -> AgentSession:
        """Loads a session; other processes that lock it wait until the transaction ends."""
        self._tx.serialize_by(f"agent session {id_}")
        return self.get(id_)

    def save(self, session: AgentSession) -> None:
        """Saves the model and the state. `save_turn` saves the turn, and `charge` the cost."""
        self._change(self._is(session.id), **self.record.only(session, "model", "state"))

    def save_turn(self, session: AgentSession) -> None:
        """Saves the running turn, if any, and the time of the newest message."""
        names = ("turn", "owner", "lease_until", "last_at")
        self._change(self._is(session.id), **self.record.only(session, *names))

    def renew(
        self,
        turn: str,
        *,
        owner: str,
        until: datetime,
    ) -> bool:
        """Renews a lease; returns False if the turn has ended or has another owner."""
        where = (agent_session.c.turn == turn, agent_session.c.owner == owner)
        return self._change(*where, lease_until=until) == 1

    def running(self) -> Sequence[AgentSession]:
        """Lists the sessions with a running turn, by the end of their lease."""
        by_lease = (agent_session.c.lease_until, agent_session.c.id)
        return self._all(self._select(agent_session.c.turn != "").order_by(*by_lease))

    def charge(
        self,
        id_: str,
        cost_usd: float,
        now: datetime,
    ) -> None:
        """Adds a cost to an open session. A closed session stays unchanged."""
        # The database adds the cost, because the children of a parent charge it in parallel.
        cost = agent_session.c.cost_usd + cost_usd
        self._change(
            self._is(id_),
            IS_OPEN,
            cost_usd=cost,
            last_at=now,
        )

    def open_ids(self, agent: str) -> Sequence[str]:
        return self._list_ids(agent_session.c.agent == agent, IS_OPEN)

    def children(self, parent: str) -> Sequence[str]:
        return self._list_ids(agent_session.c.parent == parent)

    def of_user(self, user_id: str) -> Sequence[str]:
        """Lists the ids of a user's sessions, children before their parents, so that a deletion
        in this order breaks no foreign key.
        """
        return self._list_ids(
            agent_session.c.user_id == user_id,
            order=(agent_session.c.parent.is_(None),),
        )

    def idle_since(self, before: datetime, *, limit: int) -> Sequence[str]:
        """Lists the ids of sessions without children and without a message since that time, the
        longest idle first.
        """
        is_idle = (agent_session.c.last_at < before, ~_HAS_CHILDREN)
        return self._list_ids(*is_idle, order=(agent_session.c.last_at,), limit=limit)

    def _list_ids(
        self,
        *where: sa.ColumnElement[bool],
        order: Sequence[sa.ColumnElement[Any]] = (),
        limit: int | None = None,
    ) -> Sequence[str]:
        query = sa.select(agent_session.c.id).where(*where)
        query = query.order_by(*order, agent_session.c.id).limit(limit)
        return list(self._tx.read(query).scalars())

    def delete(self, id_: str) -> None:
        """Deletes a closed session without children, with its messages."""
        self._tx.write(sa.delete(agent_message).where(agent_message.c.session == id_))
        self._delete(self._is(id_))


class SessionMessages(Records[SessionMessage]):
    record = AGENT_MESSAGE
    order = (agent_message.c.position,)

    def list(self, session: str) -> Sequence[SessionMessage]:
        return self._all(self._select(agent_message.c.session == session))

    def last_position(self, session: str) -> int:
        """Returns the position of the newest message; 0 for a session without messages."""
        position = sa.select(sa.func.coalesce(sa.func.max(agent_message.c.position), 0))
        query = position.where(agent_message.c.session == session)
        return int(self._tx.read(query).scalar_one())

    def streaming(self, session: str) -> SessionMessage | None:
        return self._first(self._select(agent_message.c.session == session, IS_STREAMING))

    def find_by_key(self, session: str, key: IdempotencyKey) -> SessionMessage | None:
        """Finds the message with the client's key."""
        where = (
            agent_message.c.session == session,
            agent_message.c.client == key.client,
            agent_message.c.key == key.key,
        )
        return self._first(self._select(*where))

    def move(
        self,
        session: str,
        turn: str,
        *,
        new_turn: str,
    ) -> None:
        """Moves the messages of an interrupted turn to the turn that continues it."""
        where = (
            agent_message.c.session == session,
            agent_message.c.turn == turn,
        )
        self._change(*where, turn=new_turn)

    def store_answer(
        self,
        session: str,
        turn: str,
        answer: str,
    ) -> None:
        """Stores the answer that a client gets if it repeats the turn's idempotency key."""
        where = (
            agent_message.c.session == session,
            agent_message.c.turn == turn,
        )
        self._change(*where, agent_message.c.key != "", kept=answer)

    def end(self, message: SessionMessage) -> None:
        """Ends a streaming answer. Raises StaleWrite if it has ended already."""
        where = (agent_message.c.id == message.id, IS_STREAMING)
        if not self._change(*where, **self.record.write(message)):
            raise StaleWrite(
                f"message {message.position} of session {message.session} has ended already: "
                "its turn was interrupted",
                code="turn_interrupted",
            )


def _match_or_null(column: Column, value: str | None) -> sa.ColumnElement[bool] | None:
    """Builds the condition as `given` does. An empty value selects the rows with NULL."""
    return column.is_(None) if value == "" else given(column, value)


def _order_newest_first(*columns: Column) -> Order:
    """Orders by the columns, descending. Cursors contain the columns' values, because the row
    may be deleted.
    """
    return Order(columns, frozenset(columns))


NEWEST_AGENTS: Final = _order_newest_first(agent.c.created_at, agent.c.id)
NEWEST_SESSIONS: Final = _order_newest_first(agent_session.c.created_at, agent_session.c.id)
NEWEST_REQUESTS: Final = _order_newest_first(agent_switch.c.asked_at, agent_switch.c.id)
NEWEST_GRANTS: Final = _order_newest_first(agent_grant.c.created_at, agent_grant.c.id)
BY_POSITION: Final = Order((agent_message.c.position,))


class AgentListings(PageReader):
    """Pages for lists of the API and the dashboard. A cursor stays valid if its row is
    deleted.
    """

    def agents(
        self,
        page_request: PageRequest = FIRST_PAGE,
        *,
        owner_key: str | None = None,
    ) -> Page[Agent]:
        """Pages agents that are not deleted.

        Args:
            owner_key: None for all, empty for agents without a key.
        """
        owner = _match_or_null(agent.c.owner_key, owner_key)
        not_deleted = agent.c.deleted_at.is_(None)
        return self.page(AGENT, NEWEST_AGENTS, page_request, not_deleted, owner)

    def sessions(
        self,
        page_request: PageRequest = FIRST_PAGE,
        *,
        agent: str | None = None,
        user_id: str | None = None,
        parent: str | None = None,
    ) -> Page[AgentSession]:
        """Pages sessions.

        Args:
            parent: None for all, empty for sessions that no session spawned.
        """
        where = (
            given(agent_session.c.agent, agent),
            given(agent_session.c.user_id, user_id),
            _match_or_null(agent_session.c.parent, parent),
        )
        return self.page(AGENT_SESSION, NEWEST_SESSIONS, page_request, *where)

    def session_messages(
        self, page_request: PageRequest = FIRST_PAGE, *, session: str
    ) -> Page[SessionMessage]:
        where = agent_message.c.session == session
        return self.page(AGENT_MESSAGE, BY_POSITION, page_request, where)

    def switch_requests(
        self,
        page_request: PageRequest = FIRST_PAGE,
        *,
        session: str | None = None,
        pending_at: datetime | None = None,
    ) -> Page[ModelSwitchRequest]:
        """Lists requests.

        Args:
            pending_at: only requests that wait for a person at that time.
        """
        pending = None
        if pending_at is not None:
            pending = sa.and_(IS_PENDING, agent_switch.c.expires_at > pending_at)
        where = given(agent_switch.c.session, session)
        return self.page(AGENT_SWITCH, NEWEST_REQUESTS, page_request, where, pending)

    def agent_grants(
        self,
        page_request: PageRequest = FIRST_PAGE,
        *,
        agent: str | None = None,
    ) -> Page[AgentGrant]:
        where = given(agent_grant.c.agent, agent)
        return self.page(AGENT_GRANT, NEWEST_GRANTS, page_request, where)
