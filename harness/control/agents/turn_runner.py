"""The turn runner holds the turns of this process: it lets one run in each session and the
others wait in order or go, keeps their leases, and ends them when the process ends. A turn goes
on without whoever asked for it: what its tools have begun is not undone by a lost connection.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Final

import structlog

from harness.control.agents import agents, sessions, turns
from harness.control.agents.auto import AutoTargets
from harness.control.agents.client import AgentsClient
from harness.control.agents.conversation import (
    Conversation,
    TurnEvent,
    TurnListener,
    TurnOutcome,
    run_unit,
)
from harness.control.agents.models_in_force import ModelsInForce, find_models
from harness.control.agents.turns import CUT_OFF, BegunTurn
from harness.control.context import Context
from harness.domain.agents.agent import Agent, AgentSession
from harness.domain.agents.incoming_message import IncomingMessage
from harness.domain.agents.turn import FailTurn, TurnBounds
from harness.domain.agents.turn_lease import (
    IdempotencyKey,
    IdempotentAnswer,
    TurnOwner,
    busy,
)
from harness.domain.errors import SessionBusy, StoreUnavailable, SwapgateError
from harness.domain.routing.kill_switch import KillSwitch
from harness.domain.settings import AgentSettings, WhenBusy
from harness.ports.agent_calls import ModelCalls, ToolRuntime

log = structlog.get_logger("swapgate.agents")

LEASE: Final = timedelta(seconds=20)
RENEW_S: Final = 5.0
# How often a turn of another process is looked at, while a message waits for its end.
LOOK_AGAIN_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class PostedMessage:
    """A client's message to a session."""

    client: AgentsClient
    agent: str
    session: str
    incoming: IncomingMessage
    key: IdempotencyKey | None = None  # under which it may be sent again
    streams: bool = False  # the client wants the answer as it comes
    bounds: TurnBounds | None = None  # of a sub-task; None for those of the configuration


class TurnRun:
    """A turn that runs here, for whoever listens."""

    def __init__(self, begun: BegunTurn, auto: str = "") -> None:
        self.begun = begun
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


@dataclass
class _Line:
    """Who waits for a session, in order; the first of them has its turn."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    length: int = 0


class TurnRunner:
    """The turns of one process. Belongs to one event loop."""

    def __init__(
        self,
        ctx: Context,
        calls: ModelCalls,
        tools: ToolRuntime,
        settings: AgentSettings,
        owner: TurnOwner,
        standing: Sequence[KillSwitch] = (),
    ) -> None:
        """standing: kill switches of the environment and the file."""
        self._ctx, self._calls, self._tools = ctx, calls, tools
        self._settings, self._owner = settings, owner
        self._auto = AutoTargets(settings.floors, standing)
        self._runs: dict[str, TurnRun] = {}  # by the turn's id
        self._lines: dict[str, _Line] = {}  # by session
        self._is_closing = False

    async def start(
        self, posted: PostedMessage, keep: Callable[[TurnOutcome], tuple[int, str] | None]
    ) -> TurnRun | IdempotentAnswer:
        """Begins a turn, or returns the answer that its key got before. The message is stored
        when this returns, and nothing of it where this raises.

        keep: as TurnListener has it. Raises SessionBusy, NotFound, NotAllowed, InputError,
        Conflict, StoreUnavailable.
        """
        if self._is_closing:
            raise StoreUnavailable("the agents process is ending: send the message again")
        # Nobody waits for a session that there is not.
        await run_unit(lambda: self._load(posted))
        deadline_s = self._ctx.clock.monotonic() + self._settings.busy_wait_s
        await self._enter(posted.session, deadline_s)
        try:
            begun = await self._begin(posted, deadline_s)
            if isinstance(begun, IdempotentAnswer):
                self._leave(posted.session)
                return begun
            return self._run(posted, begun, keep)
        except BaseException:
            self._leave(posted.session)
            raise

    def _load(self, posted: PostedMessage) -> tuple[Agent, AgentSession]:
        agent = agents.load_agent(self._ctx, posted.client, posted.agent)
        return agent, sessions.load_session(self._ctx, posted.client, agent.id, posted.session)

    def _find_models(self, posted: PostedMessage) -> ModelsInForce:
        agent, session = self._load(posted)
        return find_models(self._ctx, agent, session, posted.incoming, self._auto)

    async def _begin(
        self, posted: PostedMessage, deadline_s: float
    ) -> tuple[BegunTurn, ModelsInForce] | IdempotentAnswer:
        """Waits for the turn of another process, too."""
        while True:
            try:
                models = await run_unit(lambda: self._find_models(posted))
                begun = await run_unit(lambda: self._begin_unit(posted))
            except SessionBusy:
                if not self._waits or self._ctx.clock.monotonic() >= deadline_s:
                    raise
                await asyncio.sleep(LOOK_AGAIN_S)
                continue
            return begun if isinstance(begun, IdempotentAnswer) else (begun, models)

    def _begin_unit(self, posted: PostedMessage) -> BegunTurn | IdempotentAnswer:
        return turns.begin_turn(
            self._ctx,
            self._owner,
            LEASE,
            posted.session,
            posted.incoming,
            posted.key,
            encrypt=self._settings.encrypt,
        )

    def _run(
        self,
        posted: PostedMessage,
        begun: tuple[BegunTurn, ModelsInForce],
        keep: Callable[[TurnOutcome], tuple[int, str] | None],
    ) -> TurnRun:
        turn, models = begun
        run = TurnRun(turn, models.primary.reason)
        conversation = Conversation(
            self._ctx,
            turn,
            models,
            self._calls,
            self._tools,
            posted.bounds or self._settings.limits.bounds,
            TurnListener(run.emit, keep, posted.streams),
        )
        self._runs[turn.turn.id] = run
        run.begin(self._drive(conversation, turn, run))
        run.task.add_done_callback(lambda _: self._finish(turn))
        return run

    async def _drive(
        self, conversation: Conversation, begun: BegunTurn, run: TurnRun
    ) -> TurnOutcome:
        try:
            return await conversation.run()
        except asyncio.CancelledError:
            await self._interrupt(begun)
            failure = FailTurn("turn_interrupted", CUT_OFF, retryable=True)
            outcome = TurnOutcome(begun.messages[-1], failure=failure)
            run.emit(outcome)
            return outcome
        except Exception:
            # What cannot be written now is written when the lease has ended.
            with suppress(SwapgateError):
                await self._interrupt(begun)
            raise

    async def _interrupt(self, begun: BegunTurn) -> None:
        await run_unit(lambda: turns.interrupt(self._ctx, begun.turn))

    def _finish(self, begun: BegunTurn) -> None:
        del self._runs[begun.turn.id]
        self._leave(begun.session.id)

    @property
    def _waits(self) -> bool:
        return self._settings.when_busy is WhenBusy.WAIT

    async def _enter(self, session: str, deadline_s: float) -> None:
        """Waits for the session's turns in this process, in order. Raises SessionBusy."""
        line = self._lines.setdefault(session, _Line())
        line.length += 1
        try:
            left_s = max(0.0, deadline_s - self._ctx.clock.monotonic())
            async with asyncio.timeout(left_s if self._waits else 0):
                await line.lock.acquire()
        except BaseException as error:
            self._forget(session)
            if isinstance(error, TimeoutError):
                raise busy(session) from None
            raise

    def _leave(self, session: str) -> None:
        self._lines[session].lock.release()
        self._forget(session)

    def _forget(self, session: str) -> None:
        line = self._lines[session]
        line.length -= 1
        if not line.length:
            del self._lines[session]

    async def keep_leases(self) -> None:
        """Renews the leases of what runs here and ends what ran in processes that are gone,
        until it is cancelled.
        """
        while True:
            with _logging_outages():
                await self.renew_leases()
            await asyncio.sleep(RENEW_S)

    async def renew_leases(self) -> None:
        """Once. A turn that another process has ended is not gone on with."""
        ids = tuple(self._runs)
        for id_ in await run_unit(partial(turns.renew, self._ctx, self._owner, LEASE, ids)):
            if id_ in self._runs:
                self._runs[id_].cancel()
        await run_unit(partial(turns.interrupt_lapsed, self._ctx, self._owner, LEASE))

    async def close(self, drain_s: float) -> None:
        """Begins no turn any more, gives those that run this long, and interrupts the rest."""
        self._is_closing = True
        runs = list(self._runs.values())
        if not runs:
            return
        await asyncio.wait({run.task for run in runs}, timeout=drain_s)
        for run in runs:
            run.cancel()
        await asyncio.wait({run.task for run in runs})


@contextmanager
def _logging_outages() -> Iterator[None]:
    """The database may be away for a while; a lease that ends meanwhile ends its turn."""
    try:
        yield
    except StoreUnavailable as error:
        log.warning("leases_not_renewed", reason=str(error))
    except Exception:
        # A fault of ours in one round must not end all rounds: every turn would be cut off.
        log.exception("leases_not_renewed")
