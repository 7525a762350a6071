"""`TurnRunner` starts the turns of this process, renews their leases, and ends them.

A lease tells other processes that this one is alive. If a process does not renew it for
`routing.agent.LEASE`, the process loses the turn, and any process may interrupt the turn. How a
turn runs is in `conversation`, how it is stored in `turns`.
"""

import asyncio
from typing import Final

import structlog

from harness.agents import agents, turns
from harness.agents.auto import AutoTargets
from harness.agents.context import AgentsContext
from harness.agents.conversation import PostedMessage, TurnRun, run_transaction
from harness.agents.models import ModelsInForce, PaidCalls, find_models
from harness.agents.turn import ModelCalls, ToolRuntime
from harness.agents.turns import BegunTurn
from harness.frame.errors import StoreUnavailable

log = structlog.get_logger("swapproof.agents")

RENEW_EVERY_S: Final = 5.0


class TurnRunner:
    def __init__(
        self,
        ctx: AgentsContext,
        calls: ModelCalls,
        tools: ToolRuntime,
        owner: str,
        auto: AutoTargets,
    ) -> None:
        """Creates a runner without running turns.

        Args:
            owner: `PLACE#START`. A place has one live process, and each start is unique.
        """
        self._ctx = ctx
        self._calls = PaidCalls(ctx, calls)
        self._tools = tools
        self._owner = owner
        self._auto = auto
        self._runs: dict[str, TurnRun] = {}  # by the turn's id
        self._is_closing = False

    async def start(self, posted: PostedMessage) -> TurnRun | str:
        """Stores the message and begins its turn. For a repeated idempotency key, returns the
        stored answer. Stores nothing if it raises.

        Raises SessionBusy, NotFound, NotAllowed, InputError, Conflict, StoreUnavailable.
        """
        if self._is_closing:
            raise StoreUnavailable("the agents process is ending: send the message again")
        started = await run_transaction(lambda: self._begin(posted))
        if isinstance(started, str):
            return started
        turn, models = started
        run = TurnRun(self._ctx, turn, models, self._calls, self._tools, posted)
        self._runs[turn.session.turn] = run
        run.task.add_done_callback(lambda _: self._runs.pop(turn.session.turn))
        return run

    def _begin(self, posted: PostedMessage) -> tuple[BegunTurn, ModelsInForce] | str:
        """Checks the client and the models, then stores the message. Returns the stored answer
        of a repeated idempotency key.
        """
        ctx = self._ctx
        agent = agents.load_agent(ctx, posted.client, posted.agent)
        session = agents.load_session(ctx, posted.client, agent.id, posted.session)
        # Before the models, because a stored answer counts even if the consent to its model has
        # ended.
        if posted.key and (stored_answer := turns.load_answer(ctx, session.id, posted.key)):
            return stored_answer
        models = find_models(ctx, agent, session, posted.incoming, self._auto)
        started = turns.begin_turn(ctx, self._owner, session.id, posted.incoming, posted.key)
        return started if isinstance(started, str) else (started, models)

    async def keep_leases(self) -> None:
        """Renews the leases of this process's turns and ends the turns of dead processes,
        until it is cancelled.
        """
        while True:
            try:
                await self.renew_leases()
            except Exception:
                # An error, such as a database outage, must not end this loop. Without it, all
                # leases would expire and end their turns.
                log.exception("leases_not_renewed")
            await asyncio.sleep(RENEW_EVERY_S)

    async def renew_leases(self) -> None:
        """Renews the leases once, cancels turns that this process has lost, ends the turns of
        dead processes, and stores the payments.
        """
        ids = tuple(self._runs)
        for id_ in await run_transaction(lambda: turns.renew(self._ctx, self._owner, ids)):
            if id_ in self._runs:
                self._runs[id_].cancel()
        await run_transaction(lambda: turns.interrupt_lapsed(self._ctx, self._owner))
        await run_transaction(self._calls.meter.refresh)

    async def close(self, drain_s: float) -> None:
        """Refuses new turns, waits up to `drain_s` seconds for running turns, and then
        interrupts them.
        """
        self._is_closing = True
        runs = list(self._runs.values())
        if runs:
            await asyncio.wait({run.task for run in runs}, timeout=drain_s)
            for run in runs:
                run.cancel()
            await asyncio.wait({run.task for run in runs})
        await run_transaction(self._calls.close)
