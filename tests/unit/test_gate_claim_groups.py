"""Several suites as one claim: the items, the plan and the parts of a weighted mean."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from harness.domain.content_hash import digest
from harness.domain.evals.item_groups import Slice
from harness.domain.evals.suite_plan import (
    PrimaryCombination,
    SuitePlan,
)
from harness.domain.evals.verdict import ScorePair
from harness.gate.offline import primary_suites
from harness.gate.offline.pairs import PairedItem, PairedSuite
from harness.gate.offline.primary_suites import (
    WEIGHTED_MEAN,
    weight_shares,
    weighted_mean,
)
from harness.gate.offline.suite_claims import SuiteClaim
from harness.gate.offline.suite_judgement import StoppedRun
from tests.unit.test_gate_verdicts import plan

pytestmark = pytest.mark.req("F2", "A7")


def items(d: Sequence[float]) -> tuple[PairedItem, ...]:
    return tuple(
        PairedItem(ScorePair(f"q{n}", max(0.0, -x), max(0.0, x), max(0.0, -x), max(0.0, x)))
        for n, x in enumerate(d)
    )


def case(
    asked: SuitePlan,
    d: Sequence[float],
    blocked: str = "",
    stopped: StoppedRun | None = None,
    pool: tuple[float, ...] | None = None,
) -> SuiteClaim:
    return SuiteClaim(asked, PairedSuite(items(d), "a", "b", blocked, pool), stopped)


def part(name: str, weight: float = 1.0, n_max: int = 100, **changes: object) -> SuitePlan:
    made = replace(plan(name, n_max=n_max), combine=PrimaryCombination.WEIGHTED, weight=weight)
    return replace(made, **changes)  # type: ignore[arg-type]


def spread(wins: int, losses: int, n: int = 100) -> list[float]:
    """Wins and losses in turns over the whole order."""
    marks = [1.0] * wins + [-1.0] * losses
    d = [0.0] * n
    for k, mark in enumerate(sorted(marks, key=lambda mark: (marks.index(mark), mark))):
        d[(k * 37) % n] = mark
    return d


FIRST = PairedItem(
    ScorePair("q0", 0.2, 0.4, 0.6, 0.8),
    unscored_incumbent=1,
    unscored_candidate=5,
    rules=("case",),
    costs=(1.0, 2.0),
)
SECOND = PairedItem(
    ScorePair("x0", 1.0, 0.0, 0.4, 0.2),
    unscored_incumbent=3,
    unscored_candidate=2,
    unanswered=True,
    rules=("quotes",),
    costs=(5.0, None),
)


def composite(cases: Sequence[SuiteClaim]) -> SuiteClaim:
    return primary_suites._composite(cases)


def test_an_item_of_the_mean_is_the_weighted_mean_of_its_parts() -> None:
    cases = [
        SuiteClaim(part("a", 3.0), PairedSuite((FIRST, FIRST, FIRST), "a", "b")),
        SuiteClaim(part("b", 1.0), PairedSuite((SECOND, SECOND), "a", "b")),
    ]
    assert weight_shares([one.plan for one in cases]) == (0.75, 0.25)
    whole = composite(cases)
    first, second = whole.paired.items

    scores = (first.pair.incumbent, first.pair.candidate)
    assert scores == pytest.approx((0.4, 0.3))
    lenient = (first.pair.lenient_incumbent, first.pair.lenient_candidate)
    assert lenient == pytest.approx((0.55, 0.65))
    assert (first.pair.item, second.pair.item) == ("1", "2")
    assert (first.unscored_incumbent, first.unscored_candidate) == (3, 5)
    assert (first.unanswered, first.rules) == (True, ("case", "quotes"))
    assert first.costs == (2.0, None)
    assert (whole.paired.incumbent_run, whole.paired.candidate_run) == ("", "")


def test_three_thirds_of_a_whole_score_are_a_whole_score() -> None:
    """The shares of these weights sum to a little more than 1."""
    plans = [part("a", 3.0, n_max=4), part("b", 1.1, n_max=4)]
    assert sum(weight_shares(plans)) > 1.0

    whole = composite([case(terms, [1.0]) for terms in plans])
    assert [item.pair.candidate for item in whole.paired.items] == [1.0]


def test_the_plan_of_the_mean_takes_what_is_strictest_in_its_parts() -> None:
    plans = [
        part("a", alpha=0.04, n_max=90, look=1, suite_digest="one"),
        part("b", alpha=0.03, n_max=120, look=3, suite_digest="two"),
        part("c", alpha=0.05, n_max=100, look=2),
    ]
    plans[1] = replace(plans[1], order_seed=8, epochs=2)
    whole = composite([case(one, [0.0] * 50) for one in plans]).plan

    # The rest is the same in all of them: it is the first one's.
    assert whole == replace(
        plan(n_max=90),
        suite=WEIGHTED_MEAN,
        suite_digest=digest(["one", "two", "sha"]),
        alpha=0.03,
        look=3,
    )
    grouped = part("a", cluster="document", cluster_sizes=(2,) * 100)
    grouped = replace(grouped, slices=(Slice("kind", "x", tuple(range(120))),))
    made = composite([case(grouped, [0.0] * 9), case(part("b"), [0.0] * 9)])
    assert (made.plan.cluster, made.plan.cluster_sizes, made.plan.slices) == ("", (), ())
    assert (made.plan.combine, made.plan.weight) == (None, 1.0)
    assert len(made.paired.items) == 4


def test_whoever_ended_first_says_why_nothing_comes_after_it() -> None:
    late = case(part("a"), [0.0] * 9, "a is away", ("inconclusive", "a's budget"))
    first = case(part("b"), [0.0] * 5, "b is away", ("infra_error", "b died"))
    both = case(part("c"), [0.0] * 5, "c is away", ("inconclusive", "c's budget"))

    assert composite([late, first]).paired.blocked == "b is away"
    assert composite([late, first]).stopped == ("infra_error", "b died")
    assert composite([both, first, late]).paired.blocked == "c is away"
    assert composite([both, first, late]).stopped == ("infra_error", "b died")
    assert composite([first, both]).stopped == ("infra_error", "b died")
    assert composite([late, both]).stopped == ("inconclusive", "c's budget")
    fine = case(part("d"), [0.0] * 5)
    assert composite([late, fine]).stopped is None
    assert composite([late, fine]).paired.blocked == ""
    assert composite([fine, first]).paired.blocked == "b is away"


def test_a_part_of_the_mean_says_its_weight_and_that_it_is_open_by_itself() -> None:
    cases = [case(part("a", 2.5), [1.0] * 40), case(part("b"), [0.0] * 40)]
    group = weighted_mean(cases)
    assert group.whole is not None
    assert group.whole.outcome == "passed"
    used = group.whole.n_used

    a, b = group.members["a"], group.members["b"]
    assert (a.consumed, b.consumed) == (used, used) != (40, 40)
    assert a.report.outcome == "passed"
    assert a.report.reason.endswith("It counts in the weighted mean, with weight 2.5.")
    assert (b.report.outcome, b.report.n_used) == ("inconclusive", used)
    assert b.report.reason == ("Open by itself. It counts in the weighted mean, with weight 1.")
    assert group.votes == (("passed", group.whole),)
    open_ = weighted_mean([case(part("a"), [0.0] * 10), case(part("b"), [0.0] * 20)])
    assert [one.report.outcome for one in open_.members.values()] == ["running", "running"]
    assert [one.consumed for one in open_.members.values()] == [10, 10]
    assert [vote for vote, _ in open_.votes] == ["running"]


def test_a_part_that_is_shown_worse_counts_by_itself_before_the_mean() -> None:
    cases = [case(part("a", 9.0), spread(40, 0)), case(part("b"), [-1.0] * 100)]
    group = weighted_mean(cases)

    assert group.whole is not None
    assert [(vote, report.suite) for vote, report in group.votes] == [
        ("failed", "b"),
        (group.whole.outcome, WEIGHTED_MEAN),
    ]
    assert group.members["b"].consumed >= group.whole.n_used
    assert group.members["b"].report.n_used == 8
    assert "It counts in the weighted mean" not in group.members["b"].report.reason


def test_a_part_that_is_blocked_where_the_mean_is_decided_is_inconclusive_by_itself() -> None:
    blocked = case(part("b"), [0.0] * 12, "away")
    cases = [case(part("a", 20.0), [1.0] * 12), blocked]
    group = weighted_mean(cases)

    assert group.whole is not None
    assert group.whole.outcome == "passed"
    assert group.members["b"].report.outcome == "inconclusive"
    open_ = weighted_mean([case(part("a", 20.0), [0.0] * 12), blocked])
    assert open_.whole is not None
    assert open_.whole.outcome == "infra_error"


def test_a_mean_waits_for_the_slices_of_its_parts() -> None:
    guarded = part("a", slices=(Slice("kind", "x", tuple(range(10, 90))),))
    better = [1.0] * 100
    for n, outcome in ((69, "running"), (70, "passed"), (100, "passed")):
        cases = [case(guarded, better[:n]), case(part("b"), better[:n])]
        group = weighted_mean(cases)
        assert group.whole is not None
        assert group.whole.outcome == outcome
        assert group.votes[0][0] == outcome
        assert {one.consumed for one in group.members.values()} == {min(n, 70)}
        assert group.members["a"].report.outcome == outcome
    away = weighted_mean([case(guarded, better[:69], "away"), case(part("b"), better[:69])])
    assert away.votes[0][0] == "infra_error"
    assert away.members["a"].report.outcome == "inconclusive"
    assert away.whole is not None
    assert away.whole.reason.endswith("That counts once 60 of each slice are in.")
