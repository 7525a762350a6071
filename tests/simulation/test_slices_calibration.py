"""Does the guard of slices err as seldom, and find as much, as it says? Seeded."""

from pathlib import Path

import pytest

from benchmarks.gate.score_matrix import close_pairs, load_matrix
from tests.support.gate.gate_slices import measure_slices

pytestmark = pytest.mark.req("F2")

SHIPPED = Path(__file__).resolve().parents[2] / "datasets" / "gatebench"


def test_slices_without_a_loss_are_seldom_blamed_and_a_planned_loss_is_found() -> None:
    pairs = close_pairs(load_matrix(SHIPPED / "suite_binary.csv"), 1)
    (row,) = measure_slices(pairs, replications=1000, counts=(5,), sizes=(120,))

    assert row.false_alarms <= 0.07  # three standard errors
    assert row.found >= 0.8
    assert row.twenty >= 0.9


@pytest.mark.verify
@pytest.mark.parametrize("suite", ["binary", "epochs", "graded"])
def test_the_guard_of_slices_holds_its_level_on_every_matrix(suite: str) -> None:
    pairs = close_pairs(load_matrix(SHIPPED / f"suite_{suite}.csv"), 3)

    for row in measure_slices(pairs, replications=4000):
        assert row.false_alarms <= 0.06  # three standard errors
        assert row.found >= 0.75
