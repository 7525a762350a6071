"""All guardrails of a rollout together, and each alone, err as seldom as promised. Seeded."""

import math
from dataclasses import replace

import numpy as np
import pytest

from harness.domain.canary.guardrails import FailureTally, Guardrail
from harness.domain.canary.observation import ObservationBlock
from harness.domain.canary.ranking import MeasuredUnit, rank_block
from harness.gate.online.evidence_paths import counts_path, guardrail_path, ranks_path
from harness.gate.online.rollout_evidence import collect_evidence
from tests.support.canary.detection import EVERYTHING, detect_harm
from tests.support.canary.guarded_traffic import SimulatedHarm, simulate_rollout
from tests.support.sampling import later

pytestmark = pytest.mark.req("F3")

HARM_AT = math.log(20.0)


def upto(rate: float, trials: int) -> float:
    """A rate that is kept shows more than this once in a thousand."""
    return rate * trials + 3.1 * math.sqrt(rate * (1.0 - rate) * trials)


@pytest.fixture(scope="module")
def healthy() -> list[list[ObservationBlock]]:
    """A provider incident in the middle of each: both arms fail, and are slow."""
    return [
        simulate_rollout(
            SimulatedHarm(), EVERYTHING, blocks=300, rng=np.random.default_rng([43, n]),
            incident=range(100, 110),
        )
        for n in range(60)
    ]  # fmt: skip


def test_all_together_and_an_incident_roll_back_at_most_one_in_twentyfive(
    healthy: list[list[ObservationBlock]],
) -> None:
    tripped = sum(collect_evidence(blocks, EVERYTHING).block is not None for blocks in healthy)
    assert tripped <= upto(EVERYTHING.alpha, len(healthy))


@pytest.mark.parametrize("guardrail", Guardrail)
def test_each_alone_keeps_its_promise(
    healthy: list[list[ObservationBlock]], guardrail: Guardrail
) -> None:
    tripped = sum(
        bool((guardrail_path(blocks, guardrail, EVERYTHING) >= HARM_AT).any())
        for blocks in healthy
    )
    assert tripped <= upto(0.05, len(healthy))


@pytest.mark.parametrize(
    ("harm", "exposures"),
    [
        (SimulatedHarm(slower=2.0), 150),
        (SimulatedHarm(errors=0.5), 30),
        (SimulatedHarm(bad_json=0.8), 120),
        (SimulatedHarm(longer=3.0), 80),
    ],
    ids=["slow", "failing", "bad json", "long"],
)
def test_harm_of_each_kind_is_seen_beside_guardrails_that_see_none(
    harm: SimulatedHarm, exposures: int
) -> None:
    found = [detect_harm(harm, cap=200, seed=[47, n]) for n in range(10)]
    assert float(np.median(found)) <= exposures


def test_a_slow_down_at_the_tolerated_ratio_is_no_harm() -> None:
    found = [detect_harm(SimulatedHarm(slower=1.25), cap=300, seed=[53, n]) for n in range(30)]
    assert sum(map(math.isfinite, found)) <= upto(EVERYTHING.alpha, 30)


def test_keys_that_send_much_and_fail_much_roll_back_no_more_often() -> None:
    """Units are a key's first session: a heavy key counts once, in whichever arm it is."""
    tripped = 0
    for index in range(200):
        rng = np.random.default_rng([59, index])
        # 2,000 keys; the heavy ones come first and fail up to ten times as often.
        rate = np.sort(rng.beta(0.3, 8.0, 2000))[::-1]
        canary = rng.random(2000) < 0.05
        failed = rng.random(2000) < rate
        tallies = [
            FailureTally(
                100,
                int(canary[at : at + 100].sum()),
                int(failed[at : at + 100].sum()),
                int((canary & failed)[at : at + 100].sum()),
            )
            for at in range(0, 2000, 100)
        ]
        tripped += bool((counts_path(tallies) >= HARM_AT).any())
    assert tripped <= upto(0.05, 200)


@pytest.mark.parametrize("share", [0.05, later(0.25)])
def test_ranks_of_a_block_whose_latency_drifts_are_uniform_and_independent(
    share: float,
) -> None:
    """Time of day, or a queue that fills within a block, must look like nothing."""
    tripped, ranks = 0, []
    drift = np.linspace(1.0, 6.0, 100)
    for index in range(80):
        rng = np.random.default_rng([61, index])
        blocks = []
        for number in range(40):
            values = rng.lognormal(0.0, 0.4, 100) * drift
            canary = rng.random(100) < share
            units = [
                MeasuredUnit(bool(c), float(v)) for c, v in zip(canary, values, strict=True)
            ]
            block_ranks = rank_block(
                units,
                guardrail=Guardrail.LATENCY,
                tolerated=1.0,
                block=(f"r-{index}", "w", number),
            )
            blocks.append(block_ranks.u)
        ranks += [u for block in blocks for u in block]
        tripped += bool((ranks_path(blocks) >= HARM_AT).any())
    assert tripped <= upto(0.05, 80)
    tenths = np.histogram(ranks, bins=10, range=(0.0, 1.0))[0] / len(ranks)
    assert tenths == pytest.approx([0.1] * 10, abs=0.02)


def test_a_rollout_of_three_days_keeps_its_alpha_over_all_of_them(
    healthy: list[list[ObservationBlock]],
) -> None:
    """The same keys, with the same arms and the same luck, on every day: fully dependent."""
    policy = replace(EVERYTHING, alpha=0.05)
    tripped = 0
    for blocks in healthy:
        days = [
            replace(block, period=day, number=block.number + 1000 * day)
            for day in (1, 2, 3)
            for block in blocks[:100]
        ]
        tripped += collect_evidence(days, policy).block is not None
    assert tripped <= upto(0.05, len(healthy))
