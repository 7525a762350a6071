"""Simulates canaries on a route whose callers come back, by day and by night, and the estimates
that a person reads: before the canary, and during each step.

The routers' ledgers, the history of the callers, and the decisions are the product's own. Every
candidate is healthy: both arms fail alike. A caller makes visits; a visit has several requests.
"""

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Final, NamedTuple

import numpy as np

from harness.canary.duration_estimate import measure_traffic
from harness.gate.caller_forecast import TrafficPart
from harness.gate.explain import EstimateBasis, explain_rollout
from harness.gate.online.observation import ObservationBlock
from harness.gate.online.outcome import OutcomeKind
from harness.gate.online.rollout import (
    Rollout,
    RolloutSignal,
    RolloutState,
    StepCondition,
    apply_signal,
    build_exposure_rule,
)
from harness.gate.online.rollout_action import decide_action
from harness.gate.policy import CanaryPolicy
from harness.gate.ramp import EstimateState, plan_ramp
from router.recording.caller_history import CallerHistory
from router.recording.ledger import Ledger
from tests.support.canary.outcomes import outcome_of
from tests.support.canary.shared_ledgers import SERVED, SharedLedgers

DAY_S: Final = 86_400.0
HOUR_S: Final = 3_600.0
# After this share of a step's callers, chance decides about the few others.
LATEST_LOOK: Final = 0.7
SHORTEST_LOOK_S: Final = 30.0
_SLOW_CONDITIONS: Final = (StepCondition.CERTIFICATE, StepCondition.DURATION)
PART_S: Final = 300.0  # the rate of visits is constant for so long
MIDNIGHT: Final = datetime(2026, 3, 2, tzinfo=UTC)


@dataclass(frozen=True)
class RouteScene:
    """A route's callers, and the canary that begins on it.

    start_h: the hour of the day (UTC) at which the canary begins. history_s: how long the route
    had traffic before. night: traffic at 3 h, as a share of the traffic at 15 h. unlike: the
    spread of the callers' own rates (sigma of a log-normal). day_sd: the spread of the days.
    """

    policy: CanaryPolicy
    callers: int
    visits_per_day: float
    turns: float = 3.0
    pause_s: float = 20.0
    night: float = 1.0
    unlike: float = 1.0
    day_sd: float = 0.1
    start_h: float = 9.0
    history_s: float = 2 * DAY_S
    failure_rate: float = 0.003
    total_timeout_s: float = 120.0
    routers: int = 1
    tick_s: float = 30.0

    @property
    def starts_s(self) -> float:
        """Returns the canary's start in seconds since MIDNIGHT, after the route's history."""
        days = math.ceil(self.history_s / DAY_S)
        return days * DAY_S + self.start_h * HOUR_S

    def rate(self, hour: float) -> float:
        """Returns the traffic of an hour as a share of the day's mean."""
        day = 0.5 - 0.5 * math.cos(2.0 * math.pi * (hour - 3.0) / 24.0)
        return (self.night + (1.0 - self.night) * day) / (0.5 + 0.5 * self.night)


class CallerRequest(NamedTuple):
    """A request for the history of the callers and for the ledgers."""

    at_s: float
    caller: int
    turn: int
    began_s: float  # when its visit began
    kind: OutcomeKind | None = OutcomeKind.ANSWERED
    latency_ms: float = 1_000.0


class MinuteCount(NamedTuple):
    """A minute of a router's traffic."""

    worker: str
    minute: datetime
    requests: int
    first_requests: int


def draw_requests(scene: RouteScene, seed: Sequence[int]) -> Iterator[CallerRequest]:
    """Draws the requests of all days, in order of time."""
    rng = np.random.default_rng(seed)
    weights = rng.lognormal(0.0, scene.unlike, scene.callers)
    weights /= weights.sum()
    left: list[CallerRequest] = []
    first_s = scene.starts_s - scene.history_s
    part = int(first_s // PART_S)
    level = 1.0
    while True:
        if part * PART_S % DAY_S == 0.0:
            level = float(rng.lognormal(-(scene.day_sd**2) / 2.0, scene.day_sd))
        hour = (part + 0.5) * PART_S / HOUR_S % 24.0
        mean = scene.visits_per_day * PART_S / DAY_S * scene.rate(hour) * level
        number = rng.poisson(mean)
        begins = (part + rng.random(number)) * PART_S
        who = rng.choice(scene.callers, size=number, p=weights)
        turns = rng.geometric(1.0 / scene.turns, size=number)
        for began, caller, count in zip(
            begins.tolist(), who.tolist(), turns.tolist(), strict=True
        ):
            at_s = began
            for turn in range(count):
                left.append(CallerRequest(at_s, caller + 1, turn, began))
                at_s += scene.pause_s * float(rng.exponential())
        part += 1
        left.sort()
        until = bisect_left(left, part * PART_S, key=attrgetter("at_s"))
        yield from (request for request in left[:until] if request.at_s >= first_s)
        left = left[until:]


@dataclass(frozen=True)
class Look:
    """What a person could read at a moment of a step, to compare with the truth."""

    rollout: Rollout
    blocks: Sequence[ObservationBlock]
    minutes: Sequence[MinuteCount]
    now: datetime

    @property
    def parts(self) -> list[TrafficPart]:
        """Returns the traffic of the last two days (UTC), as the store sums it up."""
        since = self.now.replace(hour=0, minute=0) - timedelta(days=1)
        sums: dict[tuple[str, datetime], TrafficPart] = {}
        for count in self.minutes:
            begin = count.minute.replace(minute=count.minute.minute // 10 * 10)
            key = (count.worker, begin)
            before = sums.get(key, TrafficPart(count.worker, count.minute, 0, 0))
            sums[key] = replace(
                before,
                requests=before.requests + count.requests,
                callers=before.callers + count.first_requests,
            )
        return [part for part in sums.values() if part.began >= since]

    def estimate(self, windows_s: float) -> float | None:
        """Returns what `canary explain` shows: the seconds until the next step, infinite for a
        pause at the deadline, None for an unknown time.
        """
        action = decide_action(self.rollout, self.blocks, self.now)
        traffic = EstimateBasis(self.parts, windows_s)
        found = explain_rollout(self.rollout, action, self.blocks, self.now, traffic)
        is_late = found.estimate is EstimateState.NOT_IN_TIME
        return math.inf if is_late else found.eta_s

    def plan(self, failure_rate: float, windows_s: float) -> float | None:
        """Returns what `canary plan` shows: the seconds until the promotion, as above."""
        found = measure_traffic(self.parts, None, (failure_rate, True), self.now)
        if found is None:
            return None
        policy = self.rollout.policy
        steps = plan_ramp(policy, found.pace, windows_s, found.forecast)
        return math.fsum(
            math.inf if step.typical_s is None else step.typical_s for step in steps
        )


MOST_RATIO: Final = 1.5


def is_right(estimate_s: float | None, took_s: float) -> bool:
    """Tells whether an estimate is right within MOST_RATIO, or foretells a pause."""
    if estimate_s is None:
        return False
    if math.isinf(estimate_s) or math.isinf(took_s):
        return estimate_s == took_s
    # A step that ends before a person can look again needs no estimate.
    if max(estimate_s, took_s) <= SHORTEST_LOOK_S:
        return True
    return max(estimate_s, took_s) <= MOST_RATIO * min(estimate_s, took_s)


@dataclass
class CanaryRun:
    """A simulated canary. before: the look before its start.

    looks: for each step that ended, looks during the step and the seconds that it still took.
    took_s: until the promotion; inf if a step paused; None if it was rolled back.
    """

    before: Look
    looks: list[tuple[Look, float]] = field(default_factory=list)
    took_s: float | None = None


class _Traffic:
    """Counts requests by minute and router, as the routers report them."""

    def __init__(self, scene: RouteScene) -> None:
        self._histories = [CallerHistory() for _ in range(scene.routers)]
        self._open: list[list[CallerRequest]] = [[] for _ in self._histories]
        self._minute = -1
        self.minutes: list[MinuteCount] = []

    def add(self, request: CallerRequest, router: int) -> None:
        minute = int(request.at_s // 60.0)
        if minute != self._minute:
            self.close()
            self._minute = minute
        self._open[router].append(request)

    def close(self) -> None:
        at = MIDNIGHT + timedelta(minutes=self._minute)
        for number, requests in enumerate(self._open):
            if requests:
                counts = self._histories[number].count("r", "incumbent", requests, at)
                self.minutes.append(
                    MinuteCount(f"w-{number}", at, len(requests), counts.first_requests)
                )
                requests.clear()


class _Simulation:
    """One canary on its simulated clock."""

    def __init__(self, scene: RouteScene, seed: Sequence[int]) -> None:
        self.scene = scene
        self.rng = np.random.default_rng([*seed, 1])
        self.start = MIDNIGHT + timedelta(seconds=scene.starts_s)
        rule = build_exposure_rule(
            scene.policy,
            self.start,
            ledger_salt="salt",
            usual_s=1.0,
            total_timeout_s=scene.total_timeout_s,
        )
        self.ledgers = SharedLedgers(replace(rule, guardrails={}), scene.routers)
        self.ledgers.start = self.start
        self.rollout = Rollout(
            id="r",
            proposal="p",
            route="chat",
            incumbent="a",
            candidate="b",
            verdict="v",
            policy=scene.policy,
            salt="s",
            step=0,
            state=RolloutState.WAITING,
            started_at=self.start,
            step_started_at=self.start,
            updated_at=self.start,
        )
        self.buckets = self.rng.integers(0, 10_000, scene.callers + 1)
        self.traffic = _Traffic(scene)
        self.step_look: Look | None = None
        self.step_s = 0.0  # when the step began
        self.looked_for = self._draw_look()  # the share of the step's callers at the next look
        self.known_blocks = 0
        self.counted = 0  # the step's canary callers, and those with a known window
        self.known = 0
        self.due = 0  # the number of blocks at the next decision
        self.run: CanaryRun | None = None

    @property
    def now(self) -> datetime:
        return self.ledgers.at

    def _draw_look(self) -> float:
        return LATEST_LOOK * float(self.rng.random())

    def look(self) -> Look:
        blocks = list(self.ledgers.blocks)
        return Look(self.rollout, blocks, list(self.traffic.minutes), self.now)

    def simulate(self, requests: Iterator[CallerRequest]) -> CanaryRun:
        scene = self.scene
        tick_s = scene.tick_s
        for request in requests:
            router = 0 if scene.routers == 1 else int(self.rng.integers(scene.routers))
            at_s = request.at_s - scene.starts_s
            if at_s >= 0.0:
                if self.run is None:
                    self.traffic.close()
                    self.run = CanaryRun(self.look())
                while self.ledgers.now + tick_s <= at_s:
                    self.ledgers.now += tick_s
                    self.ledgers.tick()
                    if self._decide():
                        return self.run
                self._ask(request, router, at_s)
            self.traffic.add(request, router)
        raise AssertionError("requests never end")

    def _ask(self, request: CallerRequest, router: int, at_s: float) -> None:
        step = self.rollout.current
        began_s = request.began_s - self.scene.starts_s
        is_running = request.turn and began_s < self.step_s
        if is_running and at_s < self.step_s + self.rollout.policy.handover_s:
            return
        ledger: Ledger = self.ledgers.ledgers[router]
        at = self.start + timedelta(seconds=at_s)
        admitted = ledger.admit(
            request.caller,
            canary=bool(self.buckets[request.caller] < step.weight_bps),
            weight_bps=step.weight_bps,
            now=at_s,
            at=at,
            traits=SERVED,
        )
        if admitted is not None:
            failed = bool(self.rng.random() < self.scene.failure_rate)
            ledger.finish(admitted, outcome=outcome_of(failed=failed), now=at_s)

    def _count(self) -> None:
        for block in self.ledgers.blocks[self.known_blocks :]:
            if block.weight_bps == self.rollout.current.weight_bps:
                self.counted += block.canary_units
                self.known += block.late_canary_units
        self.known_blocks = len(self.ledgers.blocks)

    def _decide(self) -> bool:
        """Moves the rollout; True at its end. Deciding takes long, so it waits for callers."""
        assert self.run is not None
        rollout = self.rollout
        wanted = max(1, rollout.current.min_exposures)
        self._count()
        if self.step_look is None and self.counted >= self.looked_for * wanted:
            self.traffic.close()
            self.step_look = self.look()
        lasted_s = (self.now - rollout.step_started_at).total_seconds()
        late = lasted_s >= rollout.current.deadline_s
        known = self.known if rollout.policy.window_s else self.counted
        if not late and (min(self.counted, known) < wanted or self.known_blocks < self.due):
            return False
        for _ in range(2):
            action = decide_action(self.rollout, self.ledgers.blocks, self.now)
            match action.signal:
                case RolloutSignal.ENOUGH:
                    self.rollout = apply_signal(self.rollout, action.signal, self.now)
                case RolloutSignal.STEP_DONE | RolloutSignal.PROVEN:
                    return self._leave_step(action.signal)
                case RolloutSignal.HARM:
                    return True
                case RolloutSignal.SILENT | RolloutSignal.UNDECIDED:
                    self._keep_look(math.inf)
                    self.run.took_s = math.inf
                    return True
                case _:
                    waits = action.condition in _SLOW_CONDITIONS
                    self.due = math.ceil(1.02 * self.known_blocks) if waits else 0
                    return False
        return False

    def _keep_look(self, left_s: float) -> None:
        if self.step_look is not None and self.run is not None:
            self.run.looks.append((self.step_look, left_s))

    def _leave_step(self, signal: RolloutSignal) -> bool:
        assert self.run is not None
        if self.step_look is not None:
            self._keep_look((self.now - self.step_look.now).total_seconds())
        self.step_look = None
        self.looked_for = self._draw_look()
        self.step_s = self.ledgers.now
        if signal is RolloutSignal.PROVEN:
            self.run.took_s = self.ledgers.now
            return True
        self.rollout = apply_signal(self.rollout, signal, self.now)
        self.counted = self.known = self.due = 0
        return False


@dataclass(frozen=True)
class EstimateErrors:
    """Which estimates of a scene's canaries are right: the plan's before each canary, and one
    at a random moment of each step. Canaries that chance rolls back are left out.
    """

    plans: Sequence[bool]
    looks: Sequence[bool]


def judge_estimates(scene: RouteScene, canaries: int, seed: int) -> EstimateErrors:
    """Simulates canaries, and compares their estimates with the time that they take."""
    windows_s = scene.policy.window_s + scene.total_timeout_s
    plans: list[bool] = []
    looks: list[bool] = []
    for number in range(canaries):
        run = simulate_canary(scene, [seed, number])
        if run.took_s is None:
            continue
        plans.append(is_right(run.before.plan(scene.failure_rate, windows_s), run.took_s))
        looks += [is_right(look.estimate(windows_s), left_s) for look, left_s in run.looks]
    return EstimateErrors(plans, looks)


def simulate_canary(scene: RouteScene, seed: Sequence[int]) -> CanaryRun:
    """Simulates one canary from its start to its promotion, pause or rollback."""
    return _Simulation(scene, seed).simulate(draw_requests(scene, seed))
