from dataclasses import replace
from typing import Any

import pytest

from dashboard.views import verdict_text
from harness.gate.offline.verdicts import _reason
from harness.gate.sentences import RECORDED_HISTORY
from harness.gate.suite_plan import Claim, SuiteRole
from harness.gate.verdict import (
    CostFigures,
    SliceFigures,
    SuiteFigures,
    SuiteReport,
    VerdictBasis,
)
from harness.gate.verdict_sentences import (
    describe_claim,
    describe_slice_result,
    describe_suite_result,
    list_deciding_reports,
    list_reports,
)
from harness.proposals.report.comparison import ArmFigures

pytestmark = pytest.mark.req("A7", "F2")
DANISH = SliceFigures("language", "Danish", 60, 90, -0.5, -0.63, -0.37, 0.001, worse=True)
REPORT = SuiteReport(
    suite="mail",
    role=SuiteRole.PRIMARY,
    claim=Claim.NON_INFERIOR,
    margin=0.02,
    outcome="passed",
    how="final",
    n_used=500,
    n_max=500,
    delta=-0.004,
    ci_low=-0.026,
    ci_high=0.018,
    ci_method="tango",
    log_e_bad=0.0,
    p_final=0.01,
    wins=15,
    ties=468,
    losses=17,
    reason="",
)


def test_a_verdict_about_several_suites_says_that_agents_runs_have_recorded_histories() -> None:
    plain = replace(REPORT, suite="chat", reason="Fine.")
    agents = replace(REPORT, suite="agents", reason=f"Fine. {RECORDED_HISTORY}")

    for named, other in ((plain, agents), (agents, plain)):
        reason = _reason("passed", [named], [named, other])
        assert reason.count(RECORDED_HISTORY) == 1


def report(outcome: str = "passed", **figures: Any) -> SuiteReport:
    return replace(REPORT, outcome=outcome, details=SuiteFigures(**figures).as_json())


def basis(*suites: SuiteReport, mean: SuiteReport | None = None) -> VerdictBasis:
    return VerdictBasis("failed", (), suites, mean, {})


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (
            REPORT,
            "−0.4 points, 95 % CI −2.6 to +1.8; allowed loss 2.0; 500 pairs.",
        ),
        (
            replace(REPORT, claim=Claim.SUPERIOR),
            "must be better than 0; 500 pairs.",
        ),
        (
            replace(REPORT, n_used=29),
            "−0.4 points on 29 pairs: too few for an interval",
        ),
        (
            report("inconclusive"),
            "500 pairs. The interval crosses the limit.",
        ),
        (
            replace(report(cluster="document", items=93), n_used=31),
            "93 pairs in 31 clusters (by document)",
        ),
        (
            replace(REPORT, n_used=0, reason="no answer came"),
            "no answer came",
        ),
        (
            report("harness_mismatch", rule="code_fence"),
            "Most often violated format rule: code_fence",
        ),
    ],
)
def test_a_suite_is_told_with_its_limit_its_pairs_and_what_is_open(
    found: SuiteReport, says: str
) -> None:
    assert says in describe_suite_result(found, basis(found))


def test_a_slice_that_is_shown_worse_fails_its_suite_and_a_chart_says_what_decided() -> None:
    failed = report("failed", slices=(DANISH,))
    assert describe_slice_result(DANISH, failed) == (
        "−50.0 points, 95 % CI −63.0 to −37.0; 60 items. The slice is shown worse, so the "
        "candidate fails, whatever the suite's mean is."
    )
    assert "The candidate's score on this slice is lower." in describe_slice_result(
        DANISH, report("inconclusive")
    )
    later = replace(report(slices=(DANISH, replace(DANISH, value="English"))), n_used=100)
    assert "decided on the first 100 items; the slices were tested on more" in (
        verdict_text.slices_note(later)
    )
    clusters = report(cluster="document")
    note = verdict_text.bars_note([REPORT, clusters], {"mail": "Customer mail"})
    assert (
        "The bars of Customer mail count clusters; a cluster's score is the mean over the "
        "items of one document." in note
    )


def test_what_failed_is_told_before_what_passed_and_a_mean_before_its_members() -> None:
    passed = replace(REPORT, suite="a")
    failed = replace(REPORT, suite="b")
    failed = replace(failed, outcome="failed")
    assert list(list_deciding_reports(basis(passed, failed))) == [failed]
    mean = replace(REPORT, suite="the mean", outcome="failed")
    assert list_reports(basis(passed, failed, mean=mean))[0] is mean


def test_a_cheaper_model_is_told_with_its_saving_and_its_allowed_loss() -> None:
    cheaper = replace(report(cost=CostFigures(min_saving=0.2)), claim=Claim.CHEAPER)
    assert describe_claim(VerdictBasis("passed", (), (cheaper,), None, {})) == (
        "Cheaper by at least 20 % and at most 2 points worse on mail."
    )


def test_the_output_speed_of_both_models_is_shown_where_it_is_known() -> None:
    unknown = ArmFigures(0, None, None, None, None)
    known = replace(unknown, tokens_per_s=41.5)
    shown = (
        (known, replace(known, tokens_per_s=38.25)),
        (unknown, known),
        (known, unknown),
    )

    tiles = [verdict_text.tiles(*both)[-1] for both in shown]

    assert [(tile.figure, tile.below) for tile in tiles] == [
        ("38.2", "was 41.5"),
        ("41.5", ""),
        ("–", "was 41.5"),
    ]
