"""What a judge's calibration makes of differences, of an allowed loss, and of a plan."""

import json
import math
import random
from dataclasses import replace

import numpy as np
import pytest

from dashboard.data.frames import limit_of
from dashboard.text.suite_text import suite_line
from harness.domain.evals.judge_calibration import (
    JudgeCalibration,
    JudgeSlope,
    ReferenceCounts,
)
from harness.domain.evals.suite_plan import (
    Claim,
    PrimaryCombination,
    SuitePlan,
    SuiteRole,
    plan_from_json,
)
from harness.domain.evals.verdict_basis import VerdictBasis
from harness.gate.offline.adjusted import judge_adjusted
from harness.gate.offline.design import Design, design_from_plan
from harness.gate.offline.judge_slope import count_references, judge_figures, measure_slope
from harness.gate.offline.pairs import pair_samples
from harness.gate.offline.primary_suites import weighted_mean
from harness.gate.offline.sequential import judge_differences
from harness.gate.offline.suite_claims import SuiteClaim
from harness.gate.offline.suite_judgement import judge_suite
from harness.gate.planning import budget
from harness.gate.planning.budget import DifferenceSpread
from harness.gate.text.sentences import comparison_reason, further_items, judge_text
from tests.unit.test_gate_combinations import answers

pytestmark = pytest.mark.req("F2", "F7")

PLAN = SuitePlan("s", "sha", SuiteRole.PRIMARY, Claim.NON_INFERIOR, 0.05, 0.05, 200, 1, 7)
HALF = JudgeSlope(0.5, 0.08)


def test_a_pass_fail_slope_is_sensitivity_and_specificity_less_one() -> None:
    ratings = [(1.0, 1.0)] * 18 + [(1.0, 0.0)] * 2 + [(0.0, 1.0)] * 6 + [(0.0, 0.0)] * 14

    slope = measure_slope(ratings)

    assert count_references(ratings) == ReferenceCounts(18, 2, 6, 14)
    assert slope is not None
    assert slope.slope == pytest.approx(0.9 - 0.3)
    right, wrong = 19 / 22, 7 / 22
    expected = math.sqrt(right * (1 - right) / 20 + wrong * (1 - wrong) / 20)
    assert slope.error == pytest.approx(expected, abs=1e-6)


def test_few_references_without_a_mistake_leave_an_error() -> None:
    passed = measure_slope([(1.0, 1.0)] * 5 + [(0.0, 0.0)] * 5)
    graded = measure_slope([(n / 9, n / 9) for n in range(10)])

    assert passed is not None
    assert passed.slope == 1.0
    assert passed.error > 0.2
    assert graded is not None
    assert graded.slope == pytest.approx(1.0)
    assert graded.error > 0.1


def test_a_graded_slope_is_that_of_least_squares() -> None:
    rng = np.random.default_rng(5)
    people = rng.integers(0, 5, 400) / 4
    ours = np.clip(0.2 + 0.6 * people + rng.normal(0, 0.05, 400), 0, 1)

    slope = measure_slope(list(zip(people.tolist(), ours.tolist(), strict=True)))

    assert slope is not None
    assert slope.slope == pytest.approx(float(np.polyfit(people, ours, 1)[0]), abs=1e-6)
    assert 0.005 < slope.error < 0.01


def test_the_error_of_a_graded_slope_is_the_usual_one_where_no_residual_stands_out() -> None:
    people = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    ours = [0.1, 0.2, 0.3, 0.7, 0.6, 0.9]

    slope = measure_slope(list(zip(people, ours, strict=True)))

    line = np.polyfit(people, ours, 1)
    left = math.fsum((np.array(ours) - np.polyval(line, people)) ** 2)
    size = math.fsum((np.array(people) - 0.5) ** 2)
    assert slope is not None
    # A quarter is added to the squares: few references may all lie on the line.
    assert slope.error == pytest.approx(math.sqrt((left + 0.25) / 4 / size), abs=1e-6)


def test_the_error_of_a_graded_slope_is_hc3s_where_the_judge_errs_most_at_the_ends() -> None:
    people = [0.0] * 20 + [0.5] * 20 + [1.0] * 20
    ours = [0.1, 0.9] * 10 + [0.5] * 20 + [0.3, 1.0] * 10

    slope = measure_slope(list(zip(people, ours, strict=True)))

    line = np.polyfit(people, ours, 1)
    spread = np.array(people) - 0.5
    size = math.fsum(spread**2)
    free = 1 - 1 / 60 - spread**2 / size
    left = (np.array(ours) - np.polyval(line, people)) / free
    assert slope is not None
    assert slope.error == pytest.approx(math.sqrt(math.fsum((spread * left) ** 2)) / size)


def test_a_reference_that_the_judge_does_not_score_counts_against_it() -> None:
    silent = measure_slope([(1.0, None)] * 5 + [(0.0, None)] * 5)

    assert silent is not None
    assert silent.slope == -1.0


@pytest.mark.parametrize("people", [0.0, 1.0, 0.5])
def test_references_of_one_score_have_no_slope(people: float) -> None:
    assert measure_slope([(people, 1.0)] * 6 + [(people, 0.0)] * 6) is None


def test_a_plan_without_a_calibration_is_written_as_before() -> None:
    assert "judge" not in PLAN.as_json()
    judged = replace(PLAN, judge=HALF)
    assert plan_from_json(json.loads(json.dumps(judged.as_json()))) == judged
    known = JudgeCalibration(40, 0.6, HALF, ReferenceCounts(18, 2, 6, 14))
    assert JudgeCalibration.from_json(json.loads(json.dumps(known.as_json()))) == known


@pytest.mark.parametrize("claim", [Claim.SUPERIOR, Claim.NON_INFERIOR])
def test_a_judge_that_scores_as_people_do_changes_no_bit(claim: Claim) -> None:
    rng = random.Random(3)
    plain = Design(claim, 0.05, 150)
    certain = replace(plain, slope=1.0, slope_error=0.0)
    for scores in ((-1.0, 0.0, 0.0, 1.0), (-0.25, 0.0, 0.5)):
        d = [rng.choice(scores) for _ in range(150)]
        assert judge_differences(d, certain) == judge_differences(d, plain)
        assert judge_adjusted(d, certain) == judge_adjusted(d, plain)


def test_a_slope_above_one_allows_no_larger_loss() -> None:
    easy = design_from_plan(replace(PLAN, judge=JudgeSlope(1.4, 0.0)))

    assert easy.theta0 == design_from_plan(PLAN).theta0
    for slope in (0.0, -0.3):
        assert design_from_plan(replace(PLAN, judge=JudgeSlope(slope, 0.1))).theta0 == 0.0


def test_no_calibration_makes_an_allowed_loss_easier_to_show() -> None:
    rng = random.Random(11)
    for _ in range(150):
        lift, graded = rng.uniform(-0.05, 0.1), rng.random() < 0.5
        d = [
            max(-1.0, min(1.0, rng.gauss(lift, 0.2)))
            if graded
            else float(rng.random() < 0.15 + lift) - float(rng.random() < 0.15)
            for _ in range(120)
        ]
        plain = Design(Claim.NON_INFERIOR, 0.05, 120)
        known = replace(plain, slope=rng.uniform(0.1, 1.3), slope_error=rng.uniform(0, 0.2))
        for judge in (judge_differences, judge_adjusted):
            if judge(d, known).outcome == "promote":
                assert judge(d, plain).outcome == "promote"


def test_superiority_has_the_same_test_with_any_slope() -> None:
    d = [1.0, 0.0, 0.0, -1.0, 0.0, 1.0] * 20
    design = Design(Claim.SUPERIOR, 0.05, 120)

    assert judge_differences(d, replace(design, slope=0.4, slope_error=0.1)) == (
        judge_differences(d, design)
    )


@pytest.mark.parametrize("slope", [0.0, -0.4])
@pytest.mark.parametrize("claim", [Claim.SUPERIOR, Claim.NON_INFERIOR])
@pytest.mark.parametrize("cluster_size", [None, 2.0])
def test_a_judge_that_shows_no_difference_or_its_opposite_passes_nobody(
    slope: float, claim: Claim, cluster_size: float | None
) -> None:
    design = Design(claim, 0.05, 120, cluster_size=cluster_size)
    blind = replace(design, slope=slope, slope_error=0.02)
    for d in ([1.0, 1.0, 1.0, 0.0] * 30, [0.5, 0.4, 0.6] * 40):
        for judge in (judge_differences, judge_adjusted):
            assert judge(d, design).outcome == "promote"
            assert judge(d, blind).outcome == "inconclusive"


@pytest.mark.parametrize(
    ("slope", "error"),
    [(math.nan, 0.1), (math.inf, 0.1), (0.9, math.nan), (0.9, math.inf), (0.9, -10.0)],
)
def test_a_slope_that_is_no_measurement_is_refused(slope: float, error: float) -> None:
    with pytest.raises(ValueError, match="no slope"):
        JudgeSlope(slope, error)


def test_the_difference_as_people_score_it_holds_the_error_of_the_slope() -> None:
    certain = judge_figures(JudgeSlope(0.5, 0.0), 0.05, 0.01, 0.10)
    assert (certain.delta, certain.ci_low, certain.ci_high) == pytest.approx((0.1, 0.02, 0.2))
    unsure = judge_figures(JudgeSlope(0.5, 0.1), 0.05, 0.01, 0.10)
    assert unsure.ci_low is not None
    assert unsure.ci_high is not None
    assert unsure.ci_low < 0.02
    assert unsure.ci_high > 0.2
    assert judge_figures(JudgeSlope(0.1, 0.06), 0.05, 0.01, 0.10).delta is None


def test_a_verdict_says_what_people_would_score() -> None:
    plan = replace(PLAN, margin=0.1, judge=HALF)
    report = judge_suite(plan, *answers(random.Random(4), plan, better=False))

    assert report.figures.judge is not None
    assert report.figures.judge.delta == pytest.approx(report.delta / 0.5)
    assert "As people would score it" in report.reason
    assert "the judge shows 0.50 ± 0.08 of such a difference" in report.reason
    plain = replace(plan, judge=None)
    before = judge_suite(plain, *answers(random.Random(4), plain, better=False))
    assert "judge" not in before.details
    assert "people" not in before.reason
    unknown = replace(plan, judge=JudgeSlope(0.05, 0.05))
    told = judge_suite(unknown, *answers(random.Random(4), unknown, better=False)).reason
    assert "how people would score it cannot be told" in told


def test_a_weighted_mean_is_judged_by_the_lowest_slope() -> None:
    plans = [
        replace(PLAN, suite=f"s{n}", combine=PrimaryCombination.WEIGHTED, judge=judge)
        for n, judge in enumerate((None, JudgeSlope(0.9, 0.01), HALF))
    ]
    cases = [
        SuiteClaim(plan, pair_samples(plan, *answers(random.Random(n), plan, better=False)))
        for n, plan in enumerate(plans)
    ]

    whole = weighted_mean(cases).whole

    assert whole is not None
    assert whole.figures.judge is not None
    assert whole.figures.judge.slope == HALF.slope


def test_the_plan_says_what_the_judge_costs() -> None:
    assert judge_text(PLAN, judged=False) == ""
    assert "was not compared with people" in judge_text(PLAN, judged=True)
    allowed = judge_text(replace(PLAN, judge=HALF), judged=True)
    assert "allowed loss of 5 points is one of 2.5 in its scores" in allowed
    assert "about 4.0 times as many items" in allowed
    better = replace(PLAN, claim=Claim.SUPERIOR, judge=HALF)
    assert "a true difference takes about 4.0 times as many items" in (
        judge_text(better, judged=True)
    )
    assert "nothing can be shown" in (
        judge_text(replace(PLAN, judge=JudgeSlope(0.0, 0.1)), judged=True)
    )


def test_items_grow_with_the_square_of_what_the_judge_does_not_show() -> None:
    spread = DifferenceSpread(0.16, 0.04, 60)
    better = replace(PLAN, claim=Claim.SUPERIOR, judge=HALF)

    assert budget.spread_as_people_score(spread, PLAN) == spread
    known = budget.spread_as_people_score(spread, better)
    assert (known.between, known.within) == pytest.approx((0.64, 0.16))
    needed = budget.items_needed(known.sd(1), 0.05)
    assert needed == pytest.approx(4 * budget.items_needed(spread.sd(1), 0.05), rel=0.01)
    # The error of an allowed loss is not lowered by more items.
    allowed = budget.spread_as_people_score(spread, replace(PLAN, judge=HALF))
    assert allowed.between > known.between
    hopeless = budget.spread_as_people_score(spread, replace(PLAN, judge=JudgeSlope(0, 0.1)))
    assert budget.items_needed(hopeless.sd(1), 0.05) > 10**6


def test_a_verdict_says_the_allowed_loss_in_the_judges_scores() -> None:
    plan = replace(PLAN, judge=HALF)
    ours, theirs = answers(random.Random(4), plan, better=False)
    report = judge_suite(plan, ours, theirs)

    assert report.allowed_loss == 0.025
    assert limit_of(report) == -0.025
    basis = VerdictBasis("passed", (plan,), (report,), None, {plan.suite: report.n_used})
    assert "allowed loss 5.0, 2.5 as its judge scores" in suite_line(report, basis)
    assert judge_suite(PLAN, ours, theirs).allowed_loss == PLAN.margin
    design = design_from_plan(plan)
    for differences in ([0.0] * 200, [0.1, 0.0] * 100, [-0.02, 0.0] * 100):
        said = comparison_reason(judge_differences(differences, design), design)
        assert "5 points" in said
        assert "2.5 in its judge's scores" in said


def test_no_number_of_items_is_named_for_a_judge_that_shows_nothing() -> None:
    design = design_from_plan(replace(PLAN, n_max=60, judge=JudgeSlope(-0.3, 0.1)))
    evidence = judge_differences([1.0, 0.0] * 30, design)

    assert further_items(evidence, design) is None
    said = comparison_reason(evidence, design)
    assert "No number of items shows anything with this judge." in said
