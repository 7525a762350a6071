"""A `TurnRun` runs one turn: it calls the session's model and its tools in alternation. The
turn ends if the model answers in text, the client must run a function, or a bound is reached.

It stores each step before the next. A turn continues if its client disconnects, because its
tools may have had effects.

The database writes are in `turns`, the payments in `models.PaidCalls`, and the budget in
`turn.TurnBudget`. No function here blocks the event loop: `run_transaction` runs transactions
in threads.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Final, TypeVar

from harness.agents import turns
from harness.agents.agents import AgentsClient
from harness.agents.caller import AgentCaller
from harness.agents.context import AgentsContext
from harness.agents.message import (
    REFUSED,
    IdempotencyKey,
    IncomingMessage,
    MessageRole,
    MessageState,
    MessageToolCall,
    MessageUsage,
    SessionMessage,
    build_context,
)
from harness.agents.models import CallableModel, ModelsInForce, PaidCalls
from harness.agents.switches import expire_switches, list_notes
from harness.agents.turn import (
    CAP_REACHED,
    AnswerPiece,
    ModelCallAnswer,
    ModelCallRequest,
    OfferedTool,
    RefusedCall,
    ToolCaller,
    ToolResult,
    ToolRuntime,
    TurnBudget,
    name_calls,
    sort_calls,
)
from harness.agents.turns import CUT_OFF, BegunTurn
from harness.frame.errors import (
    CallFailed,
    CallRefused,
    InputError,
    NobodyAnswered,
    SpendingPaused,
    StreamBroken,
    SwapproofError,
)
from harness.frame.formatting import format_span
from harness.routing.settings import TurnBounds

T = TypeVar("T")
# A longer result is an error, because each further step of the turn would pay for it again.
MAX_RESULT_CHARS: Final = 200_000
# Reasons for an incomplete text, by finish reason.
INCOMPLETE_REASONS: Final[Mapping[str, str]] = {
    "length": "the answer was cut off at the model's length limit",
    "content_filter": "the provider's content filter cut the answer off",
}
# With these statuses the model refuses its input, so a repetition would fail, too.
_REFUSAL_STATUSES: Final = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
)


@dataclass(frozen=True, slots=True)
class TurnOutcome:
    """The end of a turn.

    message: the turn's last message; with an `error`, the failed answer or, after an
    interruption, the last message from before the turn's answers.
    """

    message: SessionMessage  # the turn's last message
    open_calls: tuple[MessageToolCall, ...] = ()  # calls that the client runs next
    steps: int = 0  # number of the models' answers
    usage: MessageUsage = field(default_factory=MessageUsage)  # of all answers
    error: CallFailed | None = None  # why the turn failed


# A SessionMessage is a streaming answer at the call of its model, or a message that has just
# been stored.
TurnEvent = SessionMessage | AnswerPiece | TurnOutcome


@dataclass(frozen=True, slots=True)
class PostedMessage:
    """A client's message, and how its turn must run."""

    client: AgentsClient
    agent: str
    session: str
    incoming: IncomingMessage
    key: IdempotencyKey | None = None
    streams: bool = False  # the client wants the answer in pieces
    bounds: TurnBounds | None = None  # None for the configuration's bounds
    # Builds the stored answer to a repetition of the key. If it is empty, the client may send
    # the message again.
    keep: Callable[[TurnOutcome], str] = lambda _: ""


class TurnRun:
    """A running turn. The constructor starts it in the running event loop."""

    def __init__(
        self,
        ctx: AgentsContext,
        begun: BegunTurn,
        models: ModelsInForce,
        calls: PaidCalls,
        tools: ToolRuntime,
        posted: PostedMessage,
    ) -> None:
        self.auto = models.primary.reason  # why `auto` chose the target; empty without `auto`
        self._ctx = ctx
        self._begun = begun
        self._models = models
        self._calls = calls
        self._tools = tools
        self._posted = posted
        self._messages = list(begun.messages)
        self._answer: SessionMessage | None = None  # the answer that is not stored yet
        self._has_output = False  # whether the client got a piece of the answer
        self._fallback_reason: str | None = (
            None  # why the fallback answers; None while the session's model answers
        )
        self._budget = TurnBudget(posted.bounds or ctx.agents.limits, self._now_s)
        self._instructions = begun.agent.instructions
        self._events: asyncio.Queue[TurnEvent | None] = asyncio.Queue()
        self._has_listener = posted.streams
        self.task = asyncio.create_task(self._drive())
        self.task.add_done_callback(lambda _: self._events.put_nowait(None))

    def cancel(self) -> None:
        """Cancels the turn, at most once: a second cancellation could prevent it from storing
        its end.
        """
        if not self.task.done() and not self.task.cancelling():
            self.task.cancel()

    async def outcome(self) -> TurnOutcome:
        """Waits for the turn's end; cancelling the wait does not cancel the turn."""
        return await asyncio.shield(self.task)

    async def events(self) -> AsyncGenerator[TurnEvent, None]:
        """Yields the turn's events to one listener. Raises the turn's error."""
        try:
            while (event := await self._events.get()) is not None:
                yield event
            await self.outcome()
        finally:
            self._has_listener = False

    def _emit(self, event: TurnEvent) -> None:
        if self._has_listener:
            self._events.put_nowait(event)

    async def _drive(self) -> TurnOutcome:
        """Runs the turn and stores an interruption, if it is cancelled or fails unexpectedly.

        Raises StaleWrite if another process or request has ended the turn.
        """
        session = self._begun.session
        try:
            return await self._run_steps()
        except asyncio.CancelledError:
            if not await run_transaction(lambda: turns.interrupt(self._ctx, session)):
                # Another request has interrupted the turn, for example by closing the session.
                raise turns.interrupted(session) from None
            cut_off = NobodyAnswered(CUT_OFF, status=503, code="turn_interrupted")
            outcome = TurnOutcome(self._begun.messages[-1], error=cut_off)
            self._emit(outcome)
            return outcome
        except Exception:
            # If this write fails, the end of the lease interrupts the turn. A cancellation
            # during the write is too late: the turn ends with its own error.
            with suppress(SwapproofError, asyncio.CancelledError):
                await run_transaction(lambda: turns.interrupt(self._ctx, session))
            raise

    async def _run_steps(self) -> TurnOutcome:
        """Alternates between the model and its tools until the turn ends."""
        if self._begun.open_calls:
            # The model is called once the client has sent all results.
            return await self._end(self._begun.open_calls)
        offered = await self._list_tools()
        self._instructions = await run_transaction(lambda: add_notes(self._ctx, self._begun))
        self._budget.began_s = self._now_s
        try:
            while True:
                calls = await self._ask(offered)
                server, client, refused = sort_calls(calls, offered)
                if not server and not refused:
                    return await self._end(client)
                if not client:
                    # A tool may have effects, so it runs only if a model can read its result.
                    self._budget.require_left(self._now_s)
                await self._run_tools(server, refused)
                if client:
                    return await self._end(client)
        except CallFailed as error:
            return await self._end(error=error)

    @property
    def _now_s(self) -> float:
        return self._ctx.clock.monotonic()

    @property
    def _remaining_s(self) -> float:
        return self._budget.left(self._now_s).timeout_s

    async def _list_tools(self) -> Sequence[OfferedTool]:
        """Lists the tools. A client's function hides a server's tool of the same name."""
        tools = self._begun.agent.tools
        if self._begun.session.parent is not None:
            # A sub-task has no client that could run functions, and no person who could decide
            # about a switch.
            tools = tuple(tool for tool in tools if tool.runs_in_sub_tasks)
        offered = {
            tool.name: OfferedTool(
                tool.name,
                tool.description,
                tool.parameters,
                runs_at_client=True,
            )
            for tool in tools
            if tool.parameters is not None
        }
        for tool_of_server in await self._tools.list_tools(tools):
            offered.setdefault(tool_of_server.name, tool_of_server)
        return tuple(offered.values())

    async def _ask(self, offered: Sequence[OfferedTool]) -> Sequence[MessageToolCall]:
        """Returns the calls of the next answer. If the session's model fails, the fallback
        answers for the rest of the turn. Raises CallFailed.
        """
        self._budget.require_left(self._now_s)
        fallback = self._models.fallback
        if self._fallback_reason is None or fallback is None:
            try:
                return await self._ask_model(self._models.primary, offered)
            except CallFailed as error:
                # After a client key's limit, the fallback would fail, too. After the cap, the
                # fallback may have a price that the cap allows.
                is_provider_failure = isinstance(error, NobodyAnswered | StreamBroken)
                may_use_fallback = (
                    is_provider_failure or error.code == CAP_REACHED
                ) and not self._has_output
                if fallback is None or not may_use_fallback or not self._remaining_s:
                    raise
                self._fallback_reason = str(error)
        return await self._ask_model(fallback, offered)

    async def _ask_model(
        self, model: CallableModel, offered: Sequence[OfferedTool]
    ) -> Sequence[MessageToolCall]:
        """Returns the calls of a model's answer. Keeps the answer in memory until `_record` or
        `_end` stores it with its consequences.
        """
        answer = await self._begin_answer(model)
        try:
            targets = await self._calls.find_targets(self._models, model.route)
            request = self._request(model, offered, targets)
            on_piece = self._emit_piece if self._posted.streams else None
            reply = await self._calls.ask(self._models, request, targets, on_piece)
        except SpendingPaused as error:
            raise CallFailed(str(error), status=429, code=CAP_REACHED) from error
        except InputError as error:
            raise CallRefused(str(error), status=400, code="invalid_request") from error
        self._answer = self._complete_answer(answer, model, reply)
        self._budget.steps += 1
        self._budget.charge(self._answer.usage)
        return self._answer.tool_calls

    async def _begin_answer(self, model: CallableModel) -> SessionMessage:
        """Begins an answer's message; the fallback reuses the message of the failed model."""
        if self._answer is None:
            self._answer = await run_transaction(
                lambda: turns.begin_answer(self._ctx, self._begun.session, model=model.name)
            )
            self._has_output = False
            self._emit(self._answer)
        return self._answer

    def _request(
        self,
        model: CallableModel,
        offered: Sequence[OfferedTool],
        targets: Sequence[str],
    ) -> ModelCallRequest:
        """Builds the request to the router. The header names the grant, its session and the
        fallback.
        """
        agent = self._begun.agent
        session = self._begun.session
        # The router compares this session with the grant's session.
        granted_to = model.granted_to or session.id
        key = agent.owner_key or ""
        fallback = self._models.fallback if model is self._models.primary else None
        fallback_name = fallback.name if fallback else ""
        return ModelCallRequest(
            model.route,
            build_context(self._messages, targets, self._instructions),
            AgentCaller(agent.id, granted_to, key, model.grant, model.target, fallback_name),
            self._remaining_s,
            offered,
            session.user_id,
        )

    def _emit_piece(self, piece: AnswerPiece) -> None:
        self._has_output = True
        self._emit(piece)

    def _complete_answer(
        self,
        message: SessionMessage,
        model: CallableModel,
        reply: ModelCallAnswer,
    ) -> SessionMessage:
        """Completes the answer's message with its content, calls with unique ids, the serving
        target, usage and cost.
        """
        is_fallback = model is self._models.fallback
        return replace(
            message,
            content=reply.text,
            tool_calls=name_calls(reply.tool_calls, message.id),
            state=MessageState.COMPLETE,
            served=replace(
                reply.served,
                model_requested=model.name,
                fallback_from=self._models.primary.name if is_fallback else "",
                reason=(self._fallback_reason or "") if is_fallback else model.reason,
            ),
            usage=replace(
                reply.usage,
                cost_usd=self._models.cost_usd(reply.served.target, reply.usage),
            ),
            extra=reply.extra,
            error=INCOMPLETE_REASONS.get(reply.finish_reason, ""),
            done_at=self._ctx.clock.now(),
        )

    async def _run_tools(
        self,
        calls: Sequence[MessageToolCall],
        refused: Sequence[RefusedCall],
    ) -> None:
        """Runs the calls in parallel, and stores their results in the calls' order."""
        bounds_left = self._budget.left(self._now_s)
        caller = ToolCaller(self._begun.session.id, bounds_left, is_in_turn=True)
        await self._record()
        results = await asyncio.gather(*(self._run_tool(call, caller) for call in calls))
        texts = {result.call: format_result(result) for result in results}
        texts |= {call.id: f"Error: {reason}" for call, reason in refused}
        newest_calls = self._messages[-1].tool_calls
        await self._record(
            [(call.id, texts[call.id]) for call in newest_calls if call.id in texts]
        )
        for result in results:
            self._budget.charge(result.usage)

    async def _run_tool(self, call: MessageToolCall, caller: ToolCaller) -> ToolResult:
        timeout_s = caller.left.timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                return await self._tools.run(call, caller)
        except TimeoutError:
            reason = f"the tool returned no result within {format_span(timeout_s)}"
            return ToolResult(call.id, reason, is_error=True)

    async def _record(self, results: Sequence[tuple[str, str]] = ()) -> None:
        """Stores the pending answer, if any, and the tools' results in one transaction, and
        emits them.
        """
        answer = self._answer
        session = self._begun.session
        stored = await run_transaction(
            lambda: turns.record_step(
                self._ctx,
                session,
                answer=answer,
                results=results,
            )
        )
        self._append(stored)

    def _append(self, stored: Sequence[SessionMessage]) -> None:
        self._answer = None
        for message in stored:
            self._messages.append(message)
            self._emit(message)

    async def _end(
        self,
        open_calls: tuple[MessageToolCall, ...] = (),
        error: CallFailed | None = None,
    ) -> TurnOutcome:
        """Stores the turn's end. A failed turn ends in a message with the reason."""
        if error is not None:
            if self._answer is not None and self._answer.state is MessageState.COMPLETE:
                await self._record()
            is_refusal = isinstance(error, CallRefused) and error.status in _REFUSAL_STATUSES
            self._answer = replace(
                await self._begin_answer(self._models.primary),
                state=MessageState.FAILED,
                error=str(error),
                extra={REFUSED: True} if is_refusal else {},
                done_at=self._ctx.clock.now(),
            )
        answer = self._answer
        session = self._begun.session
        budget = self._budget
        last = answer or self._messages[-1]
        outcome = TurnOutcome(last, open_calls, budget.steps, budget.usage, error)

        def end() -> Sequence[SessionMessage]:
            stored_reply = self._posted.keep(outcome)
            return turns.record_step(
                self._ctx,
                session,
                answer=answer,
                kept=stored_reply,
            )

        write = asyncio.ensure_future(run_transaction(end))
        with suppress(asyncio.CancelledError):
            await asyncio.shield(write)
        # A cancellation during the write is too late: the turn is stored as complete.
        self._append(await write)
        self._emit(outcome)
        return outcome


async def run_transaction(unit: Callable[[], T]) -> T:
    """Runs a transaction in a thread to its end, even if the task is cancelled."""
    running = asyncio.ensure_future(asyncio.to_thread(unit))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        raise


def add_notes(ctx: AgentsContext, turn: BegunTurn) -> str:
    """Adds the decisions about requests since the last answer to the agent's instructions."""
    answers = (m.created_at for m in turn.messages if m.role is MessageRole.ASSISTANT)
    since = max(answers, default=turn.session.created_at)
    expire_switches(ctx)
    notes = [f"Note: {note}" for note in list_notes(ctx, turn.session.id, since)]
    return "\n\n".join(filter(None, (turn.agent.instructions, *notes)))


def format_result(result: ToolResult) -> str:
    """Returns the text of a tool's result for the model; an error if it is too long."""
    if len(result.content) > MAX_RESULT_CHARS:
        return (
            f"Error: the tool returned {len(result.content)} characters; at most "
            f"{MAX_RESULT_CHARS} are allowed: ask the tool for less"
        )
    return f"Error: {result.content}" if result.is_error else result.content
