"""Reads and writes agents' sessions (`Sessions`), their messages (`SessionMessages`) and
turns (`Turns`), and what clients got under an idempotency key (`IdempotentAnswers`).

Reads and writes requests to the management API that came with an `Idempotency-Key`
(`IdempotentRequests`).
"""

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa

from harness.domain.agents.agent import AgentSession, SessionState
from harness.domain.agents.message import MessageState, SessionMessage
from harness.domain.agents.turn_lease import IdempotentAnswer, SessionTurn, TurnState, busy
from harness.domain.errors import Conflict, NotFound, StaleWrite
from harness.domain.operations.idempotent_request import IdempotentRequest
from harness.store.database_errors import RowRefused
from harness.store.schema.sessions import (
    agent_idempotency,
    agent_message,
    agent_session,
    agent_turn,
    idempotent_answer_from_row,
    idempotent_answer_to_row,
    idempotent_request,
    message_from_row,
    message_to_row,
    request_from_row,
    request_to_row,
    session_from_row,
    session_to_row,
    turn_from_row,
    turn_to_row,
)
from harness.store.unit_of_work import Unit

SESSIONS = sa.select(agent_session)
SESSION = SESSIONS.where(agent_session.c.id == sa.bindparam("which"))
SESSION_IDS = sa.select(agent_session.c.id)
_child = agent_session.alias("child")
_HAS_CHILDREN = sa.exists().where(_child.c.parent == agent_session.c.id)
TURNS = sa.select(agent_turn)
RUNNING = TURNS.where(agent_turn.c.state == TurnState.RUNNING.value)
CHANGE_TURN = sa.update(agent_turn).where(
    agent_turn.c.id == sa.bindparam("which"), agent_turn.c.state == TurnState.RUNNING.value
)
MESSAGES = sa.select(agent_message)
OF_SESSION = MESSAGES.where(agent_message.c.session == sa.bindparam("whose")).order_by(
    agent_message.c.position
)
LAST_POSITION = sa.select(sa.func.coalesce(sa.func.max(agent_message.c.position), 0)).where(
    agent_message.c.session == sa.bindparam("whose")
)
END_MESSAGE = sa.update(agent_message).where(
    agent_message.c.id == sa.bindparam("which"),
    agent_message.c.state == MessageState.STREAMING.value,
)
ANSWERS = sa.select(agent_idempotency)


class Sessions:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def add(self, new: AgentSession) -> None:
        self._unit.write(sa.insert(agent_session), session_to_row(new))

    def get(self, id_: str) -> AgentSession:
        row = self._unit.read(SESSION, {"which": id_}).first()
        if row is None:
            raise NotFound(f"there is no session {id_}", code="session_not_found")
        return session_from_row(row)

    def lock(self, id_: str) -> AgentSession:
        self._unit.serialize_by(f"agent session {id_}")
        return self.get(id_)

    def save(self, known: AgentSession) -> None:
        values = session_to_row(known)
        changes = {"model": values["model"], "state": values["state"]}
        same = agent_session.c.id == known.id
        self._unit.write(sa.update(agent_session).where(same).values(changes))

    def charge(self, id_: str, cost_usd: float, now: datetime) -> None:
        """Add to what an open session cost; now: of its newest message."""
        # Added where it is stored: children of one parent do so at the same time.
        self._unit.write(
            sa.update(agent_session)
            .where(agent_session.c.id == id_, agent_session.c.state == SessionState.OPEN.value)
            .values(cost_usd=agent_session.c.cost_usd + cost_usd, last_at=now)
        )

    def open_ids(self, agent: str) -> Sequence[str]:
        query = SESSION_IDS.where(
            agent_session.c.agent == agent, agent_session.c.state == SessionState.OPEN.value
        )
        return list(self._unit.read(query.order_by(agent_session.c.id)).scalars())

    def children(self, parent: str) -> Sequence[str]:
        """Ids of the sessions that it spawned; closed ones too."""
        query = SESSION_IDS.where(agent_session.c.parent == parent)
        return list(self._unit.read(query.order_by(agent_session.c.id)).scalars())

    def of_user(self, user_id: str) -> Sequence[str]:
        query = SESSION_IDS.where(agent_session.c.user_id == user_id)
        order = (agent_session.c.depth.desc(), agent_session.c.id)
        return list(self._unit.read(query.order_by(*order)).scalars())

    def idle_since(self, before: datetime, *, limit: int) -> Sequence[str]:
        query = SESSION_IDS.where(agent_session.c.last_at < before, ~_HAS_CHILDREN)
        query = query.order_by(agent_session.c.last_at, agent_session.c.id).limit(limit)
        return list(self._unit.read(query).scalars())

    def delete(self, id_: str) -> None:
        for table in (agent_message, agent_turn, agent_idempotency):
            self._unit.write(sa.delete(table).where(table.c.session == id_))
        self._unit.write(sa.delete(agent_session).where(agent_session.c.id == id_))


class SessionMessages:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def add(self, message: SessionMessage) -> None:
        self._unit.write(sa.insert(agent_message), message_to_row(message))

    def list(self, session: str) -> Sequence[SessionMessage]:
        rows = self._unit.read(OF_SESSION, {"whose": session})
        return [message_from_row(row).require_sound() for row in rows]

    def last_position(self, session: str) -> int:
        return int(self._unit.read(LAST_POSITION, {"whose": session}).scalar_one())

    def streaming(self, session: str) -> SessionMessage | None:
        query = OF_SESSION.where(agent_message.c.state == MessageState.STREAMING.value)
        row = self._unit.read(query, {"whose": session}).first()
        return None if row is None else message_from_row(row)

    def end(self, message: SessionMessage) -> None:
        """An answer under way has ended. Raises StaleWrite where it had ended before."""
        values = message_to_row(message) | {"which": message.id}
        if not self._unit.write(END_MESSAGE, values):
            raise StaleWrite(
                f"message {message.position} of session {message.session} has ended already: "
                "its turn was interrupted",
                code="turn_interrupted",
            )


class Turns:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def add(self, new: SessionTurn) -> None:
        """Adds a turn. Raises SessionBusy while the session has one that runs."""
        try:
            self._unit.write(sa.insert(agent_turn), turn_to_row(new))
        except RowRefused as error:
            if error.names("uq_agent_turn_running", "agent_turn.session"):
                raise busy(new.session) from error
            raise

    def get(self, id_: str) -> SessionTurn:
        row = self._unit.read(TURNS.where(agent_turn.c.id == id_)).first()
        if row is None:
            raise NotFound(f"there is no turn {id_}: its session was deleted")
        return turn_from_row(row)

    def running(self, session: str) -> SessionTurn | None:
        row = self._unit.read(RUNNING.where(agent_turn.c.session == session)).first()
        return None if row is None else turn_from_row(row)

    def all_running(self) -> Sequence[SessionTurn]:
        query = RUNNING.order_by(agent_turn.c.lease_until, agent_turn.c.id)
        return [turn_from_row(row) for row in self._unit.read(query)]

    def renew(self, id_: str, *, owner: str, until: datetime) -> bool:
        own = CHANGE_TURN.where(agent_turn.c.owner == owner).values(lease_until=until)
        return self._unit.write(own, {"which": id_}) == 1

    def end(self, id_: str, state: TurnState, now: datetime) -> None:
        """Ends a turn in the given state. Raises StaleWrite where it does not run any more."""
        over = CHANGE_TURN.values(state=state.value, ended_at=now)
        if not self._unit.write(over, {"which": id_}):
            raise StaleWrite(
                f"turn {id_} is over already: it was interrupted", code="turn_interrupted"
            )


class IdempotentAnswers:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def get(self, scope: str, key: str) -> IdempotentAnswer | None:
        same = (agent_idempotency.c.scope == scope, agent_idempotency.c.key == key)
        row = self._unit.read(ANSWERS.where(*same)).first()
        return None if row is None else idempotent_answer_from_row(row)

    def add(self, new: IdempotentAnswer) -> None:
        """Adds the key of a request, and its answer where it has one. Raises Conflict where the
        key is taken.
        """
        if not self._unit.write_new(agent_idempotency, idempotent_answer_to_row(new)):
            raise Conflict(
                f"a request with the idempotency key {new.key.key!r} is under way: wait for it",
                code="idempotency_key_in_use",
            )

    def save(self, known: IdempotentAnswer) -> None:
        """Saves the key's turn, and its answer, once. Raises StaleWrite where it is answered
        already.
        """
        same = (
            agent_idempotency.c.scope == known.key.scope,
            agent_idempotency.c.key == known.key.key,
            agent_idempotency.c.status.is_(None),
        )
        values = idempotent_answer_to_row(known)
        changes = {name: values[name] for name in ("turn", "status", "body")}
        if not self._unit.write(sa.update(agent_idempotency).where(*same).values(changes)):
            raise StaleWrite(
                f"the request with the idempotency key {known.key.key!r} has its answer already"
            )

    def of_turn(self, turn: str) -> IdempotentAnswer | None:
        row = self._unit.read(ANSWERS.where(agent_idempotency.c.turn == turn)).first()
        return None if row is None else idempotent_answer_from_row(row)

    def forget(self, before: datetime) -> int:
        """Delete those that are older; how many."""
        old = agent_idempotency.c.created_at < before
        return self._unit.write(sa.delete(agent_idempotency).where(old))


_COLUMNS = idempotent_request.c


def _same(request: IdempotentRequest) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        _COLUMNS.scope == request.scope,
        _COLUMNS.key == request.key,
        _COLUMNS.owner == request.owner,
    )


class IdempotentRequests:
    """Stores requests to the management API that came with an `Idempotency-Key`. What changes
    one names its owner, and says whether that is the owner still.
    """

    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def get(self, scope: str, key: str) -> IdempotentRequest | None:
        query = sa.select(idempotent_request).where(
            _COLUMNS.scope == scope, _COLUMNS.key == key
        )
        row = self._unit.read(query).first()
        return None if row is None else request_from_row(row)

    def add(self, new: IdempotentRequest) -> bool:
        """Claims a key; False where it is taken."""
        return self._unit.write_new(idempotent_request, request_to_row(new))

    def take_over(self, known: IdempotentRequest, new: IdempotentRequest) -> bool:
        return self._change(
            known, _COLUMNS.took_effect.is_(False), owner=new.owner, claimed_at=new.claimed_at
        )

    def note_effect(self, request: IdempotentRequest) -> bool:
        return self._change(request, took_effect=True)

    def answer(self, request: IdempotentRequest) -> bool:
        return self._change(request, status=request.status, body=request.body)

    def _change(
        self, request: IdempotentRequest, *where: sa.ColumnElement[bool], **values: object
    ) -> bool:
        changed = sa.update(idempotent_request).where(*_same(request), *where).values(values)
        return self._unit.write(changed) == 1

    def release(self, request: IdempotentRequest, *, with_effect: bool) -> None:
        """Deletes it, so that it may be sent again. with_effect: also where it took effect."""
        which = sa.delete(idempotent_request).where(*_same(request))
        if not with_effect:
            which = which.where(_COLUMNS.took_effect.is_(False))
        self._unit.write(which)

    def forget(self, before: datetime) -> int:
        """Deletes those that are older; how many."""
        old = _COLUMNS.claimed_at < before
        return self._unit.write(sa.delete(idempotent_request).where(old))
