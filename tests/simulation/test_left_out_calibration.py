"""Do left-out shares hold a step only if the arms' differ, and does the guardrail of limits see
a limited candidate only beyond its margin (statistics.md §2.16, §2.17)? Seeded.
"""

import math

import numpy as np
import pytest

from harness.gate.online.guardrails import Guardrail
from harness.gate.online.left_out import (
    ExclusionCause,
    left_out_exposures,
    left_out_path,
    log_e_limit,
)
from harness.gate.online.rollout_evidence import (
    CanaryEvidence,
    collect_evidence,
)
from harness.gate.policy import CanaryPolicy
from tests.support.canary.left_out_traffic import (
    ArmTruth,
    LeftOutScene,
    simulate_left_out,
)
from tests.support.sampling import sampled

pytestmark = pytest.mark.req("F3")

POLICY = CanaryPolicy()
TENTH = ArmTruth(early=0.10)
FIFTH = ArmTruth(early=0.20)


def exposures_until_fired(
    scene: LeftOutScene,
    reason: ExclusionCause,
    *,
    cap: int,
    seed: int,
    place: int = 1,
) -> float:
    """Exposures until the test of a reason fires.

    Args:
        place: see `log_e_limit`.
    """
    rng = np.random.default_rng([69, seed])
    blocks = simulate_left_out(scene, blocks=round(cap / (scene.share * scene.size)), rng=rng)
    path = left_out_path([(block, left_out_exposures(block, reason)) for block in blocks])
    over = np.flatnonzero(path >= log_e_limit(1, place))
    return sum(block.canary_units for block in blocks[: over[0] + 1]) if len(over) else math.inf


def evidence_of(
    scene: LeftOutScene,
    *,
    exposures: int,
    seed: int,
) -> CanaryEvidence:
    rng = np.random.default_rng([70, seed])
    number = round(exposures / (scene.share * scene.size))
    return collect_evidence(simulate_left_out(scene, blocks=number, rng=rng), POLICY)


@pytest.mark.parametrize("share", sampled((0.05, 0.25), (0.25,)))
def test_twice_as_many_left_out_are_found_within_350_exposures(share: float) -> None:
    scene = LeftOutScene(FIFTH, TENTH, share=share)
    found = [
        exposures_until_fired(
            scene,
            ExclusionCause.EARLY,
            cap=1_000,
            seed=seed,
        )
        for seed in range(20)
    ]
    assert np.median(found) <= 350


@pytest.mark.parametrize("trials", [10, pytest.param(300, marks=pytest.mark.verify)])
def test_equal_shares_fire_no_test(trials: int) -> None:
    truth = ArmTruth(limited=0.05, early=0.10, fallback=0.03)
    scene = LeftOutScene(truth, truth)
    assert not any(
        math.isfinite(
            exposures_until_fired(
                scene,
                reason,
                cap=2_000,
                seed=seed,
                place=place,
            )
        )
        for seed in range(trials)
        for place, reason in enumerate(
            (
                ExclusionCause.EARLY,
                ExclusionCause.LIMITED,
                ExclusionCause.FALLBACK,
            ),
            1,
        )
    )


FALSE = {
    "the incumbent is limited, small canary": LeftOutScene(
        ArmTruth(0.05), ArmTruth(0.05, limited=0.30), share=0.05
    ),
    "the incumbent is limited": LeftOutScene(ArmTruth(0.05), ArmTruth(0.05, limited=0.30)),
    "the canary is limited within the margin": LeftOutScene(
        ArmTruth(0.05, limited=0.09), ArmTruth(0.05)
    ),
    "both are limited in bursts": LeftOutScene(ArmTruth(), burst=0.02),
    "small blocks": LeftOutScene(
        ArmTruth(0.05),
        ArmTruth(0.05, limited=0.30),
        share=0.05,
        size=10,
    ),
}


@pytest.mark.parametrize("name", sampled(FALSE, ("the incumbent is limited",)))
def test_equal_models_of_which_one_is_limited_are_rarely_rolled_back(name: str) -> None:
    trials = 20
    rolled = sum(
        evidence_of(FALSE[name], exposures=600, seed=seed).block is not None
        for seed in range(trials)
    )
    # A rate of .05 shows more once in a thousand.
    assert rolled <= 0.05 * trials + 3.1 * math.sqrt(0.05 * 0.95 * trials)


@pytest.mark.parametrize("share", sampled((0.01, 0.05, 0.25), (0.25,)))
def test_thirty_percent_limited_are_rolled_back_and_two_go_on(share: float) -> None:
    harmful = LeftOutScene(ArmTruth(limited=0.30), share=share)
    found = [evidence_of(harmful, exposures=400, seed=seed) for seed in range(10)]
    assert {evidence.tripped for evidence in found} == {Guardrail.LIMITS}
    assert np.median([evidence.exposures for evidence in found]) <= 150

    shown = evidence_of(
        LeftOutScene(ArmTruth(limited=0.02), share=share),
        exposures=1_000,
        seed=1,
    )
    limits = next(one for one in shown.guardrails if one.guardrail is Guardrail.LIMITS)
    assert shown.block is None
    assert 5 <= limits.canary_failures <= 40
