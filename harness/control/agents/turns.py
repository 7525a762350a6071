"""Turns are begun, stored step by step and ended, each in one unit of work, so that a process
that is killed leaves a conversation that is whole: the client's message, what was answered and
run so far, and the answer under way as `interrupted`.

A message with an idempotency key is answered once: the same message gets that answer again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from harness.control.agents import sessions
from harness.control.context import Context
from harness.domain.agents.agent import Agent, AgentSession
from harness.domain.agents.message import (
    IncomingMessage,
    MessageRole,
    MessageState,
    MessageToolCall,
    ServedBy,
    SessionMessage,
)
from harness.domain.agents.transcript import find_open_calls
from harness.domain.agents.turn import LEASE, IdempotencyKey, SessionTurn, TurnOwner, TurnState
from harness.domain.errors import Conflict, InputError, NotFound, StaleWrite
from harness.store.transaction import Transaction

CUT_OFF: Final = "the process that answered ended before the answer did; send the message again"


@dataclass(frozen=True, slots=True)
class BegunTurn:
    turn: SessionTurn
    agent: Agent
    session: AgentSession
    messages: tuple[SessionMessage, ...]  # all of the session, the client's new one at the end
    # Of the last answer, those that the client has not answered yet: no model is asked before.
    open_calls: tuple[MessageToolCall, ...] = ()


def begin_turn(
    ctx: Context,
    owner: TurnOwner,
    session: str,
    incoming: IncomingMessage,
    key: IdempotencyKey | None = None,
) -> BegunTurn | SessionTurn:
    """Store the client's message and begin its turn. Where the key's message was answered
    before, that turn; where its turn broke off, another one for the message as it is stored.

    Raises SessionBusy, NotFound, Conflict for a session that is closed or waits for tool
    results, and for a key of another request; InputError for a result of an unknown call.
    """
    _end_lapsed(ctx, session)
    with ctx.store.write() as tx:
        stored = tx.sessions.lock(session)
        known = find_turn(tx, session, key) if key is not None else None
        if known is not None and known.body:
            return known
        stored.require_open()
        agent = tx.agents.get(stored.agent)
        now, id_ = ctx.clock.now(), ctx.chance.token("tu_")
        sent = key or IdempotencyKey("", "", "")
        turn = SessionTurn(id_, session, owner.text, now, now + LEASE, sent)
        tx.turns.add(turn)
        tx.sessions.charge(session, 0.0, now)
        messages = list(tx.session_messages.list(session))
        if known is not None:
            _require_last(known, messages)
        else:
            _check_place(incoming, _open_calls(agent, messages))
            role, content, call = incoming.role, incoming.content, incoming.response_to
            messages.append(
                _add(ctx, tx, turn, role, content=content, response_to=call, done_at=now)
            )
        open_calls = _open_calls(agent, messages)
        return BegunTurn(turn, agent, stored, tuple(messages), open_calls)


def _check_place(incoming: IncomingMessage, open_calls: Sequence[MessageToolCall]) -> None:
    """Checks that a message fits at the end of the conversation. Raises InputError for a result
    of an unknown call, Conflict for another message while calls are open. open_calls: of the
    last answer, those that the client is to answer.
    """
    waiting = ", ".join(call.id for call in open_calls)
    if incoming.role is MessageRole.TOOL:
        if incoming.response_to not in {call.id for call in open_calls}:
            raise InputError(
                f"toolCallId: no open call has the id {incoming.response_to[:80]!r}; "
                + (f"open are: {waiting}" if waiting else "none is open"),
                code="unknown_tool_call",
            )
    elif open_calls:
        raise Conflict(
            f"the last answer waits for the results of {waiting}; send each as a message of "
            "the role tool first",
            code="tool_results_missing",
        )


def _end_lapsed(ctx: Context, session: str) -> None:
    with ctx.store.read() as tx:
        running = tx.turns.running(session)
    if running is not None and running.has_lapsed(ctx.clock.now()):
        _interrupt(ctx, session, lambda turn: turn.has_lapsed(ctx.clock.now()))


def _require_last(known: SessionTurn, messages: Sequence[SessionMessage]) -> None:
    last = messages[-1]
    if last.turn != known.id and last.created_at >= known.begun_at:
        raise Conflict(
            f"the turn of the idempotency key {known.sent.key!r} broke off, and the "
            "conversation went on since: send the message with another key",
            code="turn_interrupted",
        )


def _open_calls(
    agent: Agent, messages: Sequence[SessionMessage]
) -> tuple[MessageToolCall, ...]:
    own = (tool.name for tool in agent.tools if tool.runs_at_client)
    return find_open_calls(messages, own)


def _add(
    ctx: Context, tx: Transaction, turn: SessionTurn, role: MessageRole, **fields: Any
) -> SessionMessage:
    message = SessionMessage(
        session=turn.session,
        position=tx.session_messages.last_position(turn.session) + 1,
        id=ctx.chance.token("ms_"),
        role=role,
        created_at=ctx.clock.now(),
        turn=turn.id,
        **fields,
    )
    tx.session_messages.add(message)
    return message


def begin_answer(ctx: Context, turn: SessionTurn, *, model: str) -> SessionMessage:
    """Store an answer as under way, before its model is asked. model: its name, as the
    session has it.

    Raises StaleWrite where the turn is over.
    """
    with ctx.store.write() as tx:
        _require_held(tx, turn)
        served, state = ServedBy(model_requested=model), MessageState.STREAMING
        return _add(ctx, tx, turn, MessageRole.ASSISTANT, state=state, served=served)


def record_step(
    ctx: Context,
    turn: SessionTurn,
    *,
    answer: SessionMessage | None = None,
    results: Sequence[tuple[str, str]] = (),
) -> Sequence[SessionMessage]:
    """Store an answer that has ended, and tools' results: the call's id and a text each.

    Raises StaleWrite where the turn is over: nobody sees what it goes on to do.
    """
    with ctx.store.write() as tx:
        _require_held(tx, turn)
        stored = [] if answer is None else [_end_answer(ctx, tx, answer)]
        now, role = ctx.clock.now(), MessageRole.TOOL
        for call, text in results:
            added = _add(ctx, tx, turn, role, content=text, response_to=call, done_at=now)
            stored.append(added)
        return stored


def end_turn(
    ctx: Context,
    turn: SessionTurn,
    *,
    answer: SessionMessage | None = None,
    kept: str = "",
) -> tuple[SessionMessage, ...]:
    """Ends a turn and stores its answer at once, as `record_step` does a step. kept: the answer
    that the same idempotency key gets again; empty where the message may be sent again.
    """
    with ctx.store.write() as tx:
        _require_held(tx, turn)
        ended = () if answer is None else (_end_answer(ctx, tx, answer),)
        body = kept if turn.sent.key else ""
        tx.turns.end(turn.id, TurnState.DONE, ctx.clock.now(), body)
        return ended


def _end_answer(ctx: Context, tx: Transaction, answer: SessionMessage) -> SessionMessage:
    """Stores the answer; its cost is the session's, and that of the one that spawned it."""
    now = ctx.clock.now()
    ended = replace(answer, done_at=answer.done_at or now)
    tx.session_messages.end(ended)
    for charged in filter(None, (answer.session, tx.sessions.get(answer.session).parent)):
        tx.sessions.charge(charged, answer.usage.cost_usd or 0.0, now)
    return ended


def _require_held(tx: Transaction, turn: SessionTurn) -> None:
    tx.sessions.lock(turn.session)
    stored = tx.turns.get(turn.id)
    if stored.state is not TurnState.RUNNING or stored.owner != turn.owner:
        raise interrupted(turn)


def interrupted(turn: SessionTurn) -> StaleWrite:
    return StaleWrite(
        f"turn {turn.id} of session {turn.session} was interrupted: nothing of it is stored "
        "any more",
        code="turn_interrupted",
    )


def renew(ctx: Context, owner: TurnOwner, ids: Sequence[str]) -> tuple[str, ...]:
    """Renew the leases of this process's turns; those that are its no more. ids: of turns."""
    if not ids:
        return ()
    until = ctx.clock.now() + LEASE
    with ctx.store.write() as tx:
        return tuple(
            id_ for id_ in ids if not tx.turns.renew(id_, owner=owner.text, until=until)
        )


def interrupt(ctx: Context, turn: SessionTurn) -> bool:
    """Ends a running turn before its answer; False where it had ended."""
    return _interrupt(ctx, turn.session, lambda running: running.id == turn.id)


def interrupt_lapsed(ctx: Context, owner: TurnOwner) -> int:
    """End the turns whose process is gone: their lease has lapsed, or a later process has taken
    its name, and is this one; how many. At a process's start, and from time to time.
    """

    def is_dead(turn: SessionTurn) -> bool:
        return turn.has_lapsed(ctx.clock.now()) or owner.follows(turn.owner)

    with ctx.store.read() as tx:
        dead = [turn.session for turn in tx.turns.all_running() if is_dead(turn)]
    return sum(_interrupt(ctx, session, is_dead) for session in dead)


def _interrupt(ctx: Context, session: str, is_over: Callable[[SessionTurn], bool]) -> bool:
    """End what runs in the session if it is over, and close what it spawned; whether it was.

    A session that was spawned itself has no further turn: it is closed.
    """
    with ctx.store.write() as tx:
        # The lock of decisions comes before those of sessions, in every unit.
        tx.switch_requests.pending(session=session)
        try:
            stored = tx.sessions.lock(session)
        except NotFound:
            return False
        running = tx.turns.running(session)
        if running is None or not is_over(running):
            return False
        if stored.parent is not None:
            sessions.close_in_unit(ctx, tx, session, CUT_OFF)
        else:
            sessions.end_turn_early(ctx, tx, session, CUT_OFF)
        return True


def find_turn(tx: Transaction, session: str, key: IdempotencyKey) -> SessionTurn | None:
    """The newest turn of the message; None for a new message. Raises Conflict where the key
    came with another one.
    """
    known = tx.turns.find_sent(session, key)
    if known is not None and known.sent.request_hash != key.request_hash:
        raise Conflict(
            f"the idempotency key {key.key!r} was used for another request: send this one with "
            "a key of its own",
            code="idempotency_key_reused",
        )
    return known


def load_answered(ctx: Context, session: str, key: IdempotencyKey) -> SessionTurn | None:
    """The turn whose answer the message gets again; None without an answer. Raises as
    `find_turn`.
    """
    with ctx.store.read() as tx:
        known = find_turn(tx, session, key)
    return known if known is not None and known.body else None
