"""Makes side calls: requests of judges and shadows, within budgets. No user waits for them.

`SideCalls` is the base of `judge` and `shadow`. It runs a task for each call; breakers and
traffic do not count the call's attempt. The other classes run in the database's thread, and
know the spending of all workers. The router makes no side call while the spending is unknown.
"""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from datetime import date
from typing import Any, Final, NamedTuple

from harness.evals.month_spending import SpendingPurpose
from harness.evals.spending_meter import SpendingMeter
from harness.frame.errors import StoreUnavailable
from harness.frame.ports import Clock
from harness.gate.online.guardrails import Guardrail, JudgeTally
from harness.gate.online.reading.block_forming import MAX_BLOCK_AGE_S
from harness.gate.online.reading.block_streams import JUDGED_WITHIN_S
from harness.providers.models.capabilities import Endpoint
from harness.providers.target import Price
from harness.routing.reliability.breaker import LAST_RESORT_TICKET
from harness.routing.settings import RouterSettings
from router.frame.database import RouterDatabase, RouterTransaction
from router.health.account_watch import AccountWatch
from router.health.provider_keys import ProviderKeys
from router.health.target_health import TargetHealth
from router.protocols.answers import TokenUsage
from router.recording.metrics import RouterMetrics
from router.recording.port import Recording
from router.recording.sums import DayTotals
from router.request.request_observers import RequestObserver
from router.request.request_state import Attempt
from router.request.upstream_call import UpstreamCalls
from router.snapshot.compiled import CompiledSnapshot, CompiledTarget
from router.snapshot.compiler import canary_judge
from router.snapshot.holder import SnapshotHolder

OVER_CAP: Final = "over_monthly_cap"
USERS_FIRST: Final = "users_first"


class WorkerSpending:
    """Keeps this worker's calls for one purpose within the monthly cap.

    The snapshot's holder calls an instance with the store. The call writes this worker's costs
    and reads the costs of all workers.
    """

    def __init__(self, purpose: SpendingPurpose, clock: Clock) -> None:
        self._purpose = purpose
        self._clock = clock
        self._meter: SpendingMeter | None = None  # None until the first call with the store

    def __call__(self, store: RouterDatabase) -> None:
        """Stores costs. Raises StoreUnavailable; the next call then stores them."""
        if self._meter is None:
            self._meter = SpendingMeter(store.spending, self._clock, self._purpose)
        self._meter.refresh()

    def may_ask(self, upstream: CompiledTarget) -> bool:
        """Returns whether a call fits the cap. A target without a price fits no cap."""
        unpriced_target = "" if upstream.price is not None else upstream.name
        return self._meter is not None and not self._meter.find_obstacle(unpriced_target)

    def pay(self, price: Price | None, usage: TokenUsage | None) -> None:
        """Adds a call's cost.

        Args:
            usage: None if the call had no answer; it then costs nothing.
        """
        if self._meter is not None and usage is not None:
            self._meter.pay(None if price is None else price.answer_usd(*usage))

    def close(self) -> None:
        """Stores the last costs, if the database answers."""
        if self._meter is not None:
            with contextlib.suppress(StoreUnavailable):
                self._meter.refresh()


Watched = Callable[[CompiledSnapshot], frozenset[str]]
Stored = Callable[[RouterTransaction, frozenset[str], date], Iterable[object]]
TOTALS_EVERY_S: Final = 1.0
# A pair has two functions. The first returns the subjects with a budget, the second their rows
# of this month or day.
KEY_BUDGETS: Final[tuple[Watched, Stored]] = (
    lambda serving: serving.budgeted,
    lambda tx, keys, day: tx.observations.spends(since=day.replace(day=1), keys=keys),
)
SHADOW_BUDGETS: Final[tuple[Watched, Stored]] = (
    lambda serving: frozenset(shadow.id for shadow in serving.snapshot.shadows),
    lambda tx, shadows, day: tx.shadows.tallies(sorted(shadows), since=day),
)


class TotalsRefresh:
    """Reads the other workers' use from the store, in the thread that watches the store.

    It reads nothing while no subject has a budget.
    """

    def __init__(
        self,
        holder: SnapshotHolder,
        totals: DayTotals[Any, Any],
        clock: Clock,
        watched: Watched,
        stored: Stored,
    ) -> None:
        self._holder = holder
        self._totals = totals
        self._clock = clock
        self._watched = watched
        self._stored = stored
        self._next_read_s = -TOTALS_EVERY_S
        self._last_subjects: frozenset[str] = frozenset()

    def __call__(self, store: RouterDatabase) -> None:
        """Reads new figures. Raises StoreUnavailable, and then keeps the last ones."""
        serving = self._holder.current
        subjects = self._watched(serving) if serving else frozenset()
        now_s = self._clock.monotonic()
        if not subjects or (subjects == self._last_subjects and now_s < self._next_read_s):
            return
        today = self._clock.now().date()
        with store.read() as tx:
            rows = list(self._stored(tx, subjects, today))
        self._totals.know(subjects, rows)
        self._last_subjects = subjects
        self._next_read_s = now_s + TOTALS_EVERY_S


READ_EVERY_S: Final = 5.0
# The stored blocks contain older costs, so a worker need not add them. An outage of the
# database changes nothing, because the router judges nothing meanwhile.
RECENT_S: Final = MAX_BLOCK_AGE_S + JUDGED_WITHIN_S


class JudgeBudget:
    """Reads the costs of live rollouts' judges; reads nothing while no rollout has a judge."""

    def __init__(self, holder: SnapshotHolder, clock: Clock) -> None:
        self._holder = holder
        self._clock = clock
        self._lock = threading.Lock()
        self._known_usd: dict[str, float] = {}
        self._last_block_numbers: dict[str, int] = {}
        self._recent_costs: deque[tuple[float, str, float]] = deque()
        self._next_read_s = -READ_EVERY_S

    def __call__(self, store: RouterDatabase) -> None:
        """Reads new figures. Raises StoreUnavailable, and then keeps the last ones."""
        serving = self._holder.current
        routes = serving.snapshot.table.routes.values() if serving else ()
        rollouts = [
            route.experiment.rollout
            for route in routes
            if route.experiment and canary_judge(route)
        ]
        now_s = self._clock.monotonic()
        if now_s < self._next_read_s and all(id_ in self._known_usd for id_ in rollouts):
            return
        for rollout in rollouts:
            self._refresh(store, rollout)
        with self._lock:
            for ended_rollout in self._known_usd.keys() - set(rollouts):
                del self._known_usd[ended_rollout], self._last_block_numbers[ended_rollout]
        self._next_read_s = now_s + READ_EVERY_S

    def _refresh(self, store: RouterDatabase, rollout: str) -> None:
        with store.read() as tx:
            blocks = tx.observations.blocks(
                rollout, after=self._last_block_numbers.get(rollout, 0)
            )
        tallies = (block.counts.get(Guardrail.JUDGE) for block in blocks)
        usd = sum(tally.cost_usd for tally in tallies if isinstance(tally, JudgeTally))
        with self._lock:
            self._known_usd[rollout] = self._known_usd.get(rollout, 0.0) + usd
            self._last_block_numbers[rollout] = max(
                (block.number for block in blocks), default=0
            ) or (self._last_block_numbers.get(rollout, 0))

    def note(self, rollout: str, cost_usd: float) -> None:
        """Adds a verdict's cost, until the stored blocks contain it."""
        with self._lock:
            self._recent_costs.append((self._clock.monotonic(), rollout, cost_usd))

    def spent(self, rollout: str) -> tuple[float, float] | None:
        """Returns the stored cost and this worker's recent cost in US dollars.

        Returns None until the database has answered.
        """
        since_s = self._clock.monotonic() - RECENT_S
        with self._lock:
            while self._recent_costs and self._recent_costs[0][0] < since_s:
                self._recent_costs.popleft()
            if rollout not in self._known_usd:
                return None
            recent_usd = sum(
                usd for _, paid_rollout, usd in self._recent_costs if paid_rollout == rollout
            )
            return self._known_usd[rollout], recent_usd


class SideParts(NamedTuple):
    """The parts of a worker that side calls need."""

    holder: SnapshotHolder
    calls: UpstreamCalls
    health: TargetHealth
    keys: ProviderKeys
    recorder: Recording
    metrics: RouterMetrics
    settings: RouterSettings
    clock: Clock
    accounts: AccountWatch


class SideCalls(RequestObserver):
    """Runs each side call in its own task. Belongs to the worker's event loop."""

    def __init__(self, parts: SideParts, spending: WorkerSpending) -> None:
        self._holder, self._calls, self._health, self._keys = parts[:4]
        self._recorder, self._metrics, self._settings, self._clock = parts[4:8]
        self._accounts = parts.accounts
        self._spending = spending
        self._running: dict[asyncio.Task[None], str] = {}
        self._rests_until: dict[str, float] = {}  # by target id
        self._began_at_s: dict[str, float] = {}  # by target id: the last call that began

    async def aclose(self) -> None:
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _run_in_task(self, work: Coroutine[Any, Any, None], subject: str) -> None:
        """Runs a call in a task.

        Args:
            subject: the call's rollout or shadow.
        """
        task = asyncio.ensure_future(work)
        self._running[task] = subject
        task.add_done_callback(self._handle_end)

    def _handle_end(self, task: asyncio.Task[None]) -> None:
        raise NotImplementedError

    def _find_target_obstacle(self, upstream: CompiledTarget) -> str:
        """Names the reason not to ask a target now; empty without one.

        The target rests, its circuit is open or paused, or the account's users come first.
        """
        now_s = self._clock.monotonic()
        if self._rests_until.get(upstream.id, 0.0) > now_s:
            return "resting"
        if not self._health.all_well((upstream.id,)):
            return "circuit_open"
        permit = self._accounts.permit(upstream)
        since_s = now_s - self._began_at_s.get(upstream.id, -permit.gap_s)
        is_free = len(self._running) < permit.calls and since_s >= permit.gap_s
        return "" if is_free else USERS_FIRST

    def _build_attempt(
        self,
        upstream: CompiledTarget,
        deadline_s: float,
        endpoint: Endpoint,
    ) -> Attempt:
        """Builds an attempt. Health and traffic ignore it, because no user sent it."""
        key = self._keys.key(upstream)
        self._began_at_s[upstream.id] = self._clock.monotonic()
        self._accounts.note_call(upstream, key)
        return Attempt(upstream, LAST_RESORT_TICKET, key, deadline_s, 1, endpoint)
