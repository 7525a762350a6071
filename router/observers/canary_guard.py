"""A worker's canary guard stops a canary that harms callers, without the control plane.

Each sticky key counts once with its first request, and once with its window. The window holds
the key's first requests within the exposure rule's `window_s`, and fails if one of them fails.
The guard reads outcomes in the order of assignment; `harness.gate.online.worker_guard` gives
the reason. It reads a window only after all windows of its age have ended. A thread writes the
files, so that no request waits for a disk. `router.request.planner` obeys an abort; the control
plane reads the alert and rolls back. The formulas are in `worker_guard`, the files in
`router.recording.shared_files`.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from typing import ClassVar, Final, NamedTuple

from harness.frame.failures import ArmFailure, class_of, keep_common_causes
from harness.frame.ports import Clock
from harness.gate.online.guardrails import ExposureRule, Guardrail
from harness.gate.online.outcome import (
    ROUTER_FAULT,
    ExposureOutcome,
    OutcomeKind,
    Reading,
    read,
)
from harness.gate.online.usual_rate import limit_usual_rate
from harness.gate.online.worker_guard import (
    INCIDENT_EXPOSURES,
    GuardCount,
    GuardError,
    WorkerGuard,
    abort_log_e,
    is_incident,
)
from harness.routing.table import Arm, Canary, Route
from router.observers.guarded_clients import GuardedClients
from router.recording.internal_errors import RouterPart
from router.recording.shared_files import GuardFiles, GuardTurn, LocalAbort
from router.request.outcome import find_own_status
from router.request.request_observers import RequestObserver
from router.request.request_state import RoutedRequest
from router.request.routed_response import RoutedResponse
from router.snapshot.holder import SnapshotHolder

log = logging.getLogger(__name__)

# The guard waits for an outcome this much longer than the route's time limit.
SPARE_S: Final = 1.0
LOOK_S: Final = 0.5
# The most keys in memory, so that a key counts once. Later keys do not count.
MAX_KEYS: Final = 500_000
# The most windows that are open at once. Keys beyond it get no window, in either arm.
MAX_WINDOWS: Final = 100_000


# Up to Python 3.11, finding a member in its class takes ten times as long.
_ANSWERED: Final = OutcomeKind.ANSWERED
_GOOD: Final = Reading.GOOD
_BAD: Final = Reading.BAD
_UNKNOWN: Final = Reading.UNKNOWN
_RECENT_BITS: Final = (1 << INCIDENT_EXPOSURES) - 1


class ExposureFailure(NamedTuple):
    """The failure of an exposure. name: its class and cause (`name_failure`), or empty.

    status: the HTTP status of the provider's reply; None without a reply.
    """

    name: str = ""
    status: int | None = None


_NO_FAILURE: Final = ExposureFailure()


class GuardedCaller:
    """A key's first request and window in a rollout.

    share: the canary's share of the keys at that time, 0 to 1. since_s: the first request's
    beginning, in monotonic seconds. requests: the window's requests so far. first: the reading
    of the first request, None before its outcome. window: the worst reading so far.
    first_why, window_why: their failures. client: the id of the client's key.
    """

    __slots__ = (
        "canary",
        "client",
        "first",
        "first_why",
        "key",
        "requests",
        "share",
        "since_s",
        "window",
        "window_why",
    )

    def __init__(
        self,
        key: int,
        *,
        canary: bool,
        share: float,
        since_s: float,
        client: str = "",
    ) -> None:
        self.key = key
        self.client = client
        self.canary = canary
        self.share = share
        self.since_s = since_s
        self.requests = 1
        self.first: Reading | None = None
        self.first_why = _NO_FAILURE
        self.window = _GOOD
        self.window_why = _NO_FAILURE


# A request that counts: its caller, and whether it is the caller's first request. A plain
# tuple, because each request creates one.
GuardedRequest = tuple[GuardedCaller, bool]


class GuardStream:
    """The evidence of one stream of outcomes, read in the order of assignment.

    rho: the tolerated ratio of failures, see `WorkerGuard`. usual_rate: this stream's usual
    failure rate, 0 if unknown (`ExposureRule.usual_rates`). clients: the evidence without
    single client keys; None if one client key may decide alone. failures: the canary's failures
    with a known class.
    """

    def __init__(
        self,
        rho: float,
        usual_rate: float,
        clients: GuardedClients | None = None,
    ) -> None:
        self.evidence = WorkerGuard(rho)
        self._clients = clients
        self.failures: Counter[ExposureFailure] = Counter()
        self._usual_rate = usual_rate
        # The incumbent's known outcomes: exposures, failures, and the latest outcomes as bits.
        self._exposures = self._failures = self._recent = 0

    @property
    def log_e(self) -> float:
        """Returns the evidence of harm: the minimum with all keys and without a single one."""
        log_e = self.evidence.log_e
        return log_e if self._clients is None else min(log_e, self._clients.log_e)

    def add(self, caller: GuardedCaller, reading: Reading | None, why: ExposureFailure) -> bool:
        """Adds an outcome; returns whether it is a failure.

        Args:
            reading: None if the outcome did not arrive in time, which is a failure in neither
                arm.

        An unknown outcome is a failure of the incumbent, but not of the canary. Otherwise an
        incumbent with many limited requests would have fewer failures than its planned share.
        The guard would then stop an equal candidate.
        """
        is_canary = caller.canary
        is_failure = reading is _BAD or (reading is _UNKNOWN and not is_canary)
        usual_rate = limit_usual_rate(self._usual_rate, self._exposures, self._failures)
        has_incident = is_incident(self._recent, self._exposures)
        if self._clients is not None:
            self._clients.add(caller.client)
            if is_failure:
                self._clients.add_failure(
                    caller.client,
                    self.evidence,
                    canary=is_canary,
                    share=caller.share,
                    incident=has_incident,
                )
        if is_failure:
            self.evidence = self.evidence.after(
                canary=is_canary,
                share=caller.share,
                usual_rate=usual_rate,
                incident=has_incident,
            )
            if is_canary and why.name:
                self.failures[why] += 1
        elif is_canary and usual_rate and not has_incident and reading is not _UNKNOWN:
            self.evidence = self.evidence.after_fine(usual_rate)
        if not is_canary and reading in (_GOOD, _BAD):
            # An unknown or late outcome would distort the incumbent's rate.
            self._exposures += 1
            self._failures += is_failure
            self._recent = (self._recent << 1 | is_failure) & _RECENT_BITS
        return is_failure


class RolloutGuard:
    """Gathers one rollout's evidence. limit: the log e at which each stream of evidence aborts.

    rule: the rule of the rollout's exposures. longest_s: the route's time limit for a request,
    in seconds.
    exposures, control_exposures: the keys of the canary and of the incumbent so far.
    window_exposures, control_windows: their windows that the guard has read.
    """

    def __init__(
        self,
        route: str,
        rule: ExposureRule,
        limit: float,
        *,
        longest_s: float,
    ) -> None:
        self.route = route
        self.limit = limit
        self._wait_s = longest_s + SPARE_S
        self.firsts = GuardStream(rule.rho, rule.usual_rates.get(Guardrail.ERRORS, 0.0))
        self.exposures = 0
        self.control_exposures = 0
        self._keys: set[int] = set()
        self._queue: deque[GuardedCaller] = deque()
        rate = rule.usual_rates.get(Guardrail.CALLER_ERRORS, 0.0)
        self.windows = GuardStream(rule.rho, rate, GuardedClients())
        self.window_exposures = 0
        self.control_windows = 0
        self._window_s = rule.window_s
        self._window_requests = rule.window_requests
        self._share = 0.0
        self._open: dict[int, GuardedCaller] = {}
        self._window_queue: deque[GuardedCaller] = deque()

    def begin(
        self,
        key: str,
        *,
        canary: bool,
        share: float,
        now_s: float,
        client: str = "",
    ) -> GuardedRequest | None:
        """Begins a request. Returns None if the request does not count.

        A request counts as the first request of its key, or for the key's window.

        Args:
            client: the id of the client's key.
        """
        if share > self._share:
            # The new step may move a caller to the other model: all windows end now.
            self._share = share
            self._open.clear()
        key_hash = hash(key)
        if key_hash in self._keys:
            caller = self._open.get(key_hash)
            if (
                caller is None
                or caller.canary is not canary
                or now_s - caller.since_s >= self._window_s
            ):
                return None
            caller.requests += 1
            return (caller, False) if caller.requests <= self._window_requests else None
        if len(self._keys) >= MAX_KEYS:
            return None
        self._keys.add(key_hash)
        self.exposures += canary
        self.control_exposures += not canary
        caller = GuardedCaller(
            key_hash, canary=canary, share=share, since_s=now_s, client=client
        )
        self._queue.append(caller)
        # A request of an older snapshot has the share of an earlier step.
        is_newest = share == self._share
        if self._window_s and is_newest and len(self._window_queue) < MAX_WINDOWS:
            self._open[key_hash] = caller
            self._window_queue.append(caller)
        return caller, True

    def read(self, now_s: float) -> bool:
        """Reads the outcomes in the order of assignment; returns whether to abort.

        The first exposure without an outcome stops the reading. Otherwise failures that arrive
        sooner in one arm would be evidence against an equal candidate. An exposure without an
        outcome in time is not a failure, in either arm. It does not count for the incumbent's
        rate either, because it would lower the rate.
        """
        has_failure = False
        while self._queue:
            caller = self._queue[0]
            if caller.first is None and now_s - caller.since_s < self._wait_s:
                break
            self._queue.popleft()
            has_failure |= self.firsts.add(caller, caller.first, caller.first_why)
        queue = self._window_queue
        if queue and now_s - queue[0].since_s >= self._window_s + self._wait_s:
            has_failure |= self._read_windows(now_s)
        return has_failure and self._log_e >= self.limit

    def _read_windows(self, now_s: float) -> bool:
        """Reads the windows in the order of assignment; returns whether any failed.

        The guard reads a failed window no sooner than a good one: when the last possible
        request of the window has reached the route's time limit.
        """
        has_failure = False
        queue = self._window_queue
        complete_after_s = self._window_s + self._wait_s
        while queue and now_s - queue[0].since_s >= complete_after_s:
            caller = queue.popleft()
            self._open.pop(caller.key, None)
            self.window_exposures += caller.canary
            self.control_windows += not caller.canary
            has_failure |= self.windows.add(caller, caller.window, caller.window_why)
        return has_failure

    @property
    def _log_e(self) -> float:
        return max(self.firsts.log_e, self.windows.log_e)

    def count(self) -> GuardCount:
        """Returns the counts of the stream with the greater evidence."""
        is_window = self.windows.log_e > self.firsts.log_e
        stream = self.windows if is_window else self.firsts
        evidence = stream.evidence
        classes = [failure.name for failure in stream.failures.elements()]
        return GuardCount(
            exposures=self.window_exposures if is_window else self.exposures,
            canary_failures=evidence.canary_failures,
            control_failures=evidence.failures - evidence.canary_failures,
            log_e=stream.log_e,
            log_limit=self.limit,
            canary_classes=dict(Counter(keep_common_causes(classes))),
            window_s=self._window_s if is_window else 0.0,
            control_exposures=self.control_windows if is_window else self.control_exposures,
            error=_find_main_error(stream.failures),
        )


def _find_main_error(failures: Counter[ExposureFailure]) -> GuardError | None:
    """Returns the most frequent class and status; None if no class is known.

    An open circuit is the consequence of other failures, so it counts only without them.
    """
    errors = Counter((class_of(name), status) for name, status in failures.elements())
    causes = Counter({key: n for key, n in errors.items() if key[0] != ArmFailure.CIRCUIT_OPEN})
    for (name, status), callers in (causes or errors).most_common(1):
        return GuardError(name, status, callers)
    return None


class CanaryGuards(RequestObserver):
    """Keeps a guard for each live canary.

    files: aborts outlast the process, so that a restarted worker does not serve a stopped
    canary.
    workers: how many workers share the level; each may use a part of it.
    announce: sends an abort to other workers. on_abort: alerts people.
    aborted: the stopped rollouts, by id.
    """

    part: ClassVar[RouterPart] = RouterPart.SCORING

    def __init__(
        self,
        holder: SnapshotHolder,
        files: GuardFiles,
        clock: Clock,
        *,
        workers: int,
        worker: str,
        announce: Callable[[LocalAbort], None],
        on_abort: Callable[[LocalAbort], None],
    ) -> None:
        self._holder = holder
        self._files = files
        self._clock = clock
        self._workers = workers
        self._worker = worker
        self._announce = announce
        self._on_abort = on_abort
        self._guards: dict[str, RolloutGuard] = {}
        self._requests: dict[str, GuardedRequest] = {}  # by request id
        self._unwritten_aborts: list[LocalAbort] = []
        self._unconfirmed_aborts: list[LocalAbort] = []  # may come from an earlier process
        self._has_work = asyncio.Event()
        self._live_rollouts: set[str] = set()  # rollouts that a snapshot contained
        self.aborted: dict[str, LocalAbort] = {}

    def boot(self) -> None:
        """Reads the files of earlier processes. Begins anew if it cannot read them."""
        try:
            self.aborted = {abort.rollout: abort for abort in self._files.aborted()}
            self._live_rollouts = set(self.aborted)
            self._unconfirmed_aborts = list(self.aborted.values())
            self._add_guards(self._claim_turns(self._list_unguarded()))
        except (OSError, KeyError, TypeError, ValueError) as error:
            log.warning("the guard's files cannot be read: %s", error)

    def stopped(self, canary: Canary | None) -> bool:
        """Returns whether this router stopped the canary.

        It reads only memory, because every request calls it.
        """
        if canary is None or canary.control:
            # A holdback's arm is the former incumbent, which an abort must not stop.
            return False
        return canary.rollout in self.aborted

    def before_attempt(self, observed: RoutedRequest) -> None:
        canary = observed.route.route.canary
        if canary is None:
            return
        guarded_request = self.begin(canary, observed.arm, observed.sticky_key, observed.key_id)
        if guarded_request is not None:
            self._requests[observed.request_id] = guarded_request

    def at_end(self, observed: RoutedRequest, response: RoutedResponse) -> None:
        guarded_request = self._requests.pop(observed.request_id, None)
        canary = observed.route.route.canary
        outcome = observed.outcome
        if guarded_request is not None and canary is not None:
            final_outcome = outcome or ROUTER_FAULT
            status = find_own_status(response) if final_outcome.name else None
            self.end(canary.rollout, guarded_request, final_outcome, status)

    def begin(
        self,
        canary: Canary,
        arm: Arm,
        key: str,
        client: str = "",
    ) -> GuardedRequest | None:
        guard = self._guards.get(canary.rollout)
        if guard is None or canary.control:
            return None
        return guard.begin(
            key,
            canary=arm is Arm.CANARY,
            share=canary.weight_bps / 10_000,
            now_s=self._clock.monotonic(),
            client=client,
        )

    def end(
        self,
        rollout: str,
        guarded_request: GuardedRequest | None,
        outcome: ExposureOutcome,
        status: int | None = None,
    ) -> None:
        """Ends a request.

        Args:
            status: the failed reply's status; None without a reply.
        """
        if guarded_request is not None:
            reading = _GOOD
            if outcome.kind is not _ANSWERED:
                reading = read(Guardrail.ERRORS, outcome)
            caller, is_first = guarded_request
            if is_first:
                caller.first = reading
                caller.first_why = ExposureFailure(outcome.name, status)
            if reading is not _GOOD and caller.window is not _BAD:
                caller.window = reading
                caller.window_why = ExposureFailure(outcome.name, status)
            guard = self._guards.get(rollout)
            if guard is not None and guard.read(self._clock.monotonic()):
                self._abort(rollout, guard)

    def apply_abort(self, abort: LocalAbort) -> None:
        """Stops a canary in this process, after an abort of this or another worker."""
        if abort.rollout not in self.aborted:
            self.aborted[abort.rollout] = abort
            self._guards.pop(abort.rollout, None)

    def _abort(self, rollout: str, guard: RolloutGuard) -> None:
        count = guard.count()
        abort = LocalAbort(rollout, guard.route, self._worker, count, self._clock.now())
        # Apply it first, so that the next request obeys it even if a later step fails.
        self.apply_abort(abort)
        self._announce(abort)
        self._on_abort(abort)
        self._unwritten_aborts.append(abort)
        self._has_work.set()

    async def watch(self) -> None:
        """Evaluates every LOOK_S, and at once after an abort, until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._has_work.wait()
            self._has_work.clear()
            try:
                await self.evaluate()
            except OSError as error:
                log.warning("the guard's files: %s", error)

    async def evaluate(self) -> None:
        """Evaluates all guards once. Raises OSError; the next round writes the data again."""
        for rollout, guard in list(self._guards.items()):
            if guard.read(self._clock.monotonic()):
                self._abort(rollout, guard)
        for abort in list(self._unwritten_aborts):
            await asyncio.to_thread(self._files.keep, abort)
            self._unwritten_aborts.remove(abort)
        unguarded_routes = self._list_unguarded()
        if unguarded_routes:
            self._add_guards(await asyncio.to_thread(self._claim_turns, unguarded_routes))
        self._alert_again()
        await self._forget_ended()

    def _alert_again(self) -> None:
        """Repeats the alerts of earlier aborts that the control plane has not confirmed.

        An earlier process may have ended after it wrote its file and before its alert.
        """
        serving = self._holder.current
        if not self._unconfirmed_aborts or serving is None or self._holder.stale:
            return
        canaries = [route.route.canary for route in serving.routes.values()]
        live_rollouts = {
            canary.rollout for canary in canaries if canary is not None and not canary.control
        }
        aborts = self._unconfirmed_aborts
        self._unconfirmed_aborts = []
        for abort in aborts:
            if abort.rollout in live_rollouts:
                self._on_abort(abort)

    async def _forget_ended(self) -> None:
        """Removes guards, aborts and files of rollouts that have ended in the database.

        A snapshot from disk, or a snapshot older than another worker's, cannot show the end.
        """
        serving = self._holder.current
        if serving is None or self._holder.stale:
            return
        ended_rollouts = self._live_rollouts - serving.rollouts
        self._live_rollouts = set(serving.rollouts)
        if ended_rollouts:
            for rollout in ended_rollouts:
                self._guards.pop(rollout, None)
                self.aborted.pop(rollout, None)
            await asyncio.to_thread(self._files.forget, frozenset(ended_rollouts))

    def _list_unguarded(self) -> list[Route]:
        """Lists the routes with a live canary that have no guard in this process."""
        serving = self._holder.current
        routes = [route.route for route in serving.routes.values()] if serving else []
        return [
            route
            for route in routes
            if route.canary is not None
            and not route.canary.control
            and route.canary.unit_rule.local_alpha > 0.0
            and route.canary.rollout not in self._guards
            and route.canary.rollout not in self.aborted
        ]

    def _claim_turns(self, routes: list[Route]) -> list[tuple[Route, GuardTurn]]:
        """Takes this process's turn at each route's guard. Raises OSError.

        The turn decides the process's part of the level.
        """
        return [
            (route, self._files.claim(route.canary.rollout, self._workers))
            for route in routes
            if route.canary is not None
        ]

    def _add_guards(self, routes_with_turns: list[tuple[Route, GuardTurn]]) -> None:
        for route, turn in routes_with_turns:
            canary = route.canary
            if canary is None:
                continue
            rule = canary.unit_rule
            # First requests and windows spend half of the level each.
            alpha = rule.local_alpha / 2 if rule.has_windows else rule.local_alpha
            limit = abort_log_e(alpha, workers=turn.workers, turn=turn.turn)
            self._guards[canary.rollout] = RolloutGuard(
                route.name, rule, limit, longest_s=route.settings.total_timeout_s
            )
