"""The turn runner holds the turns of this process: it keeps their leases, and ends them when
the process ends. A turn goes on when its client leaves: a lost connection does not undo what
the turn's tools have begun.
"""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import suppress
from typing import Final

import structlog

from harness.control.agents import agents, sessions, turns
from harness.control.agents.auto import AutoTargets
from harness.control.agents.conversation import (
    Conversation,
    PostedMessage,
    TurnEvent,
    TurnOutcome,
    run_unit,
)
from harness.control.agents.models_in_force import ModelsInForce, PaidCalls, find_models
from harness.control.agents.turns import CUT_OFF, BegunTurn
from harness.control.context import Context
from harness.domain.agents.model_call import ModelCalls, ToolRuntime
from harness.domain.agents.turn import FailTurn, SessionTurn, TurnOwner
from harness.domain.errors import StoreUnavailable, SwapgateError

log = structlog.get_logger("swapgate.agents")

RENEW_S: Final = 5.0


class TurnRun:
    def __init__(self, auto: str) -> None:
        self.auto = auto  # who answers for `auto`, and why; empty for any other model
        self._events: asyncio.Queue[TurnEvent | None] = asyncio.Queue()
        self._is_heard = True
        self.task: asyncio.Task[TurnOutcome]  # from `begin` on

    def emit(self, event: TurnEvent) -> None:
        if self._is_heard:
            self._events.put_nowait(event)

    def begin(self, turn: Coroutine[None, None, TurnOutcome]) -> None:
        self.task = asyncio.create_task(turn)
        self.task.add_done_callback(lambda _: self._events.put_nowait(None))

    def cancel(self) -> None:
        """Once: it takes a while to store that it was interrupted."""
        if not self.task.done() and not self.task.cancelling():
            self.task.cancel()

    async def outcome(self) -> TurnOutcome:
        """How it ends. Whoever stops waiting does not stop the turn."""
        return await asyncio.shield(self.task)

    async def events(self) -> AsyncGenerator[TurnEvent, None]:
        """What happens, once, up to the outcome. Raises what the turn raised."""
        try:
            while (event := await self._events.get()) is not None:
                yield event
            await self.outcome()
        finally:
            self._is_heard = False
            self._events = asyncio.Queue()


class TurnRunner:
    """The turns of one process. Belongs to one event loop."""

    def __init__(
        self,
        ctx: Context,
        calls: ModelCalls,
        tools: ToolRuntime,
        owner: TurnOwner,
        auto: AutoTargets,
    ) -> None:
        self._ctx, self._calls, self._tools = ctx, PaidCalls(ctx, calls), tools
        self._owner, self._auto = owner, auto
        self._runs: dict[str, TurnRun] = {}  # by the turn's id
        self._is_closing = False

    async def start(self, posted: PostedMessage) -> TurnRun | SessionTurn:
        """Begins a turn, or returns the one whose answer its key gets again. The message is
        stored when this returns, and nothing of it where this raises.

        Raises SessionBusy, NotFound, NotAllowed, InputError, Conflict, StoreUnavailable.
        """
        if self._is_closing:
            raise StoreUnavailable("the agents process is ending: send the message again")
        begun = await run_unit(lambda: self._begin(posted))
        return begun if isinstance(begun, SessionTurn) else self._run(posted, *begun)

    def _begin(self, posted: PostedMessage) -> tuple[BegunTurn, ModelsInForce] | SessionTurn:
        ctx = self._ctx
        agent = agents.load_agent(ctx, posted.client, posted.agent)
        session = sessions.load_session(ctx, posted.client, agent.id, posted.session)
        # An answer is given again, also where the consent to its model is over.
        if posted.key and (kept := turns.load_answered(ctx, session.id, posted.key)):
            return kept
        models = find_models(ctx, agent, session, posted.incoming, self._auto)
        begun = turns.begin_turn(ctx, self._owner, session.id, posted.incoming, posted.key)
        return begun if isinstance(begun, SessionTurn) else (begun, models)

    def _run(self, posted: PostedMessage, begun: BegunTurn, models: ModelsInForce) -> TurnRun:
        run = TurnRun(models.primary.reason)
        conversation = Conversation(
            self._ctx, begun, models, self._calls, self._tools, posted, run.emit
        )
        self._runs[begun.turn.id] = run
        run.begin(self._drive(conversation, begun, run))
        run.task.add_done_callback(lambda _: self._runs.pop(begun.turn.id))
        return run

    async def _drive(
        self, conversation: Conversation, begun: BegunTurn, run: TurnRun
    ) -> TurnOutcome:
        try:
            return await conversation.run()
        except asyncio.CancelledError:
            if not await run_unit(lambda: turns.interrupt(self._ctx, begun.turn)):
                # Somebody else did, such as who closed the session: this process goes on.
                raise turns.interrupted(begun.turn) from None
            failure = FailTurn("turn_interrupted", CUT_OFF, retryable=True)
            outcome = TurnOutcome(begun.messages[-1], failure=failure)
            run.emit(outcome)
            return outcome
        except Exception:
            # What cannot be written now is written when the lease has ended. Who cancels now
            # comes too late: the turn ends by what failed.
            with suppress(SwapgateError, asyncio.CancelledError):
                await run_unit(lambda: turns.interrupt(self._ctx, begun.turn))
            raise

    async def keep_leases(self) -> None:
        """Renews the leases of what runs here and ends what ran in processes that are gone,
        until it is cancelled.
        """
        while True:
            try:
                await self.renew_leases()
            except StoreUnavailable as error:
                # It may be away for a while; a lease that ends meanwhile ends its turn.
                log.warning("leases_not_renewed", reason=str(error))
            except Exception:
                # A fault of ours in one round must not end all rounds, and so every turn.
                log.exception("leases_not_renewed")
            await asyncio.sleep(RENEW_S)

    async def renew_leases(self) -> None:
        """Renews all leases once, and stops the turns that another process has ended."""
        ids = tuple(self._runs)
        for id_ in await run_unit(lambda: turns.renew(self._ctx, self._owner, ids)):
            if id_ in self._runs:
                self._runs[id_].cancel()
        await run_unit(lambda: turns.interrupt_lapsed(self._ctx, self._owner))
        await run_unit(self._calls.meter.refresh)

    async def close(self, drain_s: float) -> None:
        """Begins no turn any more, gives those that run this long, and interrupts the rest."""
        self._is_closing = True
        runs = list(self._runs.values())
        if runs:
            await asyncio.wait({run.task for run in runs}, timeout=drain_s)
            for run in runs:
                run.cancel()
            await asyncio.wait({run.task for run in runs})
        await run_unit(self._calls.close)
