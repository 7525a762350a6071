"""How soon a candidate is rolled back whose dearest or slowest requests raise the sum, and how
seldom one whose mean is just tolerated (statistics.md §2.21). Seeded.
"""

import math
from collections.abc import Callable

import numpy as np
import pytest

from harness.gate.arrays import Floats
from harness.gate.online.capped_sums import CappedExposure, bet_on_sums
from tests.simulation.test_canary_calibration import upto
from tests.support.canary.raised_sums import (
    COST,
    HARM,
    TOLERATED,
    exposures,
)
from tests.support.sampling import later

pytestmark = pytest.mark.req("F3")


@pytest.mark.parametrize(
    ("case", "rollouts"),
    [*((case, 9) for case in HARM), *(later(case, 100) for case in HARM)],
)
def test_a_sum_that_few_requests_raise_is_found(case: str, rollouts: int) -> None:
    harm, most = HARM[case]
    found = [exposures(harm, round(1.5 * most), [131, n]) for n in range(rollouts)]

    assert np.quantile(found, 0.5, method="higher") <= most


@pytest.mark.parametrize(
    ("case", "rollouts"),
    [
        ("each value at the limit", 12),
        ("a tenth raises the mean to the limit", 12),
        ("the candidate fails where the incumbent does not", 12),
        *(later(case, 200) for case in TOLERATED),
    ],
)
def test_a_sum_at_the_limit_is_not_rolled_back(case: str, rollouts: int) -> None:
    found = [exposures(TOLERATED[case], 2500, [137, n]) for n in range(rollouts)]

    assert sum(map(math.isfinite, found)) <= upto(0.05, rollouts)


def test_a_bet_is_fair_where_the_mean_is_just_tolerated() -> None:
    """The mean of the bets is at most 0, so each stake's factor has at most the mean 1."""
    rng = np.random.default_rng(139)

    def mean_bet(draw: Callable[[int], Floats]) -> float:
        bets: list[float] = []
        for number in range(400):
            units = [CappedExposure(True, 1.5 * float(x)) for x in draw(25)]  # noqa: FBT003 - an arm
            units += [CappedExposure(False, float(x)) for x in draw(75)]  # noqa: FBT003 - an arm
            name = ("r", "w", number)
            bets += bet_on_sums(units, guardrail=COST, tolerated=1.5, cap=20.0, block=name)
        return float(np.mean(bets))

    assert mean_bet(lambda n: rng.lognormal(-0.32, 0.8, n)) == pytest.approx(0.0, abs=0.001)
