"""Does the gate hold its level where items of one document are alike? Seeded, with a known
truth; the limits are those of statistics.md §4.
"""

from pathlib import Path

import pytest

from benchmarks.gate.score_matrix import close_pairs, load_matrix
from harness.domain.evals.suite_plan import QUALITY_CLAIMS, Claim
from tests.support.gate.gate_clusters import GROUPS, measure_clusters

pytestmark = pytest.mark.req("F2")

SHIPPED = Path(__file__).resolve().parents[2] / "datasets" / "gatebench"
BINARY, GRADED = SHIPPED / "suite_binary.csv", SHIPPED / "suite_graded.csv"


def test_items_of_one_document_do_not_promote_a_candidate_that_is_no_better() -> None:
    pairs = close_pairs(load_matrix(BINARY), 2)
    rows = list(
        measure_clusters(
            pairs, Claim.SUPERIOR, 200, replications=300, groups=(10,), correlations=(0.8,)
        )
    )

    assert rows[0].by_items >= 0.2
    assert rows[0].by_clusters <= 0.055


@pytest.mark.verify
@pytest.mark.parametrize("items", [200, 500])
@pytest.mark.parametrize("claim", list(QUALITY_CLAIMS))
@pytest.mark.parametrize("suite", [BINARY, GRADED], ids=["pass-fail", "graded"])
def test_the_level_holds_for_every_size_of_cluster(
    suite: Path, claim: Claim, items: int
) -> None:
    pairs = close_pairs(load_matrix(suite), 3)
    rows = list(measure_clusters(pairs, claim, items, replications=2000, groups=GROUPS))

    assert max(row.by_clusters for row in rows) <= 0.055
    assert max(row.worst for row in rows) <= 0.065
