"""Every field of a pair and of a cluster, and each reason for which the pairs end."""

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean, pvariance, variance

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.domain.errors import InputError
from harness.domain.evals.pins import ServedModel, ServedModels, ServedPin
from harness.domain.evals.run import Sample, SampleError
from harness.domain.evals.suite_plan import Claim, ClaimPopulation, SuitePlan
from harness.domain.evals.verdict import ScorePair
from harness.gate.offline.pairs import (
    MOST_NOISE,
    PairedItem,
    PairedSuite,
    mean_score,
    pair_samples,
    score_difference,
)
from harness.gate.offline.slices import merge_clusters, without_unanswered
from tests.unit.test_gate_verdicts import broken, plan

pytestmark = pytest.mark.req("A7", "F2")

NOT_ASKED = Sample("b", "q0", 1, 0, "", 1.0, 1.0, 1, 1, None, 0.1)


def epochs(run: str, position: int, scores: Sequence[float | None]) -> list[Sample]:
    """Answers to one item, each of another length."""
    return [
        replace(
            NOT_ASKED,
            run=run,
            item=f"q{position}",
            position=position,
            epoch=epoch,
            strict=score,
            lenient=score,
            output_tokens=epoch,
            error=SampleError.UNSCORED if score is None else None,
        )
        for epoch, score in enumerate(scores, start=1)
    ]


def pair(plan_: SuitePlan, ours: list[Sample], theirs: list[Sample]) -> PairedItem:
    (item,) = pair_samples(plan_, ours, theirs).items
    return item


def test_a_mean_counts_what_is_missing_as_it_is_told() -> None:
    assert mean_score([1.0, None, 0.5], 0.0) == 0.5
    assert mean_score([1.0, None, 0.0], 1.0) == pytest.approx(2 / 3)
    assert math.copysign(1.0, mean_score([-0.0], 0.0)) == 1.0


def test_a_difference_within_rounding_is_a_tie() -> None:
    assert score_difference((0.1 + 0.2) / 2, (0.15 + 0.15) / 2) == 0.0
    assert score_difference(1e-12, 0.0) == 0.0
    assert score_difference(0.0, 2e-12) == -2e-12
    assert score_difference(1.0, 0.25) == 0.75


def test_a_pair_says_all_that_its_answers_were() -> None:
    asked = replace(plan(n_max=1), epochs=4)
    ours = epochs("a", 0, [1.0, None, 0.5, 0.0])
    theirs = epochs("b", 0, [1.0, 0.0, None, 0.5])
    theirs[1] = replace(theirs[1], lenient=1.0, rule="code_fence")
    theirs[2] = replace(theirs[2], lenient=0.5)
    theirs[3] = replace(theirs[3], rule="case")
    ours[1] = replace(ours[1], served_model="m-1", lenient=0.25)
    ours[0] = replace(ours[0], served_model="m-1", judge_model="j-1")
    theirs[0] = replace(theirs[0], served_model="m-2", served_build="fp", judge_model="j-2")

    item = pair(asked, ours[::-1], theirs)

    assert item == PairedItem(
        ScorePair("q0", 0.625, 0.375, 0.4375, 0.75),
        unscored_incumbent=1,
        unscored_candidate=1,
        rules=("code_fence", "unnamed", "case"),
    )
    assert item.served == ServedModels(
        (ServedModel("m-1"),),
        (ServedModel("m-2", "fp"),),
        (ServedModel("j-1"), ServedModel("j-2")),
    )
    whole = pair_samples(asked, ours, theirs)
    assert (whole.served, whole.incumbent_run, whole.candidate_run) == (item.served, "a", "b")
    stored = ServedModels(candidate=(ServedModel("m-9"),))
    assert replace(whole, stored_served=stored).served == stored


def test_an_item_that_was_not_answered_breaks_no_form_and_is_not_unscored() -> None:
    theirs = [broken(replace(sample, rule="case")) for sample in epochs("b", 0, [1.0])]
    item = pair(plan(n_max=50), epochs("a", 0, [1.0]), theirs)

    assert item == PairedItem(ScorePair("q0", 1.0, 0.0, 1.0, 0.0), unanswered=True)


@pytest.mark.parametrize(
    ("costs", "known"),
    [
        ((0.5, 1.0), 0.75),
        ((0.0, 0.0), 0.0),
        ((0.5, None), None),
        ((0.5, -0.1), None),
        ((0.5, math.inf), None),
        ((math.nan, 0.5), None),
    ],
)
def test_a_cost_is_the_mean_of_its_epochs_where_each_is_known(
    costs: tuple[float | None, ...], known: float | None
) -> None:
    asked = replace(plan(n_max=1, claim=Claim.CHEAPER), epochs=2)
    priced = [
        replace(sample, cost_usd=cost)
        for sample, cost in zip(epochs("a", 0, [1.0, 1.0]), costs, strict=True)
    ]
    other = [replace(sample, run="b", cost_usd=2.0) for sample in priced]

    assert pair(asked, priced, other).costs == (known, 2.0)
    assert pair(replace(asked, claim=Claim.NON_INFERIOR), priced, other).costs == (None, None)


THESE = replace(
    plan(n_max=1),
    epochs=3,
    pool=2,
    population=ClaimPopulation.THESE,
)


def test_the_noise_of_a_score_is_the_variance_of_its_mean() -> None:
    scores = [1.0, 0.25, 0.5]
    ours = [*epochs("a", 0, scores), *epochs("a", 1, [0.0, None, 1.0])]
    found = pair_samples(THESE, ours, epochs("b", 0, [1.0, None, 0.5]))

    # A missing score counts against promotion on both sides, here as in the mean.
    assert found.items[0].variance == pytest.approx(variance([1.0, 0.0, 0.5]) / 3)
    expected = (variance(scores) / 3, variance([0.0, 1.0, 1.0]) / 3)
    assert found.pool_variances == pytest.approx(expected)
    assert found.pool == pytest.approx((fmean(scores), 2 / 3))


def test_two_answers_of_one_length_are_as_noisy_as_can_be() -> None:
    alike = [replace(sample, output_tokens=7) for sample in epochs("b", 0, [1.0, 1.0, 1.0])]
    ours = [*epochs("a", 0, [1.0] * 3), *alike_pool()]
    found = pair_samples(THESE, ours, [alike[0], alike[1], replace(alike[2], output_tokens=9)])

    assert found.items[0].variance == MOST_NOISE == pvariance([0.0, 1.0])
    assert found.pool_variances == (0.0, MOST_NOISE)


def alike_pool() -> list[Sample]:
    return [replace(sample, output_tokens=5) for sample in epochs("a", 1, [0.0] * 3)]


@pytest.mark.parametrize(
    "changed",
    [{"population": ClaimPopulation.LIKE_THESE}, {"epochs": 1}],
)
def test_noise_is_measured_only_for_these_items_asked_anew(changed: dict[str, object]) -> None:
    asked = replace(THESE, **changed)  # type: ignore[arg-type]
    scores = [1.0] * asked.epochs
    ours = [*epochs("a", 0, scores), *epochs("a", 1, scores)]
    found = pair_samples(asked, ours, epochs("b", 0, scores))

    assert (found.items[0].variance, found.pool_variances) == (None, ())
    assert found.pool == (1.0, 1.0)


def test_a_pool_is_awaited_until_each_epoch_of_each_item_is_in() -> None:
    ours = [*epochs("a", 0, [1.0] * 3), *epochs("a", 1, [0.5] * 3)]
    theirs = epochs("b", 0, [1.0] * 3)

    assert pair_samples(THESE, ours[:-1], theirs).pool is None
    assert pair_samples(replace(THESE, pool=3), ours, theirs).pool is None
    assert pair_samples(replace(THESE, pool=0), ours, theirs).pool is None
    short = pair_samples(THESE, ours[:-1], theirs)
    assert short.pool_variances == ()
    gone = [*ours[:-1], broken(ours[-1])]
    assert (pair_samples(THESE, gone, theirs).pool, pair_samples(THESE, ours, []).pool) == (
        (),
        (1.0, 0.5),
    )


@pytest.mark.parametrize(("planned", "allowed"), [(49, 0), (50, 1), (99, 1), (100, 2)])
def test_two_percent_of_the_planned_items_may_stay_unanswered(
    planned: int, allowed: int
) -> None:
    asked = plan(n_max=planned)
    ours = [sample for n in range(10) for sample in epochs("a", n, [1.0])]
    theirs = [sample for n in range(10) for sample in epochs("b", n, [1.0])]
    theirs[2:5] = map(broken, theirs[2:5])

    found = pair_samples(asked, ours, theirs)
    assert len(found.items) == 2 + allowed
    last = f"the last was q{2 + allowed}: 503"
    said = f"did not answer {allowed + 1} items, more than 2 % of those planned; {last}"
    assert found.blocked == f"the candidate {said}"


@pytest.mark.parametrize(
    ("text", "said"),
    [("503. ", "503"), ("", "no reply"), (". .", "no reply"), ("a. b", "a. b")],
)
def test_a_reason_stands_within_its_sentence(text: str, said: str) -> None:
    ours = [replace(broken(sample), error_text=text) for sample in epochs("a", 0, [1.0])]

    found = pair_samples(plan(), ours, epochs("b", 0, [1.0]))
    assert found.blocked == f"the incumbent did not answer item q0: {said}"


@pytest.mark.parametrize(
    ("side", "field", "whose"),
    [
        (0, "served_model", "the incumbent"),
        (1, "served_model", "the candidate"),
        (0, "judge_model", "the judge"),
        (1, "judge_model", "the judge"),
    ],
)
def test_another_model_from_an_item_on_ends_the_pairs_there(
    side: int, field: str, whose: str
) -> None:
    asked = replace(plan(), served_pin=ServedPin.MODEL)
    sides = [
        [replace(s, **{field: "m-1"}) for n in range(9) for s in epochs(run, n, [1.0])]  # type: ignore[arg-type]
        for run in ("a", "b")
    ]
    for position in (5, 6):
        sides[side][position] = replace(sides[side][position], **{field: "m-2"})  # type: ignore[arg-type]
    found = pair_samples(asked, *sides)

    assert [item.pair.item for item in found.items] == [f"q{n}" for n in range(5)]
    assert found.blocked == (
        f"two models answered as {whose}: m-1 from item q0 on, m-2 to item q5; that is no one "
        "measurement"
    )
    unpinned = pair_samples(replace(asked, served_pin=ServedPin.NONE), *sides)
    assert (len(unpinned.items), unpinned.blocked) == (9, "")


def test_a_lenient_score_outside_the_scale_is_refused_too() -> None:
    for score in (1.0 + 1e-9, -1e-9):
        wrong = [replace(sample, lenient=score) for sample in epochs("a", 0, [0.0])]
        with pytest.raises(InputError, match="the lenient score is"):
            pair_samples(plan(), wrong, [])
    ends = [replace(sample, lenient=1.0) for sample in epochs("a", 0, [0.0])]
    assert pair(plan(), ends, epochs("b", 0, [1.0])).pair.lenient_incumbent == 1.0


MEMBERS = [
    PairedItem(
        ScorePair("q0", 0.0, 0.25, 0.5, 0.75),
        unscored_incumbent=1,
        unscored_candidate=2,
        rules=("case",),
        costs=(1.0, 4.0),
    ),
    PairedItem(
        ScorePair("q1", 1.0, 0.5, 1.0, 1.0),
        unscored_incumbent=3,
        unscored_candidate=5,
        unanswered=True,
        rules=("quotes", "case"),
        costs=(2.0, None),
    ),
    PairedItem(ScorePair("q2", 0.5, 0.0, 0.75, 0.5), costs=(6.0, 1.0)),
]


def clustered(*sizes: int) -> SuitePlan:
    return replace(plan(n_max=len(sizes)), cluster="document", cluster_sizes=sizes)


def test_a_cluster_holds_the_means_sums_and_marks_of_its_items() -> None:
    (merged,) = merge_clusters(clustered(3), MEMBERS)

    assert merged == PairedItem(
        ScorePair("q0", 0.5, 0.25, 0.75, 0.75),
        unscored_incumbent=4,
        unscored_candidate=7,
        unanswered=True,
        rules=("case", "quotes", "case"),
        costs=(3.0, None),
    )
    first, second = merge_clusters(clustered(2, 1), MEMBERS)
    assert (first.costs, second.costs) == ((1.5, None), (6.0, 1.0))
    assert (first.unanswered, second.unanswered) == (True, False)
    assert merge_clusters(clustered(2, 2), MEMBERS) == (first,)
    assert merge_clusters(plan(), MEMBERS) == tuple(MEMBERS)


@given(st.lists(st.integers(1, 4), max_size=6), st.integers(0, 20))
def test_clusters_are_made_of_whole_ones_alone(sizes: list[int], items: int) -> None:
    asked = clustered(*sizes) if sizes else clustered(30)
    members = [replace(MEMBERS[2], pair=ScorePair(f"q{n}", 0, n, 0, n)) for n in range(items)]

    merged = merge_clusters(asked, members)
    assert len(merged) == asked.units_in(items)
    starts = [sum(sizes[:k]) for k in range(len(merged))]
    assert [unit.pair.item for unit in merged] == [f"q{start}" for start in starts]
    means = [start + (size - 1) / 2 for start, size in zip(starts, sizes, strict=False)]
    assert [unit.pair.candidate for unit in merged] == means


def test_unanswered_items_become_ties_and_others_stay() -> None:
    first, tied, last = without_unanswered(MEMBERS)

    assert (first, last) == (MEMBERS[0], MEMBERS[2])
    assert tied.pair == ScorePair("q1", 1.0, 1.0, 1.0, 1.0)
    assert tied.unanswered


def test_a_suite_without_pairs_names_nobody() -> None:
    nothing = PairedSuite((), "", "")
    assert nothing.served == ServedModels()
    assert pair_samples(plan(), [], []) == nothing
