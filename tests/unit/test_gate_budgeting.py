import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.gate.planning.budget import (
    MAX_EPOCHS,
    DifferenceSpread,
    MeanUsage,
    comparison_cost_usd,
    comparison_duration_s,
    measure_spread,
)
from harness.gate.planning.planned_tests import PlannedTest, cheapest_design

pytestmark = pytest.mark.req("F2", "A3")
OURS = MeanUsage(100, 200.0, 50.0, 0.001, 2.0)
THEIRS = MeanUsage(100, 210.0, 60.0, 0.003, 1.0)
spreads = st.builds(
    DifferenceSpread,
    between=st.floats(0.001, 0.5),
    within=st.floats(0.0, 0.5),
    pairs=st.just(100),
)


def test_every_item_is_paid_for_on_both_sides_and_in_every_epoch() -> None:
    assert comparison_cost_usd(500, 3, (OURS, THEIRS)) == pytest.approx(500 * 3 * 0.004)
    assert comparison_cost_usd(500, 1, (OURS, None)) is None
    assert comparison_cost_usd(500, 1, (OURS, MeanUsage(1, 1.0, 1.0, None, 1.0))) is None


def test_both_sides_are_asked_side_by_side() -> None:
    assert comparison_duration_s(400, 2, (OURS, THEIRS), connections=8) == pytest.approx(200.0)
    assert comparison_duration_s(400, 2, (OURS, None), connections=8) is None


def test_epochs_are_bought_only_where_an_answer_varies_more_than_the_items_do() -> None:
    steady = cheapest_design(
        DifferenceSpread(0.2, 0.0, 100), 0.05, PlannedTest(0.05, 5_000, 300), (OURS, THEIRS)
    )
    few_items = cheapest_design(
        DifferenceSpread(0.02, 0.4, 100), 0.05, PlannedTest(0.05, 400, 300), (OURS, THEIRS)
    )

    assert steady is not None
    assert steady.epochs == 1
    assert few_items is not None
    assert few_items.epochs > 1
    assert few_items.items <= 400


def test_a_suite_that_is_too_small_at_any_number_of_epochs_has_no_design() -> None:
    assert (
        cheapest_design(
            DifferenceSpread(0.2, 0.0, 100), 0.05, PlannedTest(0.05, 300, 300), (OURS, THEIRS)
        )
        is None
    )


@given(spreads, st.floats(0.02, 0.2), st.integers(50, 20_000))
def test_the_cheapest_design_shows_the_effect_and_no_cheaper_one_does(
    spread: DifferenceSpread, effect: float, suite_items: int
) -> None:
    option = cheapest_design(
        spread, effect, PlannedTest(0.05, suite_items, 300), (OURS, THEIRS)
    )
    test = PlannedTest(0.05, suite_items, 300)
    needed = {
        k: test.with_epochs(spread, k).items_needed(spread.sd(k), effect)
        for k in range(1, MAX_EPOCHS + 1)
    }
    fitting = [items * k for k, items in needed.items() if items <= suite_items]

    assert (option is None) == (not fitting)
    if option is not None:
        found = test.with_epochs(spread, option.epochs)
        shown = found.smallest_effect(spread.sd(option.epochs), option.items)
        assert shown <= effect * (1 + 1e-9)
        assert option.answers == 2 * min(fitting)


@given(spreads)
def test_more_items_never_see_less(spread: DifferenceSpread) -> None:
    seen = [
        PlannedTest(0.05, 400, 300).smallest_effect(spread.sd(1), n)
        for n in (50, 100, 200, 400)
    ]

    assert all(more <= fewer for fewer, more in pairwise(seen))


def test_the_spread_is_split_into_items_and_epochs() -> None:
    # Each item differs by its own mean, and each epoch by one step up or down.
    items = [[level + 0.1, level - 0.1] for level in (-0.2, 0.2)] * 20
    spread = measure_spread(items)

    assert spread is not None
    assert spread.within == pytest.approx(0.02)
    assert spread.sd(2) == pytest.approx(math.sqrt(0.04 * 40 / 39), rel=1e-9)


def test_too_few_pairs_make_no_spread() -> None:
    assert measure_spread([[0.0]] * 29) is None
    assert measure_spread([[0.0]] * 30) == DifferenceSpread(0.0, 0.0, 30)


def test_asking_these_items_again_shows_more_of_a_suite_that_is_asked_whole() -> None:
    spread = DifferenceSpread(0.06, 0.14, 200)
    like = PlannedTest(0.05, 300, 300)
    these = replace(like, about_these=True).with_epochs(spread, 2)

    assert these.anew == pytest.approx((0.07 + 0.5 / 300) / 0.13)
    assert like.with_epochs(spread, 1) == like
    sd = spread.sd(2)
    assert these.power(sd, 0.05, 300) > like.power(sd, 0.05, 300) + 0.1
    assert these.smallest_effect(sd, 300) == pytest.approx(
        like.smallest_effect(sd, 300) * math.sqrt(these.anew), rel=0.02
    )
    assert these.items_needed(sd, 0.05) < 300 < like.items_needed(sd, 0.05)
    best = cheapest_design(spread, 0.05, these, (OURS, THEIRS))
    assert best is not None
    assert best.epochs >= 2


def test_the_planned_power_is_that_of_the_planned_analyses() -> None:
    test = PlannedTest(0.05, 500, 500)

    assert test.power(0.45, test.smallest_effect(0.45, 500), 500) == pytest.approx(
        0.8, abs=1e-3
    )
    assert test.power(0.45, 0.0, 500) == pytest.approx(0.045, abs=1e-3)
    assert test.power(0.45, -0.5, 500) < 1e-6
    assert test.power(0.0, 0.05, 500) > 0.99
    # Models that answer all items alike: neither is shown to be better.
    assert test.power(0.0, 0.0, 500) == pytest.approx(0.045, abs=1e-3)
