"""How often the gate errs about an equal model when people labelled a suite's records by
looking at the incumbent's answers (`benchmarks.gate.item_selection`), and when a suite contains
its items several times.
"""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.gate.item_selection import ITEMS, LABELLED, MOST, measure_selection
from benchmarks.gate.score_matrix import close_pairs, load_matrix
from harness.gate.suite_plan import QUALITY_CLAIMS, Claim
from tests.support.gate.gate_clusters import measure_clusters

pytestmark = pytest.mark.req("F2", "F4")

BINARY = Path(__file__).resolve().parents[2] / "datasets" / "gatebench" / "suite_binary.csv"
RUNS = 12


@pytest.mark.parametrize("claim", QUALITY_CLAIMS)
@pytest.mark.parametrize("share", LABELLED)
@pytest.mark.parametrize("badly_rated", [False, True], ids=["approved", "badly rated"])
def test_records_without_a_label_keep_an_equal_model_from_failing_and_from_passing(
    share: float, claim: Claim, *, badly_rated: bool
) -> None:
    passed, failed = measure_selection(share, claim, RUNS, keep=True, badly_rated=badly_rated)

    assert max(passed, failed) <= MOST


def test_a_suite_of_approved_or_badly_rated_records_alone_would_err() -> None:
    _, failed = measure_selection(1.0, Claim.SUPERIOR, RUNS, keep=False)
    passed, _ = measure_selection(1.0, Claim.SUPERIOR, RUNS, keep=False, badly_rated=True)

    assert failed >= 0.5
    assert passed >= 0.5


def test_found_clusters_keep_the_level_for_items_that_a_suite_contains_several_times() -> None:
    rows = list(
        measure_clusters(
            close_pairs(load_matrix(BINARY), 2),
            Claim.SUPERIOR,
            ITEMS,
            replications=150,
            groups=(2, 5, 10),
            correlations=(0.4, 1.0),
        )
    )

    assert np.mean([row.by_clusters for row in rows]) <= 0.055
    assert np.mean([row.by_items for row in rows]) >= 0.15
