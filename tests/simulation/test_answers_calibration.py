"""Does the gate keep its level on a suite whose items both models answer anew, and
what do two answers to an item bring? Seeded, with a known truth; the limits are those of
statistics.md §4.
"""

import math

import numpy as np
import pytest

from benchmarks.gate.gate_benchmark import GateBenchmarkPlan
from benchmarks.gate.score_matrix import generate_chances
from harness.gate.suite_plan import QUALITY_CLAIMS, Claim, ClaimPopulation
from tests.support.gate.gate_answers import (
    AnsweredSuite,
    AnswersRow,
    measure_answers,
    move_chances,
)

pytestmark = pytest.mark.req("F2")

QUICK = GateBenchmarkPlan(replications=1000, power=100, pairs=2)
LEAST_SURE = 0.05 + 3.0 * math.sqrt(0.05 * 0.95 / 500)


def measured(
    suite: AnsweredSuite, plan: GateBenchmarkPlan = QUICK
) -> dict[ClaimPopulation, AnswersRow]:
    rows = measure_answers(generate_chances(plan.seed), suite, plan)
    return {row.population: row for row in rows}


@pytest.mark.verify
def test_a_claim_about_these_items_sees_more_with_fewer_answers() -> None:
    rows = measured(AnsweredSuite(Claim.SUPERIOR, 200, 200, 2))
    like, these = rows[ClaimPopulation.LIKE_THESE], rows[ClaimPopulation.THESE]
    copied = measured(AnsweredSuite(Claim.SUPERIOR, 200, 200, 2, 1.0))[ClaimPopulation.THESE]

    assert copied.false_mean <= LEAST_SURE
    assert like.false_mean <= these.false_mean <= LEAST_SURE
    assert these.five >= like.five + 0.05
    assert these.items_five < like.items_five


@pytest.mark.verify
def test_two_answers_to_an_item_need_fewer_items_and_more_answers() -> None:
    once, twice = (
        measured(AnsweredSuite(Claim.SUPERIOR, 500, 500, answers))[ClaimPopulation.LIKE_THESE]
        for answers in (1, 2)
    )

    assert twice.items_five < once.items_five
    assert twice.candidate_answers > once.candidate_answers


@pytest.mark.verify
@pytest.mark.parametrize(
    "suite",
    [
        *(
            AnsweredSuite(claim, n, items, answers)
            for claim in QUALITY_CLAIMS
            for n, items in ((80, 80), (200, 200), (200, 500), (500, 500))
            for answers in (1, 2, 5)
        ),
        *(
            AnsweredSuite(Claim.SUPERIOR, n, n, 2, copied)
            for n in (200, 500)
            for copied in (0.1, 0.3, 0.6, 1.0)
        ),
    ],
    ids=str,
)
def test_the_level_holds_where_both_models_answer_anew_or_a_cache_repeats_them(
    suite: AnsweredSuite,
) -> None:
    plan = GateBenchmarkPlan(replications=4000, power=50, seed=303)
    for row in measured(suite, plan).values():
        assert row.false_mean <= 0.055
        assert row.worst <= 0.065 + 3.0 * math.sqrt(0.065 * 0.935 / 1000)


@pytest.mark.parametrize("mean", [0.02, 0.45, 0.6, 0.98])
def test_chances_are_moved_to_the_mean_that_is_wanted(mean: float) -> None:
    chances = generate_chances(3).rows["g00"].as_candidate
    moved = move_chances(chances, mean)

    assert moved.mean() == pytest.approx(mean, abs=1e-12)
    assert (np.argsort(moved, kind="stable") == np.argsort(chances, kind="stable")).all()
