"""Begins, stores and ends turns. Each step is one transaction, so that a killed process leaves
a whole conversation: all messages so far, and the unfinished answer as `interrupted`. A process
holds the turn of a session by a lease.

This module calls no model and no tool: `conversation` does, and calls this module before and
after each step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from harness.agents import agents
from harness.agents.context import AgentsContext
from harness.agents.message import (
    IdempotencyKey,
    IncomingMessage,
    MessageRole,
    MessageState,
    MessageToolCall,
    ServedBy,
    SessionMessage,
    find_open_calls,
)
from harness.agents.records import (
    Agents,
    SessionMessages,
    Sessions,
    SwitchRequests,
)
from harness.frame.errors import (
    Conflict,
    InputError,
    NotFound,
    SessionBusy,
    StaleWrite,
)
from harness.frame.records.transaction import Transaction
from harness.routing.agent import LEASE, Agent, AgentSession

CUT_OFF: Final = "the process that answered ended before the answer did; send the message again"


@dataclass(frozen=True, slots=True)
class BegunTurn:
    """A turn that this process holds."""

    agent: Agent
    session: AgentSession
    messages: tuple[SessionMessage, ...]  # of the session, with the client's new message last
    # Calls whose results the client must send before a model is called.
    open_calls: tuple[MessageToolCall, ...] = ()


def begin_turn(
    ctx: AgentsContext,
    owner: str,
    session: str,
    incoming: IncomingMessage,
    key: IdempotencyKey | None = None,
) -> BegunTurn | str:
    """Stores the client's message and begins its turn. If the key's turn was interrupted,
    continues with the stored message. If the key has an answer, returns that answer.

    Raises SessionBusy, NotFound, InputError for a result of an unknown call.
    Raises Conflict for a session that is closed or waits for tool results, and for a key of
    another request.
    """
    with ctx.store.read() as tx:
        is_dead = Sessions(tx).get(session).has_lapsed(ctx.clock.now())
    if is_dead:
        _interrupt(ctx, session, lambda stored: stored.has_lapsed(ctx.clock.now()))
    with ctx.store.write() as tx:
        stored = Sessions(tx).lock(session)
        sent_before = _find_by_key(tx, session, key) if key is not None else None
        if sent_before is not None and sent_before.kept:
            return sent_before.kept
        stored.require_open()
        if stored.turn:
            raise SessionBusy(
                f"session {session} is answering another message: send this message after that "
                "answer",
                code="session_busy",
            )
        agent = Agents(tx).get(stored.agent)
        now = ctx.clock.now()
        id_ = ctx.chance.token("tu_")
        session_with_turn = replace(
            stored,
            turn=id_,
            owner=owner,
            lease_until=now + LEASE,
            last_at=now,
        )
        Sessions(tx).save_turn(session_with_turn)
        messages = SessionMessages(tx).list(session)
        functions = [tool.name for tool in agent.tools if tool.runs_at_client]
        if sent_before is None:
            _require_fitting(incoming, find_open_calls(messages, functions))
            content_fields = {
                "content": incoming.content,
                "response_to": incoming.response_to,
            }
            message_key = key or IdempotencyKey()
            _append_message(
                ctx,
                tx,
                session_with_turn,
                incoming.role,
                sent=message_key,
                done_at=now,
                **content_fields,
            )
        elif messages[-1].turn != sent_before.turn:
            raise Conflict(
                f"the turn of the idempotency key {sent_before.sent.key!r} was interrupted, "
                "and the conversation has continued since: send the message with another key",
                code="turn_interrupted",
            )
        else:
            SessionMessages(tx).move(session, sent_before.turn, new_turn=id_)
        messages = SessionMessages(tx).list(session)
        return BegunTurn(
            agent,
            session_with_turn,
            tuple(messages),
            find_open_calls(messages, functions),
        )


def _require_fitting(incoming: IncomingMessage, open_calls: Sequence[MessageToolCall]) -> None:
    """Checks that a message fits the end of the conversation. Raises InputError for a
    result without an open call, Conflict if results are missing.
    """
    waiting = ", ".join(call.id for call in open_calls)
    if incoming.role is MessageRole.TOOL:
        if incoming.response_to not in {call.id for call in open_calls}:
            raise InputError(
                f"toolCallId: no open call has the id {incoming.response_to[:80]!r}; "
                + (f"open calls: {waiting}" if waiting else "there are no open calls"),
                code="unknown_tool_call",
            )
    elif open_calls:
        raise Conflict(
            f"the last answer waits for the results of {waiting}; send each as a message of "
            "the role tool first",
            code="tool_results_missing",
        )


def _append_message(
    ctx: AgentsContext,
    tx: Transaction,
    session: AgentSession,
    role: MessageRole,
    **fields: Any,
) -> SessionMessage:
    """Appends a message to the conversation, at the next position."""
    message = SessionMessage(
        session=session.id,
        position=SessionMessages(tx).last_position(session.id) + 1,
        id=ctx.chance.token("ms_"),
        role=role,
        created_at=ctx.clock.now(),
        turn=session.turn,
        **fields,
    )
    SessionMessages(tx).add(message)
    return message


def begin_answer(
    ctx: AgentsContext,
    session: AgentSession,
    *,
    model: str,
) -> SessionMessage:
    """Stores an answer as streaming, before its model is called.

    Args:
        model: its name.

    Raises StaleWrite if the turn has ended.
    """
    with ctx.store.write() as tx:
        _require_own_turn(tx, session)
        served = ServedBy(model_requested=model)
        state = MessageState.STREAMING
        return _append_message(
            ctx,
            tx,
            session,
            MessageRole.ASSISTANT,
            state=state,
            served=served,
        )


def record_step(
    ctx: AgentsContext,
    session: AgentSession,
    *,
    answer: SessionMessage | None = None,
    results: Sequence[tuple[str, str]] = (),
    kept: str | None = None,
) -> Sequence[SessionMessage]:
    """Stores a finished answer and tools' results. Raises StaleWrite if the turn has ended.

    Args:
        results: pairs of a call's id and a text.
        kept: the answer to repetitions of the idempotency key, empty if the client may send the
            message again.

    None if the turn continues; otherwise the turn ends.
    """
    with ctx.store.write() as tx:
        _require_own_turn(tx, session)
        stored = [] if answer is None else [_end_answer(ctx, tx, answer)]
        now = ctx.clock.now()
        role = MessageRole.TOOL
        for call, text in results:
            message = _append_message(
                ctx,
                tx,
                session,
                role,
                content=text,
                response_to=call,
                done_at=now,
            )
            stored.append(message)
        if kept is not None:
            SessionMessages(tx).store_answer(session.id, session.turn, kept)
            Sessions(tx).save_turn(Sessions(tx).get(session.id).without_turn())
        return stored


def _end_answer(
    ctx: AgentsContext,
    tx: Transaction,
    answer: SessionMessage,
) -> SessionMessage:
    """Stores a finished answer, and charges its cost to the session and its parent."""
    now = ctx.clock.now()
    ended_answer = replace(answer, done_at=answer.done_at or now)
    SessionMessages(tx).end(ended_answer)
    for session_id in filter(None, (answer.session, Sessions(tx).get(answer.session).parent)):
        Sessions(tx).charge(session_id, answer.usage.cost_usd or 0.0, now)
    return ended_answer


def _require_own_turn(tx: Transaction, session: AgentSession) -> None:
    if Sessions(tx).lock(session.id).turn != session.turn:
        raise interrupted(session)


def interrupted(session: AgentSession) -> StaleWrite:
    """Builds the error for a writer whose turn has ended."""
    return StaleWrite(
        f"turn {session.turn} of session {session.id} was interrupted: its later messages are "
        "not stored",
        code="turn_interrupted",
    )


def renew(
    ctx: AgentsContext,
    owner: str,
    turns: Sequence[str],
) -> tuple[str, ...]:
    """Renews the leases of this process's turns. Returns the turns that it has lost."""
    if not turns:
        return ()
    until = ctx.clock.now() + LEASE
    with ctx.store.write() as tx:
        return tuple(
            id_ for id_ in turns if not Sessions(tx).renew(id_, owner=owner, until=until)
        )


def interrupt(ctx: AgentsContext, session: AgentSession) -> bool:
    """Ends a running turn before its answer. Returns False if the turn has ended already."""
    return _interrupt(ctx, session.id, lambda stored: stored.turn == session.turn)


def interrupt_lapsed(ctx: AgentsContext, owner: str) -> int:
    """Ends the turns of dead processes: their lease has lapsed, or this process has their place
    now. Returns their number.
    """
    place = owner.partition("#")[0]

    def is_dead(session: AgentSession) -> bool:
        is_before = session.owner != owner and session.owner.startswith(f"{place}#")
        return session.has_lapsed(ctx.clock.now()) or is_before

    with ctx.store.read() as tx:
        dead_ids = [session.id for session in Sessions(tx).running() if is_dead(session)]
    return sum(_interrupt(ctx, session, is_dead) for session in dead_ids)


def _interrupt(
    ctx: AgentsContext,
    session: str,
    must_end: Callable[[AgentSession], bool],
) -> bool:
    """Ends the session's turn, with its child sessions, if `must_end`. Returns whether it ended
    the turn. A child session has only one turn, so this closes it.
    """
    with ctx.store.write() as tx:
        # Every transaction locks the decisions before it locks a session.
        SwitchRequests(tx).pending(session=session)
        try:
            stored = Sessions(tx).lock(session)
        except NotFound:
            return False
        if not stored.turn or not must_end(stored):
            return False
        if stored.parent is not None:
            agents.close_in_transaction(ctx, tx, session, CUT_OFF)
        else:
            agents.end_turn_early(ctx, tx, session, CUT_OFF)
        return True


def _find_by_key(
    tx: Transaction,
    session: str,
    key: IdempotencyKey,
) -> SessionMessage | None:
    """Finds the message that came with the key. Raises Conflict if the key came with another
    message.
    """
    message = SessionMessages(tx).find_by_key(session, key)
    if message is not None and message.sent.request_hash != key.request_hash:
        raise Conflict(
            f"the idempotency key {key.key!r} was used for another request: send this one with "
            "a key of its own",
            code="idempotency_key_reused",
        )
    return message


def load_answer(
    ctx: AgentsContext,
    session: str,
    key: IdempotencyKey,
) -> str:
    """Loads the stored answer to a key; empty for none. Raises as `begin_turn`."""
    with ctx.store.read() as tx:
        message = _find_by_key(tx, session, key)
    return message.kept if message is not None else ""
