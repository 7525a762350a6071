"""Does a canary blame healthy candidates as seldom as it says, and see harm as soon as it says
(statistics.md §2)? Seeded; a rate that is kept shows more than `upto` once in a thousand.
"""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from benchmarks.canary.run import SCENES
from harness.gate.online.evidence_paths import (
    counts_path,
    guardrail_path,
    ranks_path,
)
from harness.gate.online.fisher import (
    Certificate,
    add_block,
    log_certificate,
)
from harness.gate.online.guardrails import (
    FailureTally,
    Guardrail,
    Guardrails,
    MeasuredExposure,
    rank_block,
)
from harness.gate.online.observation import ObservationBlock, Segment
from harness.gate.online.rollout import build_exposure_rule
from harness.gate.online.rollout_evidence import collect_evidence
from harness.gate.policy import CanaryPolicy
from router.recording.ledger import Ledger
from tests.support.canary.cold_starts import ColdStart, rolled_back
from tests.support.canary.default_canary import (
    DEFAULT,
    TWELVE,
    detect_errors,
    exposures,
    is_rolled_back,
)
from tests.support.canary.guarded_traffic import (
    SimulatedHarm,
    Truth,
    simulate_rollout,
    simulate_traffic,
)
from tests.support.canary.outcomes import outcome_of
from tests.support.canary.segmented_traffic import (
    SegmentTruth,
    simulate_segments,
)
from tests.support.sampling import later, sampled

pytestmark = pytest.mark.req("F3")

START = datetime(2026, 1, 1, tzinfo=UTC)
SAMPLE = ("healthy, incident", "healthy, uneven callers")


def upto(rate: float, trials: int) -> float:
    return rate * trials + 3.1 * math.sqrt(rate * (1.0 - rate) * trials)


@pytest.fixture(scope="module")
def healthy() -> list[list[ObservationBlock]]:
    """A provider incident in the middle of each: both arms fail, and are slow."""
    return [
        simulate_rollout(
            SimulatedHarm(),
            TWELVE,
            blocks=300,
            rng=np.random.default_rng([43, n]),
            incident=range(100, 110),
        )
        for n in range(60)
    ]


@pytest.mark.verify
def test_all_guardrails_together_roll_back_at_most_one_in_twentyfive(
    healthy: list[list[ObservationBlock]],
) -> None:
    tripped = sum(collect_evidence(blocks, TWELVE).block is not None for blocks in healthy)
    assert tripped <= upto(TWELVE.alpha, len(healthy))


@pytest.mark.parametrize("guardrail", Guardrail)
def test_each_guardrail_alone_keeps_its_promise(
    healthy: list[list[ObservationBlock]], guardrail: Guardrail
) -> None:
    tripped = sum(
        bool((guardrail_path(blocks, guardrail, TWELVE) >= math.log(20.0)).any())
        for blocks in healthy
    )
    assert tripped <= upto(0.05, len(healthy))


@pytest.mark.parametrize(
    ("scene", "length", "rollouts"),
    [(scene, 450, 4) for scene in SAMPLE] + [later(scene, 1000, 100) for scene in SCENES],
)
def test_a_healthy_canary_is_not_blamed_for_what_hits_both_arms(
    scene: str,
    length: int,
    rollouts: int,
) -> None:
    blamed = sum(
        is_rolled_back(
            SimulatedHarm(),
            SCENES[scene],
            exposures=length,
            seed=[71, n],
        )
        for n in range(rollouts)
    )
    assert blamed <= upto(DEFAULT.alpha, rollouts)


def test_an_incident_of_both_arms_is_no_error_of_the_canary() -> None:
    found = detect_errors(
        Truth(),
        cap=1000,
        rollouts=400,
        incident=range(400, 420),
    )
    assert np.isfinite(found).sum() <= upto(0.05, 400)


@pytest.mark.parametrize(
    ("rate", "cap", "rollouts", "limits"),
    [
        (0.20, 80, 240, (17, 55)),
        (1.0, 80, 60, (3, 5)),
        later(0.05, 1500, 500, (130, 370)),
        later(0.20, 300, 1000, (15, 42)),
    ],
)
def test_failures_are_rolled_back_by_default_as_soon_as_the_benchmark_asks(
    rate: float,
    cap: int,
    rollouts: int,
    limits: tuple[int, int],
) -> None:
    found = [
        exposures(SimulatedHarm(errors=rate), cap=cap, seed=[31, n]) for n in range(rollouts)
    ]
    assert np.quantile(found, 0.5, method="higher") <= limits[0]
    assert np.quantile(found, 0.95, method="higher") <= limits[1]


@pytest.mark.parametrize(
    ("harm", "most"),
    [
        (SimulatedHarm(slower=2.0), 150),
        (SimulatedHarm(bad_json=0.8), 120),
        (SimulatedHarm(longer=3.0), 80),
    ],
    ids=["slow", "bad json", "long"],
)
def test_harm_of_each_kind_is_seen_beside_guardrails_that_see_none(
    harm: SimulatedHarm, most: int
) -> None:
    found = [
        exposures(
            harm,
            policy=TWELVE,
            cap=200,
            seed=[47, n],
        )
        for n in range(10)
    ]
    assert float(np.median(found)) <= most


@pytest.mark.verify
def test_a_slow_down_at_the_tolerated_ratio_is_no_harm() -> None:
    slower = SimulatedHarm(slower=1.25)
    found = [
        exposures(
            slower,
            policy=TWELVE,
            cap=300,
            seed=[53, n],
        )
        for n in range(30)
    ]
    assert sum(map(math.isfinite, found)) <= upto(TWELVE.alpha, 30)


@pytest.mark.parametrize("share", [0.05, later(0.25)])
def test_ranks_of_a_block_whose_latency_drifts_are_uniform_and_independent(
    share: float,
) -> None:
    """Time of day, or a queue that fills within a block, must look like nothing."""
    tripped = 0
    ranks = []
    drift = np.linspace(1.0, 6.0, 100)
    for index in range(80):
        rng = np.random.default_rng([61, index])
        blocks = []
        for number in range(40):
            values = rng.lognormal(0.0, 0.4, 100) * drift
            canary = rng.random(100) < share
            units = [
                MeasuredExposure(bool(c), float(v)) for c, v in zip(canary, values, strict=True)
            ]
            block = (f"r-{index}", "w", number)
            ranked = rank_block(
                units,
                guardrail=Guardrail.LATENCY,
                tolerated=1.0,
                block=block,
            )
            blocks.append(ranked.u)
        ranks += [u for block_ranks in blocks for u in block_ranks]
        tripped += bool((ranks_path(blocks) >= math.log(20.0)).any())
    assert tripped <= upto(0.05, 80)
    tenths = np.histogram(ranks, bins=10, range=(0.0, 1.0))[0] / len(ranks)
    assert tenths == pytest.approx([0.1] * 10, abs=0.02)


@pytest.mark.parametrize(
    ("control", "rollouts"),
    [
        (0.01, 100),
        later(0.01, 250),
        later(0.10, 250),
    ],
)
def test_a_canary_at_the_limit_of_harm_is_certified_in_at_most_one_of_twenty(
    control: float, rollouts: int
) -> None:
    """Its odds of failing are twice the incumbent's."""
    truth = Truth(
        control,
        2.0 * control / (1.0 + control),
        size=40,
        canaries=10,
    )
    certified = sum(_ever_certified(truth, index, blocks=300) for index in range(rollouts))
    assert certified <= upto(0.05, rollouts)


def test_a_healthy_canary_is_certified_within_the_planned_exposures() -> None:
    truth = Truth(
        0.001,
        0.001,
        size=40,
        canaries=10,
    )
    assert sum(_ever_certified(truth, index, blocks=120) for index in range(50)) >= 40


def _ever_certified(
    truth: Truth,
    index: int,
    blocks: int,
) -> bool:
    state = Certificate()
    rng = np.random.default_rng([29, index])
    for block in simulate_traffic(truth, blocks, rng).counts():
        counts = (
            block.units,
            block.canary,
            block.failures,
            block.canary_failures,
        )
        state = add_block(state, counts, rho_ni=2.0)
        if log_certificate(state, p0=0.01)[0] >= math.log(20.0):
            return True
    return False


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


def _quiet(
    per_minute: float | None,
    rate: float,
    seed: int,
    *,
    bursts: bool = False,
) -> float:
    """Exposures to the rollback; a block closes after a minute with those that came."""
    share = 0.05
    units = 3000
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
    over = np.flatnonzero(path >= math.log(25.0))
    return float(sums[0][: over[0] + 1].sum()) if len(over) else math.inf


@pytest.mark.parametrize(("per_s", "bps"), [(0.3, 1000), (2.0, 2500)])
@pytest.mark.parametrize("cold_s", [30.0, 600.0])
def test_a_cold_start_is_no_harm_and_a_model_that_stays_slow_is(
    per_s: float,
    bps: int,
    cold_s: float,
) -> None:
    starts = [ColdStart(per_s, bps, 3.0, cold) for cold in (cold_s, math.inf)]
    cold, slow = ([rolled_back(start, [89, n])[0] for n in range(3)] for start in starts)

    assert all(map(math.isinf, cold))
    assert all(map(math.isfinite, slow))


@pytest.mark.parametrize(
    ("speed", "candidates", "most"),
    [(3.0, 12, 2), *(later(speed, 100, 5) for speed in (0.3, 1.0, 3.0))],
)
def test_a_healthy_candidate_is_not_blamed_for_its_speed(
    speed: float,
    candidates: int,
    most: int,
) -> None:
    assert sum(_is_judged_harmful(speed, 0.05, n) for n in range(candidates)) <= most


def test_a_slow_candidate_does_not_hide_its_failures() -> None:
    assert sum(_is_judged_harmful(3.0, 0.15, n) for n in range(6)) >= 5


def _is_judged_harmful(
    speed: float,
    rate: float,
    seed: int,
) -> bool:
    """Whether errors roll a candidate back that takes `speed` times as long."""
    policy = replace(CanaryPolicy(), guardrails=Guardrails.none())
    callers = 1500
    rng = np.random.default_rng([83, seed])
    canary = rng.random(callers) < 0.25
    lasts = rng.lognormal(math.log(70.0), 0.3, (callers, 3))
    lasts *= np.where(canary, speed, 1.0)[:, None]
    failed = rng.random((callers, 3)) < np.where(canary, rate, 0.05)[:, None]
    ends = np.arange(callers)[:, None] + lasts.cumsum(axis=1)
    moments: list[tuple[float, int, int, int]] = []
    for caller, turn in np.ndindex(callers, 3):
        end = float(ends[caller, turn])
        begin = end - float(lasts[caller, turn])
        moments += [(begin, 0, caller, turn), (end, 1, caller, turn)]
    ledger = Ledger("r-1", "w-1", build_exposure_rule(policy, START))
    units = {}
    blocks = []
    for now, is_end, caller, turn in sorted(moments):
        at = START + timedelta(seconds=now)
        if not is_end:
            units[caller, turn] = ledger.admit(
                caller,
                canary=bool(canary[caller]),
                weight_bps=2500,
                now=now,
                at=at,
            )
        elif (unit := units[caller, turn]) is not None:
            outcome = outcome_of(failed=bool(failed[caller, turn]))
            ledger.finish(unit, outcome=outcome, now=now)
            blocks += ledger.tick(now, at)
    blocks += ledger.close(now, at)
    numbered = [replace(block, number=n) for n, block in enumerate(blocks, 1)]
    return collect_evidence(numbered, policy).block is not None


@pytest.mark.verify
def test_a_segment_is_named_where_the_harm_is_and_hardly_ever_elsewhere() -> None:
    policy = replace(CanaryPolicy(), guardrails=Guardrails.none(), alpha=0.05)
    named = {Segment.TOOLS: 0, None: 0}
    for index in range(40):
        for segment in named:
            rng = np.random.default_rng([14, index])
            truth = SegmentTruth(segment, canary=0.6)
            blocks = simulate_segments(truth, blocks=1500, rng=rng)
            found = collect_evidence(blocks, policy).guardrails[0].segment
            named[segment] += found is not None and found.segment is (segment or found.segment)
    assert named[Segment.TOOLS] >= 20
    assert named[None] <= upto(0.1, 40)
