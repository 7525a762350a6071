"""Does the gate hold its level against the worst null that a search finds, and does it pass a
candidate within the margin the oftener, the more items there are? Seeded.
"""

import math

import numpy as np
import pytest

from benchmarks.gate.gate_benchmark import tilt_weights
from benchmarks.gate.gate_rules import MARGIN
from benchmarks.gate.score_matrix import ScoreKind, close_pairs, generate_scores
from benchmarks.gate.worst_null import MOST_FOUND, search_worst_nulls
from harness.domain.evals.suite_plan import Claim
from harness.gate.offline.design import Design
from harness.gate.offline.item_tests import final_p
from harness.gate.offline.sequential import judge_batch
from tests.support.sampling import later

pytestmark = pytest.mark.req("F2")

DRAWS = 2000


@pytest.mark.verify
@pytest.mark.parametrize("n", [50, 200])
def test_a_search_finds_no_null_that_passes_oftener_than_it_may(n: int) -> None:
    spread = math.sqrt(MOST_FOUND * (1.0 - MOST_FOUND) / (4 * DRAWS))

    for worst in search_worst_nulls([n], draws=DRAWS, workers=1):
        assert worst.promoted <= MOST_FOUND + 2.0 * spread, worst


@pytest.mark.parametrize("difference", [0.0, later(-0.02)])
@pytest.mark.parametrize("kind", [ScoreKind.PASS_FAIL, ScoreKind.GRADED])
def test_more_items_never_pass_fewer_candidates_within_the_margin(
    kind: ScoreKind, difference: float
) -> None:
    (pair,) = close_pairs(generate_scores(kind, 1), 1)
    rng = np.random.default_rng(46)
    d = rng.choice(pair.d, size=(400, 1000), p=tilt_weights(pair.d, difference))
    passed = []
    for n in (200, 480, 1000):
        design = Design(Claim.NON_INFERIOR, MARGIN, n)
        passed.append(float(judge_batch(d[:, :n], design).promoted.mean()))
        at_the_end = (final_p(d[:, :n], design.theta0) <= design.levels[n]).mean()
        assert passed[-1] >= at_the_end - 0.02

    assert passed == sorted(passed)
