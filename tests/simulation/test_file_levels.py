"""Does the order of a file, a further look or a chosen seed let useless candidates pass?

Each limit is the promised rate plus three standard errors of the simulation.
"""

import pytest

from benchmarks.gate.file_levels import measure_looks, measure_orders, measure_seeds

pytestmark = pytest.mark.req("F2", "F4")


def test_a_worse_model_does_not_pass_because_its_file_is_sorted_by_subject() -> None:
    worse, worse_mixed, equal, equal_mixed = measure_orders(100)

    assert worse.before >= 0.9
    assert worse.now == worse_mixed.now == 0.0
    assert equal.now == equal_mixed.now
    assert not equal.missed


def test_five_looks_and_twenty_one_at_a_growing_file_keep_the_level() -> None:
    rows = [*measure_looks(100)]

    assert {row.cell.split()[0] for row in rows} == {"5", "21"}
    assert max(row.before for row in rows) > 0.075
    assert not [row for row in rows if row.missed]


def test_the_best_of_a_thousand_seeds_is_out_of_reach() -> None:
    (row,) = measure_seeds(50)

    assert row.before > 0.3
    assert not row.missed
