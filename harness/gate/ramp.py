"""Estimates how long a canary's steps take: before it begins, and while it is live.

`estimate_canary` is the only estimate of a canary's time; the plan, `canary explain` and the
dashboard show it. No formula gives the callers that a certificate needs, so the module
simulates healthy canaries with the functions that decide. A healthy canary fails as often as
the route itself. Equal arguments give equal results.

An estimate is no promise and moves no canary. `harness.canary.duration_estimate` reads the
traffic and shows the plan.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Final

from harness.frame.formatting import add_seconds
from harness.gate.arrays import Bools, Floats, Ints, log_mean_rows, np
from harness.gate.caller_forecast import (
    DAY_S,
    EACH_REQUEST,
    CallerCurve,
    TrafficForecast,
    TrafficPart,
    count_since,
    find_time,
    fit_curve,
    forecast_hours,
    measure_pace,
)
from harness.gate.online.fisher import HEALTHY_GRID, log_factors
from harness.gate.online.observation import ObservationBlock
from harness.gate.online.rollout import Rollout
from harness.gate.online.rollout_evidence import CARRIED_SHARE, period_cost
from harness.gate.policy import CanaryPolicy
from harness.gate.step_duration import peak_reached_at

WHOLE_BPS: Final = 10_000
MIDNIGHT: Final = datetime(2026, 1, 1, tzinfo=UTC)
SEED: Final = 20_260_301
RUNS: Final = 60
# A canary not certified after this many blocks counts as never certified.
MAX_BLOCKS: Final = 3_200
FIRST_BLOCKS: Final = 200
TYPICAL_SHARE: Final = 0.5
CAUTIOUS_SHARE: Final = 0.8
# The normal distribution's quantile of CAUTIOUS_SHARE: callers draw their arm by chance.
CAUTIOUS_DEVIATIONS: Final = 0.8416
# A pace from fewer blocks is a guess.
MIN_BLOCKS: Final = 3
# So many callers weaken a comparison of the counted callers with the curve.
CURVE_PRIOR: Final = 30.0
# A block of a quiet route closes after this time (`router.recording.ledger`).
BLOCK_S: Final = 60.0
EVIDENCE_LAG: Final = math.log(6.0)
# Replaces an observed rate of 0, which does not prove a true rate of 0.
LOWEST_RATE: Final = 1e-5


@dataclass(frozen=True, slots=True)
class TrafficPace:
    """A route's traffic, for which a plan is made."""

    # Exposures of all arms per hour, at most the requests per hour.
    units_per_hour: float
    requests_per_hour: float
    failure_rate: float  # of the incumbent
    # False: units_per_hour is the rate of requests, an upper bound if callers return.
    measured: bool
    rate_measured: bool = True  # False: too few requests, so failure_rate is the policy's `p0`


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step with its estimated time.

    `floor_s` is the least time that the policy demands of it.
    """

    weight_bps: int
    min_exposures: int
    certify: bool  # whether the step also waits for a certificate
    deadline_s: float
    floor_s: float
    exposures: int | None  # canary exposures that the step needs; None if out of reach
    # Half of all healthy canaries take at most typical_s, four of five cautious_s. None: longer
    # than the deadline.
    typical_s: float | None
    cautious_s: float | None

    @property
    def in_time(self) -> bool:
        """Tells whether four of five healthy canaries pass the step before its deadline."""
        return self.cautious_s is not None and self.cautious_s <= self.deadline_s


class EstimateState(StrEnum):
    """Tells whether the time until a canary's next step is known, and else why not."""

    KNOWN = "known"
    NO_TRAFFIC = "no_traffic"  # no request in the last hour, or too few ever
    NOT_IN_TIME = "not_in_time"  # the step will pause at its deadline
    HELD = "held"  # a hold, or a condition that further callers do not meet
    PAUSED = "paused"  # a person must act
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class CanaryProgress:
    """What a live canary has reached in its current step.

    counted: canary callers of the step. canary: canary callers of all steps. lasted_s: since
    the step began. certificate: the reached share of its way (`certified_share`); None in a
    step that has not begun. windows_left_s: until the windows of the counted callers are known;
    None if the step lacks callers.
    """

    step: int = 0
    counted: int = 0
    canary: float = 0.0
    lasted_s: float = 0.0
    certificate: float | None = None
    windows_left_s: float | None = None


NOT_BEGUN: Final = CanaryProgress()


@dataclass(frozen=True, slots=True)
class StepTimes:
    """The moments at which a step's conditions are met, in seconds from now; infinite if that
    is not before the step's deadline.
    """

    begins_s: float
    callers_s: float
    windows_s: float
    floor_s: float
    certificate_s: float

    @property
    def ends_s(self) -> float:
        return max(self.callers_s, self.windows_s, self.floor_s, self.certificate_s)


@dataclass(frozen=True, slots=True)
class CanaryModel:
    """What an estimate rests on. windows_s: how long after a caller's first request its window
    is known. share: of the healthy canaries that need at most the estimated time.
    """

    policy: CanaryPolicy
    forecast: TrafficForecast
    failure_rate: float  # of the incumbent
    windows_s: float = 0.0
    share: float = TYPICAL_SHARE


def estimate_canary(
    model: CanaryModel, progress: CanaryProgress = NOT_BEGUN
) -> tuple[StepTimes, ...]:
    """Estimates the times of a canary's current and later steps, before it begins and at any
    moment. A step that is not in time is the last one: the canary pauses there.
    """
    times: list[StepTimes] = []
    begins_s = 0.0
    for _ in model.policy.steps[progress.step :]:
        step_times = estimate_step(model, progress, begins_s)
        times.append(step_times)
        ends_s = step_times.ends_s
        if not math.isfinite(ends_s):
            break
        forecast = model.forecast
        met = forecast.callers_until(ends_s) - forecast.callers_until(begins_s)
        weight = model.policy.steps[progress.step].weight_bps / WHOLE_BPS
        progress = CanaryProgress(progress.step + 1, canary=progress.canary + met * weight)
        begins_s = ends_s
    return tuple(times)


def estimate_step(model: CanaryModel, progress: CanaryProgress, begins_s: float) -> StepTimes:
    """Estimates one step.

    Args:
        begins_s: its beginning in seconds from now; 0 for the current step.
    """
    policy = model.policy
    forecast = model.forecast
    step = policy.steps[progress.step]
    weight = step.weight_bps / WHOLE_BPS
    most_s = begins_s + max(0.0, step.deadline_s - progress.lasted_s)
    missing: float = max(0, max(1, step.min_exposures) - progress.counted)
    if model.share > TYPICAL_SHARE:
        missing += CAUTIOUS_DEVIATIONS * math.sqrt(missing)
    met = forecast.callers_until(begins_s)
    callers_s = find_time(
        lambda at_s: (forecast.callers_until(at_s) - met) * weight >= missing, begins_s, most_s
    )
    windows_s = begins_s
    if model.windows_s and progress.windows_left_s is not None:
        windows_s = begins_s + progress.windows_left_s
    elif model.windows_s:
        windows_s = callers_s + model.windows_s + _half_block_s(policy, forecast, callers_s)
    began = add_seconds(forecast.now, begins_s - progress.lasted_s)
    floor_s = step.min_s
    if step.min_peak_s:
        peak_at = peak_reached_at(policy.peak, began, step.min_peak_s)
        floor_s = max(floor_s, (peak_at - began).total_seconds())
    certificate_s = begins_s
    if step.certify:
        certificate_s = _certified_s(model, progress, begins_s, most_s)
    return StepTimes(
        begins_s,
        callers_s,
        windows_s if windows_s <= most_s else math.inf,
        max(begins_s, begins_s - progress.lasted_s + floor_s),
        certificate_s,
    )


def _half_block_s(policy: CanaryPolicy, forecast: TrafficForecast, at_s: float) -> float:
    """Returns half of a block's time: so long a counted caller waits for the block's end."""
    if not math.isfinite(at_s):
        return 0.0
    callers = forecast.callers_until(at_s + BLOCK_S) - forecast.callers_until(at_s)
    return BLOCK_S / 2.0 * min(1.0, policy.block_size / max(callers, 1.0))


def _certified_s(
    model: CanaryModel, progress: CanaryProgress, begins_s: float, most_s: float
) -> float:
    """Returns when a healthy canary is certified, in seconds from now; infinite for never.

    Callers who are new to the rollout are evidence over all its periods. Each period has
    evidence of its own besides, for which later periods need more callers.
    """
    policy = model.policy
    forecast = model.forecast
    step = policy.steps[progress.step]
    weight = step.weight_bps / WHOLE_BPS
    wanted = count_certifying(policy, step.weight_bps, model.failure_rate, model.share)
    reached = progress.certificate
    if reached == 1.0:
        return begins_s
    whole = 0.0 if reached is None else wanted * (1.0 - reached)
    if reached is None or forecast.period(0.0) == 1:
        whole = max(whole, wanted - progress.canary)
    new = forecast.new_callers_until(begins_s)
    first = forecast.period(begins_s)
    limit = math.log(policy.certificate)

    def in_period(at_s: float) -> bool:
        """Tells whether the evidence of the period of this moment certifies."""
        period = forecast.period(at_s)
        if period == 1:
            return False
        cost = (limit + period_cost(period)) / (limit - math.log(CARRIED_SHARE))
        left = 1.0 - (reached or 0.0) if period == first else 1.0
        return forecast.period_callers(begins_s, at_s) * weight >= wanted * cost * left

    def is_certified(at_s: float) -> bool:
        if (forecast.new_callers_until(at_s) - new) * weight >= whole:
            return True
        # A period's evidence is lost at its end, so only the first two ends can come first.
        ends_s = [forecast.period_ends_s(begins_s, number) for number in (0, 1)]
        return any(in_period(moment_s) for moment_s in (at_s, *ends_s) if moment_s <= at_s)

    return find_time(is_certified, begins_s, most_s)


def certified_share(log_certificate: float, limit: float) -> float:
    """Returns which share of the way to the certificate is done, from 0 to 1.

    Args:
        log_certificate: natural logarithm.
        limit: natural logarithm.

    The certificate is the mean of two kinds of evidence, and one kind is itself a mean of
    three. One of these six grows like an exponential, so the mean's logarithm lies below its
    line by EVIDENCE_LAG.
    """
    share = (max(0.0, log_certificate) + EVIDENCE_LAG) / (limit + EVIDENCE_LAG)
    return min(1.0, share)


def count_certifying(
    policy: CanaryPolicy, weight_bps: int, failure_rate: float, share: float
) -> float:
    """Counts the canary callers after which `share` of the healthy canaries are certified in
    the first period; infinite if MAX_BLOCKS blocks are too few.

    Args:
        share: TYPICAL_SHARE or CAUTIOUS_SHARE.
    """
    size, canary = block_size(policy, weight_bps)
    rate = float(f"{max(failure_rate, LOWEST_RATE):.2g}")
    terms = (policy.rho_ni, policy.p0, policy.certificate)
    typical, cautious = simulate_crossings(size, canary, rate, terms)
    return canary * (cautious if share > TYPICAL_SHARE else typical)


def forecast_pace(pace: TrafficPace, now: datetime = MIDNIGHT) -> TrafficForecast:
    """Returns a steady forecast, in which every caller comes with all requests at once."""
    turns = pace.requests_per_hour / pace.units_per_hour
    hourly = (pace.requests_per_hour,) * 24
    return TrafficForecast(now, hourly, CallerCurve(turns=turns), began=now)


def forecast_rollout(
    rollout: Rollout,
    blocks: Sequence[ObservationBlock],
    parts: Sequence[TrafficPart],
    now: datetime,
) -> TrafficForecast | None:
    """Forecasts the callers of a live rollout; None without a request in the last hour.

    The callers that the rollout has counted correct the curve. Without traffic, the blocks
    stand for it: their callers are the requests.
    """
    began = rollout.started_at
    if not parts:
        own = [TrafficPart(b.worker, b.opened_at, b.units, b.units) for b in blocks if b.units]
        pace = measure_pace(own, now) if len(own) >= MIN_BLOCKS else None
        if pace is None:
            return None
        return TrafficForecast(now, forecast_hours(own, pace, now), EACH_REQUEST, began)
    pace = measure_pace(parts, now)
    if pace is None:
        return None
    age_s = max(0.0, (now - began).total_seconds())
    period = 1 + int(age_s // DAY_S)
    begins = add_seconds(began, (period - 1) * DAY_S)
    counted = sum(block.units for block in blocks if block.period == period)
    seen = sum(_count_never_seen(block) for block in blocks)
    requests = count_since(parts, begins, now)
    curve = fit_curve(parts) or EACH_REQUEST
    times = (counted + CURVE_PRIOR) / (curve.count(requests) + CURVE_PRIOR)
    curve = CallerCurve(curve.pool * times, curve.turns / times)
    hourly = forecast_hours(parts, pace, now)
    return TrafficForecast(now, hourly, curve, began, counted, seen)


def _count_never_seen(block: ObservationBlock) -> int:
    """Returns the block's callers who are new to the rollout."""
    if block.late_of:
        return 0
    if block.never_seen is not None:
        return block.never_seen.units
    return block.units if block.period == 1 else 0


def plan_ramp(
    policy: CanaryPolicy,
    pace: TrafficPace,
    windows_s: float = 0.0,
    forecast: TrafficForecast | None = None,
) -> tuple[StepPlan, ...]:
    """Plans each step from its typical start time.

    Args:
        windows_s: how long after a caller's first request its window is known, in seconds.
        forecast: None for the steady `pace`.
    """
    forecast = forecast or forecast_pace(pace)
    typical = CanaryModel(policy, forecast, pace.failure_rate, windows_s)
    cautious = replace(typical, share=CAUTIOUS_SHARE)
    plans: list[StepPlan] = []
    begins_s = canary = 0.0
    for number, step in enumerate(policy.steps):
        progress = CanaryProgress(number, canary=canary)
        ends_s = estimate_step(typical, progress, begins_s).ends_s
        late_s = estimate_step(cautious, progress, begins_s).ends_s
        is_known = math.isfinite(ends_s)
        until_s = ends_s if is_known else begins_s + step.deadline_s
        callers = forecast.callers_until(until_s) - forecast.callers_until(begins_s)
        met = callers * step.weight_bps / WHOLE_BPS
        plans.append(
            StepPlan(
                weight_bps=step.weight_bps,
                min_exposures=step.min_exposures,
                certify=step.certify,
                deadline_s=step.deadline_s,
                floor_s=max(step.min_s, step.min_peak_s),
                exposures=math.ceil(met) if is_known else None,
                typical_s=ends_s - begins_s if is_known else None,
                cautious_s=late_s - begins_s if math.isfinite(late_s) else None,
            )
        )
        canary += met
        begins_s = until_s
    return tuple(plans)


def block_size(policy: CanaryPolicy, weight_bps: int) -> tuple[int, int]:
    """Returns the exposures and canary exposures of a block that has at least one canary
    exposure.
    """
    size = max(policy.block_size, math.ceil(10_000 / weight_bps))
    return size, max(1, round(size * weight_bps / 10_000))


@lru_cache(maxsize=256)
def simulate_crossings(
    size: int, canary: int, rate: float, terms: tuple[float, float, float]
) -> tuple[float, float]:
    """Returns the blocks until half, and until four of five, of RUNS simulated canaries are
    certified.

    Args:
        terms: rho_ni, p0 and the certificate's level.
    """
    rho_ni, p0, level = terms
    limit = math.log(level) - math.log(CARRIED_SHARE)
    blocks = FIRST_BLOCKS
    while True:
        chance = np.random.default_rng(SEED)
        theirs = chance.binomial(canary, rate, (RUNS, blocks))
        ours = chance.binomial(size - canary, rate, (RUNS, blocks))
        logs = np.logaddexp(
            _compute_odds_evidence(ours, theirs, (size, canary, rho_ni)),
            _compute_rate_evidence(theirs, (canary, p0)),
        ) - math.log(2.0)
        over = logs >= limit
        first = _find_crossings(logs, over, limit)
        ranks = [math.ceil(RUNS * share) - 1 for share in (TYPICAL_SHARE, CAUTIOUS_SHARE)]
        typical, cautious = np.sort(first)[ranks]
        if math.isfinite(cautious) or blocks >= MAX_BLOCKS:
            return float(typical), float(cautious)
        blocks *= 4


def _find_crossings(logs: Floats, over: Bools, limit: float) -> Floats:
    """Returns the blocks until each run is first over the limit, interpolated in the last one;
    infinite for never.
    """
    rows = np.arange(len(logs))
    last = over.argmax(axis=1)
    after = logs[rows, last]
    before = np.where(last > 0, logs[rows, last - 1], 0.0)
    part = (limit - before) / np.maximum(after - before, 1e-9)
    return np.where(over.any(axis=1), last + np.clip(part, 0.0, 1.0), math.inf)


def _compute_odds_evidence(
    ours: Ints,
    theirs: Ints,
    block: tuple[int, int, float],
) -> Floats:
    """Computes `fisher.log_odds_e` for all runs at once, by run and block."""
    size, canary, rho_ni = block
    odds = (rho_ni, *HEALTHY_GRID)
    pairs, places = np.unique(
        np.stack([(ours + theirs).ravel(), theirs.ravel()]),
        axis=1,
        return_inverse=True,
    )
    table = np.array([log_factors(size, canary, int(f), int(y), odds=odds) for f, y in pairs.T])
    factors = table[np.ravel(places)].reshape(*ours.shape, len(HEALTHY_GRID))
    return log_mean_rows(
        [np.cumsum(factors[:, :, k], axis=1) for k in range(len(HEALTHY_GRID))]
    )


def _compute_rate_evidence(
    theirs: Ints,
    terms: tuple[int, float],
) -> Floats:
    """Computes `fisher.log_rate_e` for all runs at once."""
    canary, p0 = terms
    failed = np.cumsum(theirs.astype(float), axis=1)
    clean = np.cumsum((canary - theirs).astype(float), axis=1)
    never = np.where(failed > 0, -math.inf, -clean * math.log1p(-p0))
    some = [
        failed * math.log(p1 / p0) + clean * (math.log1p(-p1) - math.log1p(-p0))
        for p1 in (p0 / 4.0, p0 / 2.0)
    ]
    return log_mean_rows([never, *some])
