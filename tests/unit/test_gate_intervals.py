"""Intervals of a mean, a quantile and a saving, against published and independently worked
numbers.
"""

import math

import pytest

from harness.gate.offline.costs import _saving
from harness.gate.offline.intervals import (
    mcnemar,
    mean_interval,
    median_interval,
    quantile_interval,
    share_interval,
)

pytestmark = pytest.mark.req("A3", "A7")
# Student's t, 97.5 %, for 3 and 4 degrees of freedom (Fisher & Yates, table III).
T_3, T_4 = 3.1824463, 2.7764451


def test_the_interval_of_a_mean_is_students() -> None:
    half = T_4 * math.sqrt(2.5 / 5)

    assert mean_interval([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx((3 - half, 3 + half))
    assert mean_interval([1.0]) is None


@pytest.mark.parametrize(
    ("n", "ranks"), [(6, (1, 6)), (10, (2, 9)), (20, (6, 15)), (50, (18, 33)), (100, (40, 61))]
)
def test_the_median_lies_between_the_ranks_of_the_sign_test(
    n: int, ranks: tuple[int, int]
) -> None:
    """Ranks as in Dixon & Massey 1983, table A-25."""
    values = [float(value) for value in range(1, n + 1)]

    assert median_interval(values[::-1]) == ranks


def test_a_median_of_five_values_and_a_95th_percentile_of_71_have_no_interval() -> None:
    assert median_interval([1.0, 2.0, 3.0, 4.0, 5.0]) is None
    assert quantile_interval([float(value) for value in range(71)], 0.95) is None
    found = quantile_interval([float(value) for value in range(72)], 0.95)
    assert found is not None
    assert found[1] == 71.0


@pytest.mark.parametrize(
    ("count", "n", "interval"),
    [
        (0, 10, (0.0, 0.3085)),
        (1, 10, (0.0025, 0.4450)),
        (5, 10, (0.1871, 0.8129)),
        (9, 10, (0.5550, 0.9975)),
        (10, 10, (0.6915, 1.0)),
    ],
)
def test_the_interval_of_a_share_is_the_exact_one(
    count: int, n: int, interval: tuple[float, float]
) -> None:
    """Clopper & Pearson 1934, as tabled for n = 10."""
    assert share_interval(count, n) == pytest.approx(interval, abs=5e-5)
    assert share_interval(0, 0) is None


def test_the_interval_of_a_saving_is_that_of_a_ratio_of_means() -> None:
    """Cochran 1977, Sampling Techniques, 6.4: the residuals from the ratio over the mean."""
    ours, theirs = [1.0, 2.0, 3.0, 6.0], [0.6, 0.9, 1.8, 2.7]
    ratio = 6.0 / 12.0
    residuals = [b - ratio * a for a, b in zip(ours, theirs, strict=True)]
    error = math.sqrt(sum(r * r for r in residuals) / 3 / 4) / 3.0

    assert _saving([*zip(ours, theirs, strict=True)]) == pytest.approx(
        (1 - ratio, 1 - ratio - T_3 * error, 1 - ratio + T_3 * error)
    )
    assert _saving([(0.0, 1.0)]) == (None, None, None)


@pytest.mark.parametrize("pairs", [0, 1, 5])
def test_as_many_wins_as_losses_lean_to_no_side(pairs: int) -> None:
    found = mcnemar(pairs, pairs)

    assert (found.chi2, found.chi2_corrected) == (0.0, 0.0)
    assert (found.exact, found.mid_p) == (1.0, 1.0)
