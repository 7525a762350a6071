"""Every figure of a suite's report, and the answers that it counts."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

import pytest

from harness.domain.evals.suite_figures import LenientFigures, SuiteFigures
from harness.domain.evals.suite_plan import Claim, ClaimPopulation, SuitePlan, SuiteRole
from harness.domain.evals.verdict import ScorePair, SuiteReport
from harness.gate.offline.design import design_from_plan
from harness.gate.offline.intervals import mcnemar
from harness.gate.offline.pairs import PairedItem, PairedSuite
from harness.gate.offline.sequential import judge_differences
from harness.gate.offline.suite_judgement import (
    StoppedRun,
    SuiteJudgement,
    judge_pairs,
)
from harness.gate.text.sentences import further_items
from tests.unit.test_gate_verdicts import plan

pytestmark = pytest.mark.req("F2", "A7")


def item(
    n: int, ours: float, theirs: float, loose: tuple[float, float] | None = None
) -> PairedItem:
    return PairedItem(ScorePair(f"q{n}", ours, theirs, *(loose or (ours, theirs))))


def items(
    d: Sequence[float], lenient: Sequence[float] | None = None, ours: float = 0.5
) -> tuple[PairedItem, ...]:
    return tuple(
        item(n, ours, ours + x, (ours, ours + y))
        for n, (x, y) in enumerate(zip(d, lenient or d, strict=True))
    )


def judge(
    asked: SuitePlan,
    pairs: Sequence[PairedItem],
    blocked: str = "",
    stopped: StoppedRun | None = None,
    **known: object,
) -> SuiteJudgement:
    paired = PairedSuite(tuple(pairs), "a", "b", blocked)
    return judge_pairs(asked, replace(paired, **known), stopped=stopped)  # type: ignore[arg-type]


GRADED = [0.3, -0.2, 0.01, 0.0, -0.01, 0.005, 0.0101, -0.3] * 10


def test_a_report_holds_every_figure_of_its_comparison() -> None:
    asked = replace(plan(n_max=80, role=SuiteRole.REQUIRED), margin=0.07, alpha=0.03)
    evidence = judge_differences([(0.5 + x) - 0.5 for x in GRADED], design_from_plan(asked))
    report = judge(asked, items(GRADED)).report

    assert evidence.outcome == "inconclusive"
    assert report == SuiteReport(
        suite="math",
        role=SuiteRole.REQUIRED,
        claim=Claim.SUPERIOR,
        margin=0.07,
        outcome="inconclusive",
        how="final",
        n_used=80,
        n_max=80,
        delta=evidence.delta,
        ci_low=evidence.ci_low,
        ci_high=evidence.ci_high,
        ci_method="t",
        log_e=evidence.log_e,
        log_e_bad=evidence.log_e_bad,
        p_final=evidence.p_final,
        wins=evidence.wins,
        ties=evidence.ties,
        losses=evidence.losses,
        reason=report.reason,
        details=report.details,
    )
    lenient = report.figures.lenient
    assert report.figures == SuiteFigures(
        alpha=0.03,
        t=evidence.t,
        p_t=evidence.p_t,
        log_e_max=evidence.log_e_max,
        sd=evidence.sd,
        incumbent_mean=0.5,
        candidate_mean=fmean(0.5 + x for x in GRADED),
        lenient_incumbent_mean=0.5,
        lenient_candidate_mean=fmean(0.5 + x for x in GRADED),
        near_ties=20,
        more_items=further_items(evidence, design_from_plan(asked)),
        lenient=lenient,
    )
    assert lenient == LenientFigures(
        "inconclusive",
        80,
        evidence.delta,
        evidence.ci_low,
        evidence.ci_high,
        evidence.log_e,
        evidence.p_final,
    )


def test_pass_fail_scores_have_mcnemars_test_and_others_have_none() -> None:
    d = [1.0, -1.0, 0.0, 0.0, 0.0] * 12
    pairs = [item(n, float(x < 0), float(x > 0)) for n, x in enumerate(d)]
    found = judge(plan(n_max=60), pairs).report.figures
    expected = mcnemar(12, 12)

    assert (found.mcnemar_exact, found.mcnemar_mid_p) == (expected.exact, expected.mid_p)
    one = [*pairs[:-1], item(59, 0.0, 0.5)]
    figures = judge(plan(n_max=60), one).report.figures
    assert (figures.mcnemar_exact, figures.mcnemar_mid_p) == (None, None)


def test_the_means_are_those_of_each_side_and_reading() -> None:
    pairs = [item(n, 0.25, 0.5, (0.75, 1.0)) for n in range(3)]
    found = judge(plan(n_max=9), pairs).report.figures

    assert (found.incumbent_mean, found.candidate_mean) == (0.25, 0.5)
    assert (found.lenient_incumbent_mean, found.lenient_candidate_mean) == (0.75, 1.0)
    nothing = judge(plan(n_max=9), []).report
    assert (nothing.figures.incumbent_mean, nothing.figures.sd) == (None, None)
    assert (nothing.outcome, nothing.n_used, nothing.flags) == ("running", 0, ())


def test_answers_without_a_score_are_counted_on_the_items_used_alone() -> None:
    lost = [
        replace(
            item(n, 1.0, 0.0), unscored_incumbent=1, unscored_candidate=2, unanswered=n == 5
        )
        for n in range(60)
    ]
    found = judge(replace(plan(n_max=60), epochs=4), lost).report

    assert (found.outcome, found.n_used) == ("failed", 8)
    assert (found.figures.unscored_incumbent, found.figures.unscored_candidate) == (8, 16)
    assert found.figures.unanswered == 1
    assert "Without a score: 16 of the candidate's 32 answers" in found.reason
    assert found.flags == ("UNSCORED_HIGH",)


@pytest.mark.parametrize(("unscored", "flags"), [(4, ()), (5, ("UNSCORED_HIGH",))])
@pytest.mark.parametrize("side", ["unscored_incumbent", "unscored_candidate"])
def test_more_than_two_percent_of_a_sides_answers_without_a_score_are_flagged(
    unscored: int, flags: tuple[str, ...], side: str
) -> None:
    """Of 50 items with four answers each."""
    pairs = list(items([0.0] * 50))
    pairs[0] = replace(pairs[0], **{side: unscored})  # type: ignore[arg-type]
    found = judge(replace(plan(n_max=50), epochs=4), pairs).report

    assert found.flags == flags
    assert ("Without a score" in found.reason) == bool(flags)
    gone = judge(replace(plan(n_max=90), epochs=4), pairs, "away").report
    assert gone.flags == flags
    assert gone.reason == "Not measured: away."


def test_the_rule_that_broke_most_is_named_with_five_of_its_items() -> None:
    pairs = [
        replace(
            one,
            rules=(("quotes", "case") if n < 7 else ("markup", "markup", "markup")[: n - 6]),
        )
        for n, one in enumerate(items([0.0] * 10))
    ]
    figures = judge(plan(n_max=10), pairs).report.figures

    assert figures.rules == {"case": 7, "markup": 6, "quotes": 7}
    assert list(figures.rules) == ["case", "markup", "quotes"]
    assert (figures.rule, figures.examples) == ("case", ("q0", "q1", "q2", "q3", "q4"))
    none = judge(plan(n_max=10), items([0.0] * 10)).report.figures
    assert (none.rule, none.rules, none.examples) == (None, {}, ())


def test_clusters_looks_and_rules_are_written_where_they_apply() -> None:
    clustered = replace(plan(n_max=20), cluster="document", cluster_sizes=(3,) * 20)
    figures = judge(clustered, items([0.0] * 59)).report.figures
    assert (figures.cluster, figures.items) == ("document", 57)

    again = replace(plan(n_max=9), look=3, spend="first_full")
    figures = judge(again, items([0.0] * 9)).report.figures
    assert (figures.look, figures.spend) == (3, "first_full")
    plain = judge(replace(again, spend=""), items([0.0] * 9)).report
    assert not {"look", "spend", "cluster", "items", "explained"} & plain.details.keys()
    these = replace(plan(n_max=9), population=ClaimPopulation.THESE, pool=9)
    assert judge(these, items([0.0] * 9), pool=()).report.figures.explained == 1.0


def test_differences_of_a_point_look_like_ties_to_people() -> None:
    pairs = [item(0, 0.0, 0.01), item(1, 0.01, 0.0), item(2, 0.0, 0.0101), item(3, 0.5, 0.5)]
    report = judge(plan(n_max=9), pairs).report

    assert report.figures.near_ties == 3
    assert (report.wins, report.ties, report.losses) == (2, 1, 1)
