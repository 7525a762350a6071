"""Turns are begun, stored step by step and ended, each in one unit of work, so that a process
that is killed leaves a conversation that is whole: the client's message, what was answered and
run so far, and the answer under way as `interrupted`. A turn is held by a lease; whoever finds
one that has lapsed ends the turn.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from harness.control.agents.messages import encode_message, read_conversation
from harness.control.context import Context
from harness.domain.agents.agent import Agent, AgentSession
from harness.domain.agents.incoming_message import IncomingMessage, check_place
from harness.domain.agents.message import (
    MessageRole,
    MessageState,
    MessageToolCall,
    ServedBy,
    SessionMessage,
)
from harness.domain.agents.transcript import find_open_calls
from harness.domain.agents.turn_lease import (
    IdempotencyKey,
    IdempotentAnswer,
    SessionTurn,
    TurnOwner,
    TurnState,
    busy,
)
from harness.domain.errors import Conflict, NotFound, StaleWrite
from harness.ports import Transaction

CUT_OFF: Final = "the process that answered ended before the answer did; send the message again"


@dataclass(frozen=True, slots=True)
class HeldTurn:
    """A turn that this process holds."""

    id: str
    session: str
    owner: str  # as `TurnOwner.text`
    encrypt: bool  # of what it stores


@dataclass(frozen=True, slots=True)
class BegunTurn:
    """A turn with what it starts from."""

    turn: HeldTurn
    agent: Agent
    session: AgentSession
    messages: tuple[SessionMessage, ...]  # all of the session, the client's new one at the end
    # Of the last answer, those that the client has not answered yet: no model is asked before.
    open_calls: tuple[MessageToolCall, ...] = ()
    is_resumed: bool = False  # the client's message was stored by a turn that broke off


def begin_turn(
    ctx: Context,
    owner: TurnOwner,
    lease: timedelta,
    session: str,
    incoming: IncomingMessage,
    key: IdempotencyKey | None = None,
    *,
    encrypt: bool = False,
) -> BegunTurn | IdempotentAnswer:
    """Store the client's message and begin its turn. Where the key's request was done before,
    its answer; where its turn broke off, another turn for the message as it is stored.

    encrypt: what the turn stores. Raises SessionBusy, NotFound, Conflict for a session that is
    closed or waits for tool results, and for a key of another request; InputError for a result
    of an unknown call.
    """
    with ctx.store.write() as tx:
        stored = tx.sessions.lock(session)
        end_if_lapsed(ctx, tx, session, lease)
        known = _find_answer(tx, key)
        if known is not None and known.status is not None:
            body = ctx.cipher.decrypt(known.body) if known.encrypted else known.body
            return replace(known, body=body, encrypted=False)
        agent = tx.agents.get(stored.agent)
        agent.require_live()
        stored.require_open()
        if tx.turns.running(session) is not None:
            raise busy(session)
        messages = read_conversation(ctx, tx, session)
        turn = _add_turn(ctx, tx, owner, lease, session, encrypt=encrypt)
        if known is not None:
            _require_last(known, messages)
            tx.idempotent_answers.save(replace(known, turn=turn.id))
        else:
            check_place(incoming, _open_calls(agent, messages))
            messages.append(_add_incoming(ctx, tx, turn, incoming, len(messages) + 1))
            if key is not None:
                now = ctx.clock.now()
                tx.idempotent_answers.add(IdempotentAnswer(key, now, session, turn.id))
        open_calls = _open_calls(agent, messages)
        return BegunTurn(turn, agent, stored, tuple(messages), open_calls, known is not None)


def _find_answer(tx: Transaction, key: IdempotencyKey | None) -> IdempotentAnswer | None:
    known = tx.idempotent_answers.get(key.scope, key.key) if key is not None else None
    if known is not None and key is not None:
        known.key.require_same(key.request_hash)
    return known


def _require_last(known: IdempotentAnswer, messages: Sequence[SessionMessage]) -> None:
    if not messages or messages[-1].turn != known.turn:
        raise Conflict(
            f"the turn of the idempotency key {known.key.key!r} broke off, and the "
            "conversation went on since: send the message with another key",
            code="turn_interrupted",
        )


def _open_calls(
    agent: Agent, messages: Sequence[SessionMessage]
) -> tuple[MessageToolCall, ...]:
    own = (tool.name for tool in agent.tools if tool.runs_at_client)
    return find_open_calls(messages, own)


def _add_turn(
    ctx: Context,
    tx: Transaction,
    owner: TurnOwner,
    lease: timedelta,
    session: str,
    *,
    encrypt: bool,
) -> HeldTurn:
    now, id_ = ctx.clock.now(), ctx.chance.token("tu_")
    tx.turns.add(SessionTurn(id_, session, owner.text, now, now + lease))
    tx.sessions.charge(session, 0.0, now)
    return HeldTurn(id_, session, owner.text, encrypt)


def _add_incoming(
    ctx: Context, tx: Transaction, turn: HeldTurn, incoming: IncomingMessage, position: int
) -> SessionMessage:
    now = ctx.clock.now()
    message = SessionMessage(
        session=turn.session,
        position=position,
        id=ctx.chance.token("ms_"),
        role=incoming.role,
        created_at=now,
        content=incoming.content,
        response_to=incoming.response_to,
        done_at=now,
        turn=turn.id,
    )
    tx.session_messages.add(encode_message(ctx, message, encrypt=turn.encrypt))
    return message


def begin_answer(ctx: Context, turn: HeldTurn, *, asked: str) -> SessionMessage:
    """Store an answer as under way, before its model is asked. asked: the model's name.

    Raises StaleWrite where the turn is over.
    """
    with ctx.store.write() as tx:
        _require_held(tx, turn)
        message = SessionMessage(
            session=turn.session,
            position=tx.session_messages.last_position(turn.session) + 1,
            id=ctx.chance.token("ms_"),
            role=MessageRole.ASSISTANT,
            created_at=ctx.clock.now(),
            state=MessageState.STREAMING,
            served=ServedBy(asked=asked),
            turn=turn.id,
        )
        tx.session_messages.add(encode_message(ctx, message, encrypt=turn.encrypt))
        return message


def record_step(
    ctx: Context,
    turn: HeldTurn,
    *,
    answer: SessionMessage | None = None,
    results: Sequence[tuple[str, str]] = (),
) -> tuple[SessionMessage, ...]:
    """Store an answer that has ended, and tools' results: the call's id and a text each.

    Raises StaleWrite where the turn is over: nobody sees what it goes on to do.
    """
    with ctx.store.write() as tx:
        _require_held(tx, turn)
        return _record(ctx, tx, turn, answer, results)


def end_turn(
    ctx: Context,
    turn: HeldTurn,
    *,
    answer: SessionMessage | None = None,
    results: Sequence[tuple[str, str]] = (),
    kept: tuple[int, str] | None = None,
) -> tuple[SessionMessage, ...]:
    """As `record_step`, and the turn's end, at once. kept: status and body of the answer that
    the same idempotency key gets again; None where the request may be done again.
    """
    with ctx.store.write() as tx:
        _require_held(tx, turn)
        stored = _record(ctx, tx, turn, answer, results)
        known = tx.idempotent_answers.of_turn(turn.id)
        if known is not None and kept is not None:
            status, text = kept
            body = ctx.cipher.encrypt(text) if turn.encrypt else text
            done = replace(known, status=status, body=body, encrypted=turn.encrypt)
            tx.idempotent_answers.save(done)
        tx.turns.end(turn.id, TurnState.DONE, ctx.clock.now())
        return stored


def _record(
    ctx: Context,
    tx: Transaction,
    turn: HeldTurn,
    answer: SessionMessage | None,
    results: Sequence[tuple[str, str]],
) -> tuple[SessionMessage, ...]:
    now, stored = ctx.clock.now(), []
    if answer is not None:
        ended = answer if answer.done_at is not None else replace(answer, done_at=now)
        tx.session_messages.end(encode_message(ctx, ended, encrypt=turn.encrypt))
        stored.append(ended)
    position = tx.session_messages.last_position(turn.session)
    for number, (call, text) in enumerate(results, 1):
        result = SessionMessage(
            session=turn.session,
            position=position + number,
            id=ctx.chance.token("ms_"),
            role=MessageRole.TOOL,
            created_at=now,
            content=text,
            response_to=call,
            done_at=now,
            turn=turn.id,
        )
        tx.session_messages.add(encode_message(ctx, result, encrypt=turn.encrypt))
        stored.append(result)
    charge_session(ctx, tx, turn.session, answer.usage.cost_usd if answer else None)
    return tuple(stored)


def charge_session(ctx: Context, tx: Transaction, session: str, cost_usd: float | None) -> None:
    """Add to what the session cost, and to those that stand above it. None: not known."""
    now, next_one = ctx.clock.now(), session
    while next_one:
        tx.sessions.charge(next_one, cost_usd or 0.0, now)
        next_one = tx.sessions.get(next_one).parent or ""


def _require_held(tx: Transaction, turn: HeldTurn) -> None:
    tx.sessions.lock(turn.session)
    stored = tx.turns.get(turn.id)
    if stored.state is not TurnState.RUNNING or stored.owner != turn.owner:
        raise StaleWrite(
            f"turn {turn.id} of session {turn.session} was interrupted: nothing of it is "
            "stored any more",
            code="turn_interrupted",
        )


def renew(
    ctx: Context, owner: TurnOwner, lease: timedelta, ids: Sequence[str]
) -> tuple[str, ...]:
    """Renew the leases of this process's turns; those that are its no more. To be called in
    less than half a lease. ids: of turns.
    """
    if not ids:
        return ()
    until = ctx.clock.now() + lease
    with ctx.store.write() as tx:
        return tuple(
            id_ for id_ in ids if not tx.turns.renew(id_, owner=owner.text, until=until)
        )


def interrupt(ctx: Context, turn: HeldTurn, reason: str = CUT_OFF) -> SessionMessage | None:
    """End a turn before its answer, which it returns where one was under way. A turn that is
    over, or whose session was deleted, stays so.
    """
    with ctx.store.write() as tx:
        try:
            tx.sessions.lock(turn.session)
            stored = tx.turns.get(turn.id)
        except NotFound:
            return None
        if stored.state is not TurnState.RUNNING:
            return None
        return end_early(ctx, tx, stored, reason)


def end_early(
    ctx: Context, tx: Transaction, turn: SessionTurn, reason: str
) -> SessionMessage | None:
    """Interrupts the turn and its answer under way, which it returns. The session is locked."""
    now, cut = ctx.clock.now(), None
    under_way = tx.session_messages.streaming(turn.session)
    if under_way is not None:
        cut = replace(
            under_way.message, state=MessageState.INTERRUPTED, error=reason, done_at=now
        )
        # The reason is ours; a process without encryption keys can store it, too.
        tx.session_messages.end(encode_message(ctx, cut, encrypt=False))
    tx.turns.end(turn.id, TurnState.INTERRUPTED, now)
    return cut


def end_if_lapsed(ctx: Context, tx: Transaction, session: str, lease: timedelta) -> bool:
    """Whether the session's turn was nobody's any more, and is over now."""
    turn = tx.turns.running(session)
    if turn is None or not turn.has_lapsed(ctx.clock.now(), lease):
        return False
    end_early(ctx, tx, turn, CUT_OFF)
    return True


def interrupt_lapsed(ctx: Context, owner: TurnOwner, lease: timedelta) -> int:
    """End the turns whose process is gone: their lease has lapsed, or a later process has taken
    its name, and is this one; how many. At a process's start, and from time to time.
    """
    now = ctx.clock.now()

    def is_dead(turn: SessionTurn) -> bool:
        return turn.has_lapsed(now, lease) or owner.follows(turn.owner)

    with ctx.store.read() as tx:
        dead = [turn for turn in tx.turns.all_running() if is_dead(turn)]
    ended = 0
    for turn in dead:
        with ctx.store.write() as tx:
            tx.sessions.lock(turn.session)
            still = tx.turns.running(turn.session)
            if still is not None and still.id == turn.id and is_dead(still):
                end_early(ctx, tx, still, CUT_OFF)
                ended += 1
    return ended
