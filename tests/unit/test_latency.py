"""Quantiles from recorded histograms."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.domain.latency import BOUNDS_MS, merged, quantile_ms

counts = st.dictionaries(st.sampled_from((*BOUNDS_MS, -1)), st.integers(1, 50), min_size=1)


def test_a_quantile_lies_straight_within_its_bucket() -> None:
    # 10 up to 50 ms, 10 from 50 to 100: three quarters are reached in the middle of the second.
    assert quantile_ms({50: 10, 100: 10}, 0.75) == pytest.approx(75.0)
    # The bucket below 250 ms begins at 100, though nothing was recorded there.
    assert quantile_ms({250: 4}, 0.5) == pytest.approx(175.0)


def test_without_a_bound_it_is_at_least_the_last_one() -> None:
    assert quantile_ms({-1: 3}, 0.5) == 60_000.0
    assert quantile_ms({}, 0.5) is None


@given(one=counts, other=counts, low=st.floats(0.01, 1), high=st.floats(0.01, 1))
def test_quantiles_rise_and_lie_between_those_of_the_parts(
    one: dict[int, int], other: dict[int, int], low: float, high: float
) -> None:
    low, high = sorted((low, high))
    both = merged([one, other])

    parts = sorted(quantile_ms(each, high) or 0.0 for each in (one, other))
    whole = quantile_ms(both, high) or 0.0

    assert (quantile_ms(both, low) or 0.0) <= whole
    assert parts[0] - 1e-6 <= whole <= parts[1] + 1e-6
