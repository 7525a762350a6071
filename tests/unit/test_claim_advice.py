from collections.abc import Sequence
from dataclasses import replace

import pytest

from harness.gate.planning.budget import DifferenceSpread, MeanUsage
from harness.gate.planning.claim_advice import ClaimAdvice, advise_claim
from harness.gate.suite_plan import Claim, ClaimPopulation, SuitePlan, SuiteRole

pytestmark = pytest.mark.req("F2", "A3")
# Of 100 items models of five points' distance differ on 18.
PASS_FAIL = DifferenceSpread(0.18, 0.0, 200)
DEAR, CHEAP = (MeanUsage(100, 200.0, 50.0, usd, 2.0) for usd in (0.01, 0.001))


def plans(n: int, own: Claim = Claim.SUPERIOR, margin: float = 0.05) -> Sequence[SuitePlan]:
    plain = SuitePlan("s", "digest", SuiteRole.PRIMARY, own, margin, 0.05, n, 1, order_seed=1)
    claims = dict.fromkeys((own, *Claim))
    cost = {"min_saving": 0.1, "cost_ceiling": 10.0}
    return [
        replace(plain, claim=claim, **(cost if claim is Claim.CHEAPER else {}))  # type: ignore[arg-type]
        for claim in claims
    ]


def advise(
    n: int, saving: float | None, asked: Claim | None = None, own: Claim = Claim.SUPERIOR
) -> ClaimAdvice:
    sides = (DEAR, CHEAP)
    return advise_claim(plans(n, own), asked, n, PASS_FAIL, sides, saving, 0.05)


@pytest.mark.parametrize(("n", "power"), [(100, 0.28), (200, 0.44), (480, 0.76)])
def test_as_good_at_a_tenth_of_the_price_is_asked_as_cheaper_and_not_worse(
    n: int, power: float
) -> None:
    advice = advise(n, saving=0.9)
    equal = {option.claim: option.if_equal for option in advice.options}

    assert advice.recommended.claim is Claim.CHEAPER
    assert equal[Claim.CHEAPER] == equal[Claim.NON_INFERIOR] == pytest.approx(power, abs=0.01)
    assert equal[Claim.SUPERIOR] == pytest.approx(0.04, abs=0.01)
    assert advice.recommended.cost_usd == pytest.approx(n * 0.011)
    assert advice.recommended.answers == 2 * n
    assert "the candidate costs 90 % less" in advice.why
    assert "and as better in" in advice.why


@pytest.mark.parametrize(
    ("saving", "asked", "own", "recommended"),
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
    saving: float | None, asked: Claim | None, own: Claim, recommended: Claim
) -> None:
    advice = advise(480, saving, asked, own)

    assert advice.recommended.claim is recommended
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
        (480, None, None, "a price is unknown or 0, and the claim that it is cheaper needs"),
        (480, -9.0, None, "costs 10 times as much, and the claim that it is cheaper needs a"),
        (480, 0.0, None, "both models cost the same, and the claim that it is cheaper needs a"),
        (480, 0.9, Claim.NON_INFERIOR, "costs 90 % less, and the claim that it is cheaper was"),
        (480, 0.9, None, "the candidate costs 90 % less; an equal candidate is shown in"),
    ],
)
def test_the_reason_says_what_is_known_of_the_price_and_what_the_claim_about_it_needs(
    n: int, saving: float | None, asked: Claim | None, said: str
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

    assert [one.population for one in found[0].options] == [like.population, these.population]
    assert [one.population for one in found[1].options] == [these.population, like.population]
    assert found[1].recommended.answers == 2 * found[0].recommended.answers
    assert "until its noise is measured" in found[0].why
    noisy = replace(PASS_FAIL, within=0.05)
    known = advise_claim((like, these), None, 200, noisy, (DEAR, CHEAP), None, 0.05)
    assert "until its noise is measured" not in known.why
