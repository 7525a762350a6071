"""The ramp plan estimates how long a canary's steps take at a route's traffic.

`plan_ramp` returns each step's exposures, typical and cautious time. No formula gives the time
to certify, so the module simulates healthy canaries with the functions that decide. A healthy
canary fails as often as the route itself. Equal arguments give equal results.

A plan is no promise and moves no canary. `harness.canary.duration_estimate` measures the pace
and shows the plan.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from harness.gate.arrays import Floats, Ints, log_mean_rows, np
from harness.gate.online.fisher import HEALTHY_GRID, log_factors
from harness.gate.online.rollout_evidence import CARRIED_SHARE
from harness.gate.policy import CanaryPolicy, CanaryStep

DAY_S: Final = 86_400.0
SEED: Final = 20_260_301
RUNS: Final = 60
# A canary not certified after this many blocks counts as never certified.
MAX_BLOCKS: Final = 3_000
CAUTIOUS_SHARE: Final = 0.8
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


def plan_ramp(
    policy: CanaryPolicy, pace: TrafficPace, windows_s: float = 0.0
) -> tuple[StepPlan, ...]:
    """Plans each step from its typical start time: evidence restarts each day.

    windows_s: how long after a caller's first request its window is known, in seconds.
    """
    plans: list[StepPlan] = []
    spent_s = 0.0
    for step in policy.steps:
        planned = plan_step(policy, step, pace, spent_s, windows_s)
        plans.append(planned)
        spent_s += planned.typical_s if planned.typical_s is not None else step.deadline_s
    return tuple(plans)


def plan_step(
    policy: CanaryPolicy,
    step: CanaryStep,
    pace: TrafficPace,
    began_s: float,
    windows_s: float,
) -> StepPlan:
    """Plans one step. began_s: seconds from the rollout's start to the step's. Ignores the
    evidence of earlier steps, so the plan may be too long, but never too short. windows_s: see
    `plan_ramp`.
    """
    per_second = pace.units_per_hour / 3600.0
    share = step.weight_bps / 10_000
    floor = max(step.min_s, step.min_peak_s)
    least = math.inf
    if per_second > 0:
        reached_s = max(1, step.min_exposures) / (share * per_second)
        least = max(floor, reached_s + windows_s)
    typical = cautious = least
    exposures: int | None = step.min_exposures
    if step.certify and per_second > 0:
        half, most = certification_times(
            policy,
            step,
            pace,
            began_s,
        )
        typical = max(least, half)
        cautious = max(least, most)
        exposures = math.ceil(typical * per_second * share) if math.isfinite(typical) else None
    return StepPlan(
        weight_bps=step.weight_bps,
        min_exposures=step.min_exposures,
        certify=step.certify,
        deadline_s=step.deadline_s,
        floor_s=floor,
        exposures=exposures,
        typical_s=typical if math.isfinite(typical) else None,
        cautious_s=cautious if math.isfinite(cautious) else None,
    )


def certification_times(
    policy: CanaryPolicy,
    step: CanaryStep,
    pace: TrafficPace,
    began_s: float,
) -> tuple[float, float]:
    """Returns the seconds until half, and until four of five, of healthy canaries are
    certified.

    Infinite if it takes longer than the step's deadline, or than MAX_BLOCKS.
    """
    size, canary = block_size(policy, step.weight_bps)
    block_s = size / (pace.units_per_hour / 3600.0)
    blocks = min(MAX_BLOCKS, max(1, int(step.deadline_s / block_s)))
    rate = round(max(pace.failure_rate, LOWEST_RATE), 5)
    needed = simulate_crossings(
        size,
        canary,
        rate,
        blocks,
        block_s,
        began_s,
        (policy.rho_ni, policy.p0, policy.certificate),
    )
    return needed[0] * block_s, needed[1] * block_s


def block_size(policy: CanaryPolicy, weight_bps: int) -> tuple[int, int]:
    """Returns the exposures and canary exposures of a block that has at least one canary
    exposure.
    """
    size = max(policy.block_size, math.ceil(10_000 / weight_bps))
    return size, max(1, round(size * weight_bps / 10_000))


@lru_cache(maxsize=256)
def simulate_crossings(
    size: int,
    canary: int,
    rate: float,
    blocks: int,
    block_s: float,
    began_s: float,
    terms: tuple[float, float, float],
) -> tuple[float, float]:
    """Returns the blocks until half, and until four of five, of RUNS simulated canaries are
    certified.

    block_s: duration of a block in seconds. terms: rho_ni, p0 and the certificate's level. The
    simulation assumes that all callers return each day: others would add evidence over all
    days, but their number is unknown.
    """
    rho_ni, p0, level = terms
    chance = np.random.default_rng(SEED)
    theirs = chance.binomial(canary, rate, (RUNS, blocks))
    ours = chance.binomial(size - canary, rate, (RUNS, blocks))
    day = ((began_s + block_s * np.arange(blocks)) // DAY_S).astype(int)
    rest = 2.0 * (1.0 - CARRIED_SHARE) / ((day + 1.0) * (day + 2.0))
    limit = math.log(level) - np.log(np.where(day, rest, CARRIED_SHARE))
    logs = np.logaddexp(
        _compute_odds_evidence(ours, theirs, day, (size, canary, rho_ni)),
        _compute_rate_evidence(theirs, day, (canary, p0)),
    ) - math.log(2.0)
    over = logs >= limit
    first = np.where(over.any(axis=1), over.argmax(axis=1) + 1.0, math.inf)
    typical, cautious = np.sort(first)[[math.ceil(RUNS * q) - 1 for q in (0.5, CAUTIOUS_SHARE)]]
    return float(typical), float(cautious)


def _compute_odds_evidence(
    ours: Ints,
    theirs: Ints,
    day: Ints,
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
        [_sum_within_days(factors[:, :, k], day) for k in range(len(HEALTHY_GRID))]
    )


def _compute_rate_evidence(
    theirs: Ints,
    day: Ints,
    terms: tuple[int, float],
) -> Floats:
    """Computes `fisher.log_rate_e` for all runs at once."""
    canary, p0 = terms
    failed = _sum_within_days(theirs.astype(float), day)
    clean = _sum_within_days((canary - theirs).astype(float), day)
    never = np.where(failed > 0, -math.inf, -clean * math.log1p(-p0))
    some = [
        failed * math.log(p1 / p0) + clean * (math.log1p(-p1) - math.log1p(-p0))
        for p1 in (p0 / 4.0, p0 / 2.0)
    ]
    return log_mean_rows([never, *some])


def _sum_within_days(factors: Floats, day: Ints) -> Floats:
    """Computes running sums that start again each day."""
    total = np.cumsum(factors, axis=1)
    starts = np.searchsorted(day, day)
    before = np.concatenate([np.zeros((len(total), 1)), total], axis=1)
    return np.asarray(total - before[:, starts], dtype=np.float64)
