"""Errors within segments: do they roll a healthy canary back no more often than promised, and
find what hides in a tenth of the traffic? Seeded; `verify` has the large run.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from harness.domain.canary.guardrails import Guardrails
from harness.domain.canary.segments import Segment
from harness.domain.proposals.policy import new_canary_policy
from harness.gate.online.rollout_evidence import collect_evidence
from tests.support.canary.segmented_traffic import (
    SegmentTruth,
    segment_exposures,
    simulate_segments,
)

pytestmark = pytest.mark.req("F3")
# All of the segments' weight, and errors alone: where a false rollback is likeliest.
POLICY = replace(new_canary_policy(), guardrails=Guardrails.none(), alpha=0.05)
HALF = replace(POLICY, segment_share=0.5)
HARD = SegmentTruth(hard={Segment.TOOLS: 0.1, Segment.KEY_1: 0.05})


def upto(rate: float, trials: int) -> float:
    return rate + 3.0 * math.sqrt(rate * (1.0 - rate) / trials)


def rolled_back(truth: SegmentTruth, *, share: float, blocks: int, rollouts: int) -> float:
    found = []
    for index in range(rollouts):
        rng = np.random.default_rng([13, index])
        simulated = simulate_segments(truth, blocks=blocks, rng=rng, share=share)
        found.append(collect_evidence(simulated, HALF).block is not None)
    return float(np.mean(found))


@pytest.mark.parametrize("share", [0.01, 0.25])
@pytest.mark.parametrize("truth", [SegmentTruth(), HARD], ids=["alike", "hard segments"])
def test_a_healthy_canary_is_rolled_back_in_at_most_one_of_twenty(
    truth: SegmentTruth, share: float
) -> None:
    found = rolled_back(truth, share=share, blocks=100, rollouts=40)
    assert found <= upto(0.05, 40)


@pytest.mark.verify
@pytest.mark.parametrize("share", [0.01, 0.05, 0.25])
@pytest.mark.parametrize("truth", [SegmentTruth(), HARD], ids=["alike", "hard segments"])
def test_a_healthy_canary_stays_over_many_blocks(truth: SegmentTruth, share: float) -> None:
    found = rolled_back(truth, share=share, blocks=600, rollouts=300)
    assert found <= upto(0.05, 300)


def exposures(truth: SegmentTruth, *, cap: int, rollouts: int, share: float) -> Sequence[float]:
    policy = replace(POLICY, segment_share=share)
    return [
        segment_exposures(truth, policy, cap=cap, seed=[13, index]) for index in range(rollouts)
    ]


@pytest.mark.verify
@pytest.mark.parametrize(("rate", "cap"), [(0.2, 1200), (0.5, 500), (1.0, 250)])
def test_harm_in_a_tenth_takes_at_most_three_times_the_exposures_there(
    rate: float, cap: int
) -> None:
    general = exposures(SegmentTruth(canary=rate), cap=cap, rollouts=60, share=0.1)
    hidden = exposures(
        SegmentTruth(Segment.TOOLS, canary=rate), cap=cap, rollouts=60, share=0.1
    )

    assert np.median(hidden) <= 3.0 * np.median(general)
    assert np.quantile(hidden, 0.95) <= 3.0 * np.quantile(general, 0.95)


def test_harm_in_a_tenth_is_found_sooner_than_without_segments() -> None:
    truth = SegmentTruth(Segment.TOOLS, canary=0.2)
    with_them, without = (
        np.median(exposures(truth, cap=700, rollouts=12, share=share)) for share in (0.1, 0.0)
    )
    assert with_them < without


def test_a_segment_is_named_where_the_harm_is_and_hardly_ever_elsewhere() -> None:
    named = {Segment.TOOLS: 0, None: 0}
    for index in range(40):
        for segment in named:
            truth = SegmentTruth(segment, canary=0.6)
            rng = np.random.default_rng([14, index])
            blocks = simulate_segments(truth, blocks=300, rng=rng)
            errors = collect_evidence(blocks, POLICY).guardrails[0]
            if segment is None:
                named[None] += errors.segment is not None
            elif errors.segment is not None:
                named[segment] += errors.segment.segment is segment
    assert named[Segment.TOOLS] >= 20
    assert named[None] / 40 <= upto(0.1, 40)
