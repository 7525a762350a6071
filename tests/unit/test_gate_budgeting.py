import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.gate.budget import (
    MAX_EPOCHS,
    POWER,
    DifferenceSpread,
    MeanUsage,
    PlannedTest,
    cheapest_design,
    comparison_cost_usd,
    comparison_duration_s,
    measure_spread,
    next_alpha,
    smallest_rejected,
    spend_alpha,
)
from harness.gate.claim_advice import LEAST_POWER, ClaimAdvice, advise_claim
from harness.gate.offline.design import Design, design_from_plan
from harness.gate.offline.sequential import judge_batch, judge_differences
from harness.gate.sentences import further_items
from harness.gate.suite_plan import (
    Claim,
    ClaimPopulation,
    Looks,
    SuitePlan,
    SuiteRole,
)
from tests.unit.test_gate_verdicts import plan

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
        DifferenceSpread(0.2, 0.0, 100),
        0.05,
        PlannedTest(0.05, 5_000, 300),
        (OURS, THEIRS),
    )
    few_items = cheapest_design(
        DifferenceSpread(0.02, 0.4, 100),
        0.05,
        PlannedTest(0.05, 400, 300),
        (OURS, THEIRS),
    )

    assert steady is not None
    assert steady.epochs == 1
    assert few_items is not None
    assert few_items.epochs > 1
    assert few_items.items <= 400


def test_a_suite_that_is_too_small_at_any_number_of_epochs_has_no_design() -> None:
    assert (
        cheapest_design(
            DifferenceSpread(0.2, 0.0, 100),
            0.05,
            PlannedTest(0.05, 300, 300),
            (OURS, THEIRS),
        )
        is None
    )


@given(spreads, st.floats(0.02, 0.2), st.integers(50, 20_000))
def test_the_cheapest_design_shows_the_effect_and_no_cheaper_one_does(
    spread: DifferenceSpread,
    effect: float,
    suite_items: int,
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
    assert like.items_needed(sd, 1e-5) == 10**7  # it looks no further
    asked = replace(plan(), population=ClaimPopulation.THESE, suite_items=300)
    assert design_from_plan(asked).suite_items == 300
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


# Of 100 items models of five points' distance differ on 18.
PASS_FAIL = DifferenceSpread(0.18, 0.0, 200)
DEAR = MeanUsage(100, 200.0, 50.0, 0.01, 2.0)
CHEAP = MeanUsage(100, 200.0, 50.0, 0.001, 2.0)


def plans(
    n: int,
    own: Claim = Claim.SUPERIOR,
    margin: float = 0.05,
) -> Sequence[SuitePlan]:
    plain = SuitePlan(
        "s",
        "digest",
        SuiteRole.PRIMARY,
        own,
        margin,
        0.05,
        n,
        1,
        order_seed=1,
    )
    claims = dict.fromkeys((own, *Claim))
    cost = {"min_saving": 0.1, "cost_ceiling": 10.0}
    return [
        replace(plain, claim=claim, **(cost if claim is Claim.CHEAPER else {}))  # type: ignore[arg-type]
        for claim in claims
    ]


def advise(
    n: int,
    saving: float | None,
    asked: Claim | None = None,
    own: Claim = Claim.SUPERIOR,
) -> ClaimAdvice:
    sides = (DEAR, CHEAP)
    return advise_claim(plans(n, own), asked, n, PASS_FAIL, sides, saving, 0.05)


@pytest.mark.parametrize(
    ("n", "power"),
    [
        (100, 0.28),
        (200, 0.44),
        (480, 0.76),
    ],
)
def test_as_good_at_a_tenth_of_the_price_is_asked_as_cheaper_and_not_worse(
    n: int, power: float
) -> None:
    advice = advise(n, saving=0.9)
    equal = {option.claim: option.if_equal for option in advice.options}

    assert advice.preferred.claim is Claim.CHEAPER
    assert equal[Claim.CHEAPER] == equal[Claim.NON_INFERIOR] == pytest.approx(power, abs=0.01)
    assert equal[Claim.SUPERIOR] == pytest.approx(0.04, abs=0.01)
    assert advice.preferred.cost_usd == pytest.approx(n * 0.011)
    assert advice.preferred.answers == 2 * n
    assert "the candidate costs 90 % less" in advice.why
    assert "and as better in" in advice.why


@pytest.mark.parametrize(("n", "is_recommended"), [(100, False), (200, False), (480, True)])
def test_no_claim_below_half_power_is_recommended_and_the_advice_says_what_would_suffice(
    n: int, *, is_recommended: bool
) -> None:
    advice = advise(n, saving=0.0, asked=Claim.NON_INFERIOR)
    preferred = advice.preferred
    sufficient = advise(preferred.sufficient_items, saving=0.0, asked=Claim.NON_INFERIOR)

    assert (advice.recommended is preferred) == is_recommended
    assert (preferred.power >= LEAST_POWER) == is_recommended
    assert ("or an allowed loss of" in advice.why) != is_recommended
    assert ("to show it in 80 % takes about" in advice.why) != is_recommended
    assert sufficient.preferred.power == pytest.approx(POWER, abs=0.02)
    # The allowed loss that suffices is wider than the registered one, which does not.
    assert preferred.sufficient_margin > preferred.margin


def test_a_saving_that_is_unknown_suffices_with_no_number_of_items() -> None:
    advice = advise(480, None, Claim.CHEAPER, Claim.CHEAPER)

    assert advice.recommended is None
    assert advice.why.endswith(
        "no number of items shows it, because the saving is unknown or too small"
    )


@pytest.mark.parametrize(
    ("saving", "asked", "own", "preferred"),
    [
        (0.0, None, Claim.SUPERIOR, Claim.SUPERIOR),
        (-1.0, None, Claim.CHEAPER, Claim.SUPERIOR),
        (None, None, Claim.SUPERIOR, Claim.SUPERIOR),
        (None, None, Claim.NON_INFERIOR, Claim.NON_INFERIOR),
        (0.9, Claim.SUPERIOR, Claim.NON_INFERIOR, Claim.CHEAPER),
        (0.9, Claim.NON_INFERIOR, Claim.SUPERIOR, Claim.NON_INFERIOR),
        # A saving that so few items cannot show.
        (0.11, None, Claim.SUPERIOR, Claim.SUPERIOR),
        (0.11, Claim.CHEAPER, Claim.CHEAPER, Claim.CHEAPER),
    ],
)
def test_what_somebody_asks_stays_and_an_open_question_follows_the_price(
    saving: float | None,
    asked: Claim | None,
    own: Claim,
    preferred: Claim,
) -> None:
    advice = advise(480, saving, asked, own)

    assert advice.preferred.claim is preferred
    assert advice.own.claim is own
    may_be_cheaper = saving == 0.9 or own is Claim.CHEAPER
    assert (Claim.CHEAPER in {one.claim for one in advice.options}) == may_be_cheaper


@pytest.mark.parametrize(
    ("n", "saving", "asked", "said"),
    [
        (
            40,
            0.9,
            None,
            "costs 90 % less, and the claim that it is cheaper needs about 52 items",
        ),
        (
            480,
            None,
            None,
            (
                "no saving is known, because a price is missing or 0, and the claim that it is "
                "cheaper needs"
            ),
        ),
        (
            480,
            -9.0,
            None,
            "costs 10 times as much, and the claim that it is cheaper needs a",
        ),
        (
            480,
            0.0,
            None,
            "both models cost the same, and the claim that it is cheaper needs a",
        ),
        (
            480,
            0.9,
            Claim.NON_INFERIOR,
            "costs 90 % less, and the claim that it is cheaper was",
        ),
        (
            480,
            0.9,
            None,
            "the candidate costs 90 % less; an equal candidate is shown in",
        ),
    ],
)
def test_the_reason_says_what_is_known_of_the_price_and_what_the_claim_about_it_needs(
    n: int,
    saving: float | None,
    asked: Claim | None,
    said: str,
) -> None:
    assert said in advise(n, saving, asked).why


def test_graded_items_that_hardly_differ_show_less_for_the_unseen_loss() -> None:
    alike = DifferenceSpread(0.15**2, 0.0, 200, graded=True)
    whole = replace(alike, graded=False)
    few, many = (
        [
            advise_claim(plans(n), None, n, spread, (DEAR, CHEAP), None, 0.05).own.if_better
            for spread in (whole, alike)
        ]
        for n in (60, 480)
    )

    assert few[1] < few[0] - 0.2
    assert many[1] == pytest.approx(many[0], abs=0.01)


def test_these_items_come_first_only_where_the_owners_setting_says_so() -> None:
    like = plans(200)[0]
    these = replace(like, population=ClaimPopulation.THESE, epochs=2)
    found = [
        advise_claim(two, None, 200, PASS_FAIL, (DEAR, CHEAP), None, 0.05)
        for two in ((like, these), (these, like))
    ]

    assert [one.population for one in found[0].options] == [
        like.population,
        these.population,
    ]
    assert [one.population for one in found[1].options] == [
        these.population,
        like.population,
    ]
    assert found[1].preferred.answers == 2 * found[0].preferred.answers
    assert "until a run has measured how much repeated answers vary" in found[0].why
    noisy = replace(PASS_FAIL, within=0.05)
    known = advise_claim((like, these), None, 200, noisy, (DEAR, CHEAP), None, 0.05)
    assert "until a run has measured how much repeated answers vary" not in known.why


def test_the_further_items_of_a_loss_show_it_in_about_four_of_five_cases() -> None:
    rows = [-1.0, -1.0, 1.0, 0.0] * 10
    design = Design(Claim.SUPERIOR, 0.05, len(rows), looks=Looks.WHOLE)
    found = judge_differences(rows, design)
    more = further_items(found, design)

    assert found.outcome == "inconclusive"
    assert more is not None
    rng = np.random.default_rng(5)
    further = rng.choice(rows, size=(400, more))
    grown = np.concatenate([np.tile(rows, (400, 1)), further], axis=1)
    later = replace(design, n_max=grown.shape[1])
    assert 0.7 <= judge_batch(grown, later).rejected.mean() <= 0.9


def test_the_planned_loss_fails_in_about_four_of_five_cases_under_a_margin() -> None:
    items, disagree, margin = 480, 0.2, 0.05
    loss = smallest_rejected(disagree**0.5, -margin, items)

    assert loss is not None
    assert margin < loss < 0.2
    lost = (disagree + loss) / 2.0
    d = np.random.default_rng(6).choice(
        [-1.0, 1.0, 0.0], size=(400, items), p=[lost, disagree - lost, 1.0 - disagree]
    )
    found = judge_batch(d, Design(Claim.NON_INFERIOR, margin, items))
    assert 0.7 <= found.rejected.mean() <= 0.9


def test_two_items_show_no_loss_as_failed() -> None:
    assert smallest_rejected(0.4, -0.05, 2) is None


def test_the_further_items_of_a_gain_count_the_alpha_of_the_next_look() -> None:
    rows = [1.0, 0.0, 0.0, -1.0, 0.0] * 20 + [1.0] * 6
    design = Design(Claim.SUPERIOR, 0.05, len(rows), looks=Looks.WHOLE)
    found = judge_differences(rows, design)
    first = further_items(found, design)
    second = further_items(found, replace(design, alpha=spend_alpha(0.05, 2), look=2))

    assert found.outcome == "inconclusive"
    assert first
    assert second
    assert first < second
    assert next_alpha(0.05, 1) == spend_alpha(0.05, 2)
    assert next_alpha(spend_alpha(0.05, 2), 2) == pytest.approx(spend_alpha(0.05, 3))
