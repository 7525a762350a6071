"""How often luck promotes slices that are proposed alone (`benchmarks.gate.slice_levels`)."""

import numpy as np
import pytest

from benchmarks.gate.slice_levels import CELLS, ITEMS, MOST_FALSE, measure_cell, promote_slices
from harness.gate.budget import holm_test, slice_level, spend_alpha
from harness.gate.offline.design import interim_items, interim_levels
from harness.gate.suite_plan import QUALITY_CLAIMS, Claim

pytestmark = pytest.mark.req("F2", "F4")


@pytest.mark.parametrize("claim", QUALITY_CLAIMS)
@pytest.mark.parametrize("cell", CELLS)
def test_useless_slices_are_rarely_promoted(cell: str, claim: Claim) -> None:
    row = measure_cell(cell, claim, n_runs=150)

    assert row.false <= MOST_FALSE + 0.025


def test_a_larger_alpha_has_a_larger_level_at_each_analysis() -> None:
    """Holm's rule may then raise a slice's level after its first analyses."""
    alphas = [slice_level(spend_alpha(0.05, 2), 10, passed) for passed in range(10)]
    for items in (80, 300, 1_000):
        levels = np.array([interim_levels(interim_items(items), alpha) for alpha in alphas])

        assert (np.diff(levels, axis=0) >= 0).all()


def test_a_slice_that_passes_raises_the_level_of_the_others() -> None:
    assert [slice_level(0.01, 4, passed) for passed in range(4)] == pytest.approx(
        [0.0025, 0.01 / 3, 0.005, 0.01]
    )
    p_values = [0.0024, 0.0033, 0.006, 0.5]
    assert holm_test(p_values, 0.01) == (True, True, False, False)
    with pytest.raises(ValueError, match="cannot leave a slice to test"):
        slice_level(0.05, 2, 2)


def test_no_slice_is_promoted_beside_the_whole_route() -> None:
    won = np.ones((3, ITEMS))

    whole, slices = promote_slices(won, [won, won], Claim.SUPERIOR)

    assert whole.all()
    assert not slices.any()
