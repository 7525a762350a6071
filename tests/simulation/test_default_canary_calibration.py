"""What a canary that nobody set anything of sees, misses and blames (statistics.md §2.11)."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from benchmarks.canary.run import SCENES
from harness.domain.canary.guardrails import FailureTally, Guardrails
from harness.domain.canary.rollout import build_unit_rule
from harness.domain.proposals.policy import CanaryPolicy
from harness.gate.online.evidence_paths import counts_path
from harness.gate.online.rollout_evidence import collect_evidence
from router.recording.ledger import Ledger
from tests.support.canary import default_canary
from tests.support.canary.cold_starts import ColdStart, rolled_back
from tests.support.canary.default_canary import DEFAULT, exposures, is_rolled_back
from tests.support.canary.guarded_traffic import SimulatedHarm
from tests.support.sampling import later, sampled

pytestmark = pytest.mark.req("F3")
START = datetime(2026, 1, 1, tzinfo=UTC)
HARM_AT = math.log(25.0)
SHARE = 0.25
CALLERS = 1500
SAMPLE = ("healthy, incident", "healthy, uneven callers")


def upto(rate: float, trials: int) -> float:
    """A rate that is kept shows more than this once in a thousand."""
    return rate * trials + 3.1 * math.sqrt(rate * (1.0 - rate) * trials)


@pytest.mark.parametrize(("rate", "median", "p95"), [(0.20, 14, 40), (1.0, 2, 3)])
def test_gross_harm_is_rolled_back_by_default_within_few_exposures(
    rate: float, median: float, p95: float
) -> None:
    found = [exposures(SimulatedHarm(errors=rate), cap=80, seed=[67, n]) for n in range(60)]

    assert np.median(found) <= median
    assert np.quantile(found, 0.9) <= p95


@pytest.mark.verify
@pytest.mark.parametrize(
    ("rate", "cap", "median", "p95"), [(0.05, 1500, 110, 310), (0.20, 300, 12, 34)]
)
def test_harm_is_rolled_back_by_default_as_soon_as_the_benchmark_asks(
    rate: float, cap: int, median: float, p95: float
) -> None:
    found = [
        exposures(SimulatedHarm(errors=rate), cap=cap, seed=[31, n])
        for n in range(1000 if rate > 0.1 else 500)
    ]
    assert np.quantile(found, 0.5, method="higher") <= median
    assert np.quantile(found, 0.95, method="higher") <= p95


@pytest.mark.parametrize("scene", sampled(SCENES, SAMPLE))
def test_a_healthy_canary_is_not_blamed_for_what_hits_both_arms(scene: str) -> None:
    blamed = sum(
        is_rolled_back(SimulatedHarm(), SCENES[scene], exposures=450, seed=[71, n])
        for n in range(4)
    )
    assert blamed <= upto(DEFAULT.alpha, 4)


@pytest.mark.verify
@pytest.mark.parametrize("make_scene", SCENES.values(), ids=SCENES)
def test_of_a_hundred_healthy_canaries_at_most_as_many_as_promised_are_rolled_back(
    make_scene: default_canary.SceneMaker,
) -> None:
    blamed = sum(
        is_rolled_back(SimulatedHarm(), make_scene, exposures=1000, seed=[73, n])
        for n in range(100)
    )
    assert blamed <= upto(DEFAULT.alpha, 100)


@pytest.mark.parametrize("per_minute", sampled([0.05, 0.2, 1.0, 10.0], [0.2]))
def test_a_quiet_route_needs_as_few_exposures_as_a_busy_one(per_minute: float) -> None:
    """20 % of the candidate's requests fail, 1 % of the incumbent's, at a share of 5 %."""
    busy = [_quiet(None, 0.2, n) for n in range(30)]
    quiet = [_quiet(per_minute, 0.2, n) for n in range(30)]

    assert float(np.median(quiet)) <= 1.5 * float(np.median(busy))


@pytest.mark.parametrize("per_minute", [0.05, later(1.0)])
def test_a_quiet_route_blames_nobody_for_an_incident_that_begins_and_ends(
    per_minute: float,
) -> None:
    tripped = sum(math.isfinite(_quiet(per_minute, 0.01, n, bursts=True)) for n in range(60))
    assert tripped <= upto(1.0 / 25.0, 60)


def _quiet(per_minute: float | None, rate: float, seed: int, *, bursts: bool = False) -> float:
    """Exposures to the rollback; a block closes after a minute with those that came."""
    share, units = 0.05, 3000
    rng = np.random.default_rng([79, seed])
    size = np.full(units, 100)
    if per_minute is not None:
        size = np.minimum(1 + rng.poisson(per_minute, units), 100)
    ends = np.cumsum(size)
    ends = ends[: np.searchsorted(ends, units) + 1]
    count = int(ends[-1])
    canary = rng.random(count) < share
    both = np.where(np.arange(count) % 300 < 30, 0.3, 0.01) if bursts else 0.01
    failed = rng.random(count) < (both if bursts else np.where(canary, rate, both))
    starts = np.concatenate([[0], ends[:-1]])
    sums = [np.add.reduceat(of.astype(int), starts) for of in (canary, failed, canary & failed)]
    tallies = [
        FailureTally(int(n), int(m), int(f), int(y))
        for n, m, f, y in zip(np.diff([0, *ends]), *sums, strict=True)
    ]
    path = counts_path(tallies, shares=[share] * len(tallies))
    over = np.flatnonzero(path >= HARM_AT)
    return float(sums[0][: over[0] + 1].sum()) if len(over) else math.inf


@pytest.mark.parametrize(("per_s", "bps"), [(0.3, 1000), (2.0, 2500)])
@pytest.mark.parametrize("cold_s", [30.0, 600.0])
def test_a_cold_start_is_no_harm_and_a_model_that_stays_slow_is(
    per_s: float, bps: int, cold_s: float
) -> None:
    starts = [ColdStart(per_s, bps, 3.0, cold) for cold in (cold_s, math.inf)]
    cold, slow = ([rolled_back(start, [89, n])[0] for n in range(3)] for start in starts)

    assert all(map(math.isinf, cold))
    assert all(map(math.isfinite, slow))


@pytest.mark.parametrize("speed", sampled([0.3, 1.0, 3.0], [3.0]))
def test_a_healthy_candidate_is_not_blamed_for_its_speed(speed: float) -> None:
    tripped = sum(_judged_by_ledger(CanaryPolicy(), speed, 0.05, n) for n in range(12))
    assert tripped <= upto(1.0 / 25.0, 12)


@pytest.mark.verify
@pytest.mark.parametrize("speed", [0.3, 1.0, 3.0])
def test_of_a_hundred_healthy_candidates_of_any_speed_at_most_five_are_blamed(
    speed: float,
) -> None:
    tripped = sum(_judged_by_ledger(CanaryPolicy(), speed, 0.05, n) for n in range(100))
    assert tripped <= 5


def test_a_slow_candidate_does_not_hide_its_failures() -> None:
    found = [_judged_by_ledger(CanaryPolicy(), 3.0, 0.15, n) for n in range(6)]
    assert sum(found) >= 5


def _judged_by_ledger(policy: CanaryPolicy, speed: float, rate: float, seed: int) -> bool:
    """Whether errors roll a candidate back that takes `speed` times as long. A caller comes
    each second, and asks again, twice, once the answer is there.
    """
    policy = replace(policy, guardrails=Guardrails.none())
    rng = np.random.default_rng([83, seed])
    canary = rng.random(CALLERS) < SHARE
    lasts = rng.lognormal(math.log(70.0), 0.3, (CALLERS, 3))
    lasts *= np.where(canary, speed, 1.0)[:, None]
    failed = rng.random((CALLERS, 3)) < np.where(canary, rate, 0.05)[:, None]
    ends = np.arange(CALLERS)[:, None] + lasts.cumsum(axis=1)
    moments = [
        moment
        for caller, turn in np.ndindex(CALLERS, 3)
        for moment in (
            (float(ends[caller, turn] - lasts[caller, turn]), 0, caller, turn),
            (float(ends[caller, turn]), 1, caller, turn),
        )
    ]
    ledger, units = Ledger("r-1", "w-1", build_unit_rule(policy, START)), {}
    blocks = []
    for now, is_end, caller, turn in sorted(moments):
        at = START + timedelta(seconds=now)
        if not is_end:
            units[caller, turn] = ledger.admit(
                caller, canary=bool(canary[caller]), weight_bps=2500, now=now, at=at
            )
        elif (unit := units[caller, turn]) is not None:
            ledger.finish(unit, failed=bool(failed[caller, turn]), now=now)
            blocks += ledger.tick(now, at)
    blocks += ledger.close(now, at)
    numbered = [replace(block, number=n + 1) for n, block in enumerate(blocks)]
    return collect_evidence(numbered, policy).block is not None
