import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.gate.offline.intervals import (
    mean_interval,
    median_interval,
    quantile_interval,
    share_interval,
    squared_deviations,
    t_interval,
)

pytestmark = pytest.mark.req("F2", "A7")


@pytest.mark.parametrize(
    "values",
    [
        [1.0, 4.0],
        [0.25, -0.5, 0.75, 0.0],
        [3.0] * 5,
    ],
)
def test_the_intervals_of_a_mean_are_those_of_scipy(values: Sequence[float]) -> None:
    n = len(values)
    total = math.fsum(values)
    squares = math.fsum(x * x for x in values)
    error = stats.sem(values)
    for confidence in (0.95, 0.8):
        half = stats.t.ppf(0.5 + confidence / 2, n - 1) * error
        expected = (total / n - half, total / n + half)
        assert t_interval(n, total, squares, confidence) == pytest.approx(expected)
        if confidence == 0.95:
            assert mean_interval(values) == pytest.approx(expected)
            assert t_interval(n, total, squares) == pytest.approx(expected)


@pytest.mark.parametrize(
    "values",
    [
        [],
        [1.0],
        [1.0, math.nan],
        [1.0, math.inf],
    ],
)
def test_there_is_no_interval_of_less_than_two_numbers(values: Sequence[float]) -> None:
    assert mean_interval(values) is None


def test_squared_deviations_are_never_below_none() -> None:
    assert squared_deviations(0, 0.0, 0.0) == 0.0
    assert squared_deviations(4, 2.0, 3.0) == pytest.approx(2.0)
    assert squared_deviations(3, 0.3, 0.03 - 1e-17) == 0.0
    assert squared_deviations([1, 2], [0.5, 1.0], [0.25, 1.0]).tolist() == [0.0, 0.5]


@given(st.integers(1, 150), st.sampled_from([0.5, 0.9, 0.25]))
def test_a_quantile_lies_between_the_closest_ranks_that_hold_it(n: int, share: float) -> None:
    """Both tails are at most 2.5 %, and one rank closer would make one of them more."""
    found = quantile_interval(range(n, 0, -1), share)
    ranks = np.arange(1, n + 1)
    low = ranks[stats.binom.cdf(ranks - 1, n, share) <= 0.025]
    high = ranks[stats.binom.sf(ranks - 1, n, share) <= 0.025]

    assert found == ((low[-1], high[0]) if low.size and high.size else None)


@pytest.mark.parametrize(
    ("n", "ranks"),
    [
        (6, (1, 6)),
        (10, (2, 9)),
        (20, (6, 15)),
        (50, (18, 33)),
        (100, (40, 61)),
    ],
)
def test_the_median_lies_between_the_ranks_of_the_sign_test(
    n: int, ranks: tuple[int, int]
) -> None:
    """Ranks as in Dixon & Massey 1983, table A-25."""
    values = [float(value) for value in range(1, n + 1)]

    assert median_interval(values[::-1]) == ranks


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_of_a_share_is_scipys_exact_one(counts: tuple[int, int]) -> None:
    count, n = counts
    exact = stats.binomtest(count, n).proportion_ci(method="exact")

    assert share_interval(count, n) == pytest.approx((exact.low, exact.high), abs=1e-9)


def test_a_share_of_nothing_has_no_interval() -> None:
    assert share_interval(0, 0) is None
