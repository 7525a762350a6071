"""Does a small graded suite hold its level where a whole item is lost now and then? Seeded,
with a mean that is exactly at the null; the limit is that of statistics.md §4 for the worst.
"""

import math

import numpy as np
import pytest

from benchmarks.gate.gate_benchmark import MOST_FALSE_WORST, theta0_of
from benchmarks.gate.gate_rules import MARGIN
from harness.domain.evals.suite_plan import QUALITY_CLAIMS, Claim
from harness.gate.offline.design import Design
from harness.gate.offline.sequential import judge_batch

pytestmark = pytest.mark.req("F2")

DRAWS = 3000


@pytest.mark.verify
@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3, 0.4])
@pytest.mark.parametrize("n", [30, 80, 200])
@pytest.mark.parametrize("claim", list(QUALITY_CLAIMS))
def test_rare_whole_losses_behind_noisy_wins_pass_no_oftener_than_they_may(
    claim: Claim, n: int, noise: float
) -> None:
    rng = np.random.default_rng([18, n, round(100 * noise)])
    design = Design(claim, MARGIN, n)
    for expected in (1.7, 3.1, 4.8, 9.2):
        rate = expected / n
        win = (theta0_of(claim) + rate) / (1.0 - rate)
        lost = rng.random((DRAWS, n)) < rate
        even = noise * rng.choice([-1.0, 1.0], (DRAWS, n))
        d = np.where(lost, -1.0, win + even)

        false = float(judge_batch(d, design).promoted.mean())

        spread = math.sqrt(MOST_FALSE_WORST * (1.0 - MOST_FALSE_WORST) / DRAWS)
        assert false <= MOST_FALSE_WORST + 2.0 * spread
