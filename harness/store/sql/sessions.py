"""Reads and writes agents' sessions (`Sessions`), their messages (`SessionMessages`) and
turns (`Turns`).

Reads and writes requests to the management API that came with an `Idempotency-Key`
(`IdempotentRequests`).
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from harness.domain.agents.agent import AgentSession, SessionState
from harness.domain.agents.message import MessageState, SessionMessage
from harness.domain.agents.turn import IdempotencyKey, SessionTurn, TurnState, busy
from harness.domain.errors import StaleWrite
from harness.domain.operations.idempotent_request import IdempotentRequest
from harness.store.database_errors import RowRefused
from harness.store.schema.sessions import (
    AGENT_MESSAGE,
    AGENT_SESSION,
    AGENT_TURN,
    IDEMPOTENT_REQUEST,
    agent_message,
    agent_session,
    agent_turn,
    idempotent_request,
)
from harness.store.sql.records import Records

_child = agent_session.alias("child")
_HAS_CHILDREN = sa.exists().where(_child.c.parent == agent_session.c.id)
IS_OPEN = agent_session.c.state == SessionState.OPEN.value
IS_RUNNING = agent_turn.c.state == TurnState.RUNNING.value
IS_STREAMING = agent_message.c.state == MessageState.STREAMING.value
_LAST_POSITION = sa.select(sa.func.coalesce(sa.func.max(agent_message.c.position), 0))


class Sessions(Records[AgentSession]):
    record = AGENT_SESSION
    missing = "there is no session {}"
    missing_code = "session_not_found"

    def lock(self, id_: str) -> AgentSession:
        """Loads a session, and makes others that lock it wait until the unit of work ends."""
        self._unit.serialize_by(f"agent session {id_}")
        return self.get(id_)

    def save(self, known: AgentSession) -> None:
        """Saves the session's model and its state."""
        self._change(self._is(known.id), **self.record.only(known, "model", "state"))

    def charge(self, id_: str, cost_usd: float, now: datetime) -> None:
        """Add to what an open session cost; now: of its newest message."""
        # Added where it is stored: children of one parent do so at the same time.
        cost = agent_session.c.cost_usd + cost_usd
        self._change(self._is(id_), IS_OPEN, cost_usd=cost, last_at=now)

    def open_ids(self, agent: str) -> Sequence[str]:
        return self._ids(agent_session.c.agent == agent, IS_OPEN)

    def children(self, parent: str) -> Sequence[str]:
        """Ids of the sessions that it spawned; closed ones too."""
        return self._ids(agent_session.c.parent == parent)

    def of_user(self, user_id: str) -> Sequence[str]:
        """Lists the ids of the user's sessions and their children, each before its parent."""
        return self._ids(
            agent_session.c.user_id == user_id, order=(agent_session.c.depth.desc(),)
        )

    def idle_since(self, before: datetime, *, limit: int) -> Sequence[str]:
        """Ids of sessions without stored children whose newest message is older."""
        idle = (agent_session.c.last_at < before, ~_HAS_CHILDREN)
        return self._ids(*idle, order=(agent_session.c.last_at,), limit=limit)

    def _ids(
        self,
        *where: sa.ColumnElement[bool],
        order: Sequence[sa.ColumnElement[Any]] = (),
        limit: int | None = None,
    ) -> Sequence[str]:
        query = sa.select(agent_session.c.id).where(*where)
        query = query.order_by(*order, agent_session.c.id).limit(limit)
        return list(self._unit.read(query).scalars())

    def delete(self, id_: str) -> None:
        """Deletes a closed session without children, with its messages and turns."""
        for table in (agent_message, agent_turn):
            self._unit.write(sa.delete(table).where(table.c.session == id_))
        self._delete(self._is(id_))


class SessionMessages(Records[SessionMessage]):
    record = AGENT_MESSAGE
    order = (agent_message.c.position,)

    def list(self, session: str) -> Sequence[SessionMessage]:
        return self._all(self._select(agent_message.c.session == session))

    def last_position(self, session: str) -> int:
        """Returns 0 for a session without messages."""
        last = _LAST_POSITION.where(agent_message.c.session == session)
        return int(self._unit.read(last).scalar_one())

    def streaming(self, session: str) -> SessionMessage | None:
        """Finds the answer that is under way."""
        return self._first(self._select(agent_message.c.session == session, IS_STREAMING))

    def end(self, message: SessionMessage) -> None:
        """Ends an answer under way. Raises StaleWrite where it had ended before."""
        same = (agent_message.c.id == message.id, IS_STREAMING)
        if not self._change(*same, **self.record.write(message)):
            raise StaleWrite(
                f"message {message.position} of session {message.session} has ended already: "
                "its turn was interrupted",
                code="turn_interrupted",
            )


class Turns(Records[SessionTurn]):
    record = AGENT_TURN
    missing = "there is no turn {}: its session was deleted"

    def add(self, new: SessionTurn) -> None:
        """Adds a turn. Raises SessionBusy while another turn of the session runs."""
        try:
            super().add(new)
        except RowRefused as error:
            if error.names("uq_agent_turn_running", "agent_turn.session"):
                raise busy(new.session) from error
            raise

    def running(self, session: str) -> SessionTurn | None:
        return self._first(self._select(IS_RUNNING, agent_turn.c.session == session))

    def all_running(self) -> Sequence[SessionTurn]:
        """Lists the turns that run; the first lease to end comes first."""
        by_lease = (agent_turn.c.lease_until, agent_turn.c.id)
        return self._all(self._select(IS_RUNNING).order_by(*by_lease))

    def renew(self, id_: str, *, owner: str, until: datetime) -> bool:
        """Renews a lease; False where the turn is over, or another owner's."""
        own = agent_turn.c.owner == owner
        return self._change(self._is(id_), IS_RUNNING, own, lease_until=until) == 1

    def find_sent(self, session: str, sent: IdempotencyKey) -> SessionTurn | None:
        """Finds the newest turn of a message with that client's key, whatever its content."""
        own = (agent_turn.c.client == sent.client, agent_turn.c.key == sent.key)
        query = self._select(agent_turn.c.session == session, *own)
        return self._first(query.order_by(agent_turn.c.begun_at.desc(), agent_turn.c.id))

    def end(
        self,
        id_: str,
        state: TurnState,
        now: datetime,
        status: int | None = None,
        body: str = "",
    ) -> None:
        """Ends a turn in the given state. status, body: of the answer that its key gets again.
        Raises StaleWrite where it does not run any more.
        """
        answer = {"status": status, "body": body}
        ended = {"state": state.value, "ended_at": now, **answer}
        if not self._change(self._is(id_), IS_RUNNING, **ended):
            raise StaleWrite(
                f"turn {id_} is over already: it was interrupted", code="turn_interrupted"
            )


class IdempotentRequests(Records[IdempotentRequest]):
    """Stores requests to the management API that came with an `Idempotency-Key`. A change names
    its owner, and says whether that is the owner still.
    """

    record = IDEMPOTENT_REQUEST

    def find(self, scope: str, key: str) -> IdempotentRequest | None:
        columns = idempotent_request.c
        return self._first(self._select(columns.scope == scope, columns.key == key))

    def claim(self, new: IdempotentRequest) -> bool:
        """Claims a key; False where it is taken."""
        return self._unit.write_new(idempotent_request, self.record.write(new))

    def take_over(self, known: IdempotentRequest, new: IdempotentRequest) -> bool:
        """Claims for another owner a request that has had no effect."""
        changes = {"owner": new.owner, "claimed_at": new.claimed_at}
        return self._change(*_is_owned(known), _NO_EFFECT, **changes) == 1

    def note_effect(self, request: IdempotentRequest) -> bool:
        """Notes that the request takes effect in this unit of work."""
        return self._change(*_is_owned(request), took_effect=True) == 1

    def answer(self, request: IdempotentRequest) -> bool:
        changes = {"status": request.status, "body": request.body}
        return self._change(*_is_owned(request), **changes) == 1

    def release(self, request: IdempotentRequest, *, with_effect: bool) -> None:
        """Deletes it, so that it may be sent again. with_effect: also where it took effect."""
        self._delete(*_is_owned(request), *(() if with_effect else (_NO_EFFECT,)))

    def forget(self, before: datetime) -> int:
        """Deletes older requests; returns how many."""
        return self._delete(idempotent_request.c.claimed_at < before)


_NO_EFFECT = idempotent_request.c.took_effect.is_(False)


def _is_owned(request: IdempotentRequest) -> tuple[sa.ColumnElement[bool], ...]:
    columns = idempotent_request.c
    return (
        columns.scope == request.scope,
        columns.key == request.key,
        columns.owner == request.owner,
    )
