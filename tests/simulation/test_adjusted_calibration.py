"""Do planned analyses err as often as they say where several are compared? Seeded, with a known
truth.
"""

import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks.gate.gate_benchmark import FIVE, theta0_of, tilt_weights
from benchmarks.gate.score_matrix import close_pairs, load_matrix
from harness.domain.evals.suite_plan import QUALITY_CLAIMS, Claim
from harness.gate.offline.adjusted import Covariates
from harness.gate.offline.design import Design
from harness.gate.planning.multiplicity import FUTILITY
from tests.support.gate.adjusted_batch import judge_adjusted_batch
from tests.support.gate.gate_answers import POOL

pytestmark = pytest.mark.req("F2")

BINARY = Path(__file__).resolve().parents[2] / "datasets" / "gatebench" / "suite_binary.csv"


@pytest.mark.req("F4")
@pytest.mark.parametrize("claim", list(QUALITY_CLAIMS))
def test_of_several_the_hopeless_are_given_up_and_the_good_are_not(claim: Claim) -> None:
    (pair,) = close_pairs(load_matrix(BINARY), 1)
    design = Design(claim, 0.05, 200, 0.05 / 3)
    shares, items = {}, {}
    for lift in (0.0, FIVE):
        rng = np.random.default_rng([11, round(lift * 1000)])
        weights = tilt_weights(pair.d, theta0_of(claim) + lift)
        drawn = rng.choice(len(pair.d), size=(250, POOL), p=weights)
        known = Covariates(pair.a[drawn])
        for futility in (0.0, FUTILITY):
            found = judge_adjusted_batch(
                pair.d[drawn[:, :200]], design, known, futility=futility
            )
            shares[lift, futility] = float(found.promoted.mean())
            items[lift, futility] = float(found.n_used.mean())

    assert shares[0.0, FUTILITY] <= 0.05 / 3 + 3.0 * math.sqrt(0.05 / 3 / 250)
    assert shares[FIVE, FUTILITY] >= shares[FIVE, 0.0] - 0.02
    assert items[0.0, FUTILITY] < 0.7 * items[0.0, 0.0]
