"""Holm's rule on several primary suites, report by report, and which report of all suites
speaks for the outcome.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from tests.unit.test_gate_claim_groups import case, items, part, spread

from harness.domain.evals.suite_figures import HolmFigures
from harness.domain.evals.suite_plan import Claim, PrimaryCombination, SuitePlan, SuiteRole
from harness.gate.offline.pairs import PairedSuite
from harness.gate.offline.primary_suites import WEIGHTED_MEAN, ClaimGroup, at_least_one
from harness.gate.offline.suite_claims import SuiteClaim, judge_claim
from harness.gate.offline.suite_judgement import judge_pairs
from harness.gate.offline.verdicts import JointJudgement, judge_suites
from tests.unit.test_gate_verdicts import plan

pytestmark = pytest.mark.req("F2", "A7")


def rival(name: str, n_max: int = 100, alpha: float = 0.05) -> SuitePlan:
    made = replace(plan(name, n_max=n_max), combine=PrimaryCombination.ANY)
    return replace(made, alpha=alpha)


def holm_of(group: ClaimGroup) -> list[tuple[str, HolmFigures | None]]:
    return [(one.report.outcome, one.report.figures.holm) for one in group.members.values()]


def test_each_of_several_suites_says_its_rank_its_p_and_its_limit() -> None:
    rows = [spread(14, 3), spread(30, 2), spread(9, 9), spread(13, 4)]
    plans = [rival(f"s{n}", alpha=0.04 if n == 1 else 0.05) for n in range(4)]
    group = at_least_one([case(one, d) for one, d in zip(plans, rows, strict=True)])
    alone = [
        judge_pairs(one, PairedSuite(items(d), "a", "b"))
        for one, d in zip(plans, rows, strict=True)
    ]
    p = [one.report.p_final for one in alone]
    assert None not in p

    order = sorted(range(4), key=lambda n: p[n] or 0.0)
    shown, going = {}, True
    for rank, n in enumerate(order):
        going = going and (p[n] or 0.0) <= 0.04 / (4 - rank)
        shown[n] = going
    assert set(shown.values()) == {True, False}
    for n, (outcome, holm) in enumerate(holm_of(group)):
        rank = order.index(n)
        assert holm == HolmFigures(p[n] or 0.0, rank + 1, 0.04 / (4 - rank))
        assert outcome == ("passed" if shown[n] else "inconclusive")
    passed = [report for vote, report in group.votes]
    assert {vote for vote, _ in group.votes} == {"passed"}
    assert [report.suite for report in passed] == [f"s{n}" for n in reversed(order) if shown[n]]
    assert passed[-1].reason.startswith("The candidate is better: ")
    assert passed[-1].reason.endswith(f"By Holm's rule p = {p[1]:.2g} had to be at most 0.01.")


def test_equal_p_values_have_ranks_in_their_order() -> None:
    group = at_least_one([case(rival(f"s{n}"), spread(9, 9)) for n in range(3)])

    holms = [holm for _, holm in holm_of(group)]
    assert [holm.rank for holm in holms if holm] == [1, 2, 3]
    assert [holm.limit for holm in holms if holm] == pytest.approx([0.05 / 3, 0.025, 0.05])


def test_a_suite_that_is_not_at_its_end_has_a_p_value_of_one() -> None:
    early = case(rival("s0"), [1.0] * 99, stopped=("inconclusive", "budget"))
    one = case(rival("s1", n_max=1), [1.0])
    group = at_least_one([early, one, case(rival("s2"), spread(30, 2))])

    assert [holm.p for _, holm in holm_of(group) if holm][:2] == [1.0, 1.0]
    assert [outcome for outcome, _ in holm_of(group)] == [
        "inconclusive",
        "inconclusive",
        "passed",
    ]
    assert [report.suite for _, report in group.votes] == ["s2"]


@pytest.mark.parametrize(
    ("d", "blocked", "outcome"),
    [
        ([-1.0] * 100, "", "failed"),
        ([0.0] * 50, "", "running"),
        ([0.0] * 50, "x", "infra_error"),
    ],
)
def test_what_is_open_lost_or_not_measured_stands_before_what_passed(
    d: Sequence[float], blocked: str, outcome: str
) -> None:
    group = at_least_one([case(rival("s0"), spread(30, 2)), case(rival("s1"), d, blocked)])

    assert [(vote, report.suite) for vote, report in group.votes] == [(outcome, "s1")]
    report = group.members["s1"].report
    assert "Holm" not in report.reason
    assert report.figures.holm == HolmFigures(1.0, 2, 0.05)


def test_among_several_nobody_passes_where_nobody_is_shown() -> None:
    group = at_least_one([case(rival(f"s{n}"), spread(9, 9)) for n in range(2)])

    assert [vote for vote, _ in group.votes] == ["inconclusive", "inconclusive"]
    for _, report in group.votes:
        assert report.reason.startswith("100 of 100 items did not show that the candidate is")
    close = at_least_one([case(rival("s0"), spread(12, 5)), case(rival("s1"), spread(9, 9))])
    said = close.members["s0"].report.reason
    assert said.startswith("Better by itself, but not after the other suites are counted. By ")


GUARD = plan("guard", SuiteRole.GUARD, Claim.NON_INFERIOR, n_max=100)
REQUIRED = plan("required", SuiteRole.REQUIRED, Claim.NON_INFERIOR, n_max=100)
MAIN = plan("main", n_max=100)


def joint(*cases: SuiteClaim) -> JointJudgement:
    return judge_suites(cases)


def test_of_several_suites_the_deciding_one_speaks() -> None:
    won, lost, tied = [1.0] * 100, [-1.0] * 100, [0.0] * 100
    unsure = spread(25, 25)

    alone = joint(case(MAIN, won))
    assert alone.reason == judge_claim(case(MAIN, won)).report.reason
    both = joint(case(REQUIRED, tied), case(MAIN, won))
    assert both.reason.startswith("All 2 suites passed. main: The candidate is better")
    assert [report.suite for report in both.reports] == ["required", "main"]
    assert both.consumed == tuple(report.n_used for report in both.reports)
    two = joint(case(REQUIRED, lost), case(MAIN, lost))
    assert (two.outcome, two.reason[:22]) == ("failed", "required: The candidat")
    silent = joint(case(GUARD, unsure), case(MAIN, won))
    assert silent.reason.startswith("main: The candidate is better")
    assert silent.reason.endswith(" Not shown to be worse: guard.")
    assert silent.reports[0].reason.endswith(
        "A guard: it is not shown to be worse, and that is all it asks."
    )
    open_ = joint(case(GUARD, unsure), case(MAIN, unsure))
    assert open_.outcome == "inconclusive"
    assert open_.reason.startswith("main: ")
    assert "Not shown to be worse" not in open_.reason
    assert joint(case(GUARD, tied), case(MAIN, won)).reason.startswith("All 2 suites passed.")


def test_a_guard_whose_run_ended_early_does_not_vouch() -> None:
    ended = case(GUARD, spread(25, 25)[:99], stopped=("inconclusive", "budget"))
    found = joint(ended, case(MAIN, [1.0] * 100))

    assert found.outcome == "inconclusive"
    assert found.reason.startswith("guard: ")


def test_the_reports_stand_in_the_order_of_the_cases_and_the_mean_is_last() -> None:
    cases = [
        case(part("b"), [1.0] * 40),
        case(REQUIRED, [0.0] * 100),
        case(part("a"), [1.0] * 40),
    ]
    found = joint(*cases)

    names = [report.suite for report in found.reports]
    assert names == ["b", "required", "a", WEIGHTED_MEAN]
    assert len(found.consumed) == 3
    assert found.outcome == "passed"
    assert found.reason.startswith(f"All 4 suites passed. {WEIGHTED_MEAN}: ")
    assert not math.isnan(found.reports[-1].delta)
