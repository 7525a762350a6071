"""Is the segment that carries a rollback's harm named, and hardly ever another? Seeded."""

import math
from dataclasses import replace

import numpy as np
import pytest

from harness.domain.canary.guardrails import Guardrails
from harness.domain.canary.observation import Segment
from harness.domain.proposals.policy import CanaryPolicy
from harness.gate.online.rollout_evidence import collect_evidence
from tests.support.canary.segmented_traffic import SegmentTruth, simulate_segments

pytestmark = pytest.mark.req("F3")
POLICY = replace(CanaryPolicy(), guardrails=Guardrails.none(), alpha=0.05)


def upto(rate: float, trials: int) -> float:
    return rate + 3.0 * math.sqrt(rate * (1.0 - rate) / trials)


@pytest.mark.verify
def test_a_segment_is_named_where_the_harm_is_and_hardly_ever_elsewhere() -> None:
    named = {Segment.TOOLS: 0, None: 0}
    for index in range(40):
        for segment in named:
            truth = SegmentTruth(segment, canary=0.6)
            rng = np.random.default_rng([14, index])
            blocks = simulate_segments(truth, blocks=1500, rng=rng)
            errors = collect_evidence(blocks, POLICY).guardrails[0]
            if segment is None:
                named[None] += errors.segment is not None
            elif errors.segment is not None:
                named[segment] += errors.segment.segment is segment
    assert named[Segment.TOOLS] >= 20
    assert named[None] / 40 <= upto(0.1, 40)
