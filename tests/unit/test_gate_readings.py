"""A suite under its different readings: by form, without unanswered items, given up, and by the
adjusted rule with what was known before.
"""

from dataclasses import replace

import numpy as np
import pytest

from harness.domain.errors import InputError
from harness.domain.evals.suite_plan import ClaimPopulation, SuiteRole
from harness.gate.offline.adjusted import AnswerNoise, Covariates, judge_adjusted
from harness.gate.offline.design import design_from_plan
from harness.gate.offline.futility import FUTILE, judge_or_give_up
from harness.gate.offline.pairs import PairedItem, PairedSuite
from harness.gate.offline.sequential import judge_differences
from harness.gate.offline.suite_judgement import (
    end_pool,
)
from tests.unit.test_gate_report_fields import GRADED, item, items, judge
from tests.unit.test_gate_verdicts import plan

pytestmark = pytest.mark.req("F2", "A7")


LOST, HELD = [-0.5] * 60, [0.0] * 60


def test_a_loss_is_told_by_substance_within_the_margin_and_by_the_registered_claim() -> None:
    """A strict loss asks whether the lenient scores hold; a strict draw whether they win."""
    lost = judge(plan(n_max=60), items(LOST, HELD))
    assert lost.report.outcome == "harness_mismatch"
    assert lost.report.figures.lenient is not None
    assert (lost.report.n_used, lost.consumed) == (14, 60)
    assert lost.report.reason == (
        "The candidate loses by form, not by substance: −50.0 points as scored, 0.0 points "
        "when both sides are read leniently. The rule that broke most is unnamed."
    )
    draw = judge(plan(n_max=60), items(HELD, HELD))
    assert draw.report.outcome == "inconclusive"
    won = judge(plan(n_max=60), items(HELD, [0.5] * 60))
    assert (won.report.outcome, won.consumed) == ("harness_mismatch", 60)
    guard = plan(n_max=60, role=SuiteRole.GUARD)
    assert judge(guard, items(HELD, [0.5] * 60)).report.outcome == "inconclusive"
    assert judge(guard, items(LOST, HELD)).report.outcome == "harness_mismatch"
    assert judge(plan(n_max=60), items(LOST, LOST)).report.outcome == "failed"


def test_a_loss_that_is_within_the_margin_as_scored_is_no_matter_of_form() -> None:
    slow = [-0.2, 0.1, -0.1, 0.0] * 100
    wide = replace(plan(n_max=400), margin=0.3)
    lost = judge(wide, items(slow, [0.0] * 400)).report
    assert judge_differences(slow, design_from_plan(wide)).outcome == "reject"
    assert (lost.outcome, lost.figures.lenient) == ("failed", None)
    narrow = judge(replace(wide, margin=0.02), items(slow, [0.0] * 400)).report
    assert narrow.outcome == "harness_mismatch"


def test_a_loss_that_is_open_leniently_waits_while_answers_come() -> None:
    asked, pairs = plan(n_max=60), items(LOST[:30], HELD[:30])
    waiting = judge(asked, pairs)
    assert (waiting.report.outcome, waiting.consumed) == ("running", 30)
    assert waiting.report.reason == (
        "As scored the candidate is worse (−50.0 points); whether by form or by substance is "
        "open after 30 of 60 items."
    )
    assert judge(asked, pairs, "away").report.outcome == "failed"
    ended = judge(asked, pairs, stopped=("inconclusive", "budget"))
    assert ended.report.outcome == "failed"


def unanswered(n: int, lost: int) -> list[PairedItem]:
    rows = [item(k, 1.0, 0.0 if k < lost else 1.0) for k in range(n)]
    return [replace(row, unanswered=k < lost) for k, row in enumerate(rows)]


def test_a_loss_on_unanswered_items_waits_and_is_then_not_measured() -> None:
    asked = plan(n_max=500)
    waiting = judge(asked, unanswered(30, 9))
    assert (waiting.report.outcome, waiting.consumed) == ("running", 30)
    assert waiting.report.reason == (
        "The loss so far rests on items that the candidate could not answer."
    )
    ended = judge(asked, unanswered(30, 9), stopped=("inconclusive", "budget")).report
    assert (ended.outcome, ended.reason) == ("infra_error", "Not measured: budget.")
    whole = judge(asked, unanswered(500, 9)).report
    assert whole.outcome == "infra_error"
    assert whole.reason == (
        "Not measured: the loss rests on items that the candidate could not answer."
    )


@pytest.mark.parametrize(("ties", "outcome"), [(41, "infra_error"), (42, "failed")])
def test_two_percent_unanswered_items_do_not_excuse_a_loss(ties: int, outcome: str) -> None:
    """One of 50 items is within the two percent, one of 49 is not; seven losses are none."""
    rows = [item(n, 1.0, float(n < ties)) for n in range(ties + 8)]
    rows[ties + 2] = replace(rows[ties + 2], unanswered=True)
    found = judge(plan(n_max=60), rows, stopped=("inconclusive", "budget")).report

    assert (found.outcome, found.n_used) == (outcome, ties + 8)


@pytest.mark.parametrize("word", ["inconclusive", "infra_error"])
def test_a_run_that_ended_says_how_much_is_missing(word: str) -> None:
    report = judge(plan(n_max=60), items(GRADED[:40]), stopped=(word, "budget")).report

    assert report.outcome == word
    told = {
        "inconclusive": "The run ended (budget) after 40 of 60 items, before any limit was "
        "reached: 20 more are planned. The incumbent stays.",
        "infra_error": "Not measured: budget.",
    }
    assert report.reason == told[word]
    blocked = judge(plan(n_max=60), items(GRADED[:40]), "away", (word, "budget")).report
    assert (blocked.outcome, blocked.reason) == ("infra_error", "Not measured: away.")


def test_a_hopeless_comparison_that_may_have_lost_by_form_goes_on() -> None:
    shared = replace(plan(n_max=80), futility=0.05)
    hopeless = [-0.1, 0.1, -0.15, 0.1] * 20
    strict = judge_or_give_up(hopeless, design_from_plan(shared), 0.05)
    assert strict.how == FUTILE

    alone = judge(shared, items(hopeless))
    assert (alone.report.outcome, alone.report.how) == ("inconclusive", FUTILE)
    assert alone.consumed == strict.n_used
    open_ = [0.15, -0.1, 0.2, -0.05] * 20
    pairs = items(hopeless[:40], open_[:40])
    assert judge_or_give_up(open_[:40], design_from_plan(shared), 0.05).outcome == "running"
    assert (judge(shared, pairs).report.outcome, judge(shared, pairs).consumed) == (
        "running",
        40,
    )
    ended = judge(shared, pairs, stopped=("infra_error", "died"))
    assert ended.report.outcome == "inconclusive"
    assert judge(shared, pairs, "away").report.outcome == "inconclusive"


ADJUSTED = replace(plan(n_max=70), population=ClaimPopulation.THESE, pool=90)


def test_planned_analyses_are_given_what_was_registered_and_measured() -> None:
    rng = np.random.default_rng(2)
    hard = [round(float(x), 1) for x in rng.random(90)]
    ours = [float(rng.random() < x) for x in hard]
    d = [float(rng.random() < x) - a for x, a in zip(hard[:70], ours, strict=False)]
    pairs = [item(n, a, a + x) for n, (a, x) in enumerate(zip(ours, d, strict=False))]

    def expected(noise: AnswerNoise | None = None) -> float | None:
        covariates = Covariates(np.array(ours), noise)
        return judge_adjusted(d, design_from_plan(ADJUSTED), covariates).ci_low

    found = judge(ADJUSTED, pairs, pool=tuple(ours)).report
    assert found.ci_low == expected()
    these = replace(ADJUSTED, epochs=2)
    noisy = [replace(pair, variance=0.001) for pair in pairs]
    noise = AnswerNoise(np.full(90, 0.001), np.full(70, 0.001))
    known = judge(these, noisy, pool=tuple(ours), pool_variances=(0.001,) * 90).report
    assert known.ci_low == expected(noise)
    assert (known.figures.noise_incumbent, known.figures.noise_candidate) == pytest.approx(
        ((0.09 + 0.25) / 91, (0.07 + 0.25) / 71)
    )
    for missing, variances in ((noisy[:-1] + pairs[-1:], 90), (noisy, 89)):
        less = judge(these, missing, pool=tuple(ours), pool_variances=(0.001,) * variances)
        assert less.report.ci_low == found.ci_low
        assert less.report.figures.noise_incumbent is None


@pytest.mark.parametrize(("size", "scores"), [(90, 89), (89, 90), (69, 69)])
def test_a_pool_that_is_not_the_registered_one_is_refused(size: int, scores: int) -> None:
    asked = replace(ADJUSTED, pool=size)
    with pytest.raises(InputError, match=f"{size} items are registered, with "):
        judge(asked, items([0.0] * 5), pool=(0.0,) * scores)
    whole = replace(ADJUSTED, pool=70)
    assert judge(whole, items([0.0] * 5), pool=(0.0,) * 70).report.outcome == "running"


def test_a_pool_is_given_up_only_where_a_run_has_ended() -> None:
    awaited, known = PairedSuite((), "a", "b"), PairedSuite((), "a", "b", pool=(1.0,))

    assert end_pool(awaited, None) is awaited
    assert end_pool(awaited, ("inconclusive", "x")).pool == ()
    blocked = replace(awaited, blocked="away")
    assert end_pool(blocked, None) == replace(blocked, pool=())
    assert end_pool(known, ("inconclusive", "x")) is known
