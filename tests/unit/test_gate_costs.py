"""Cheaper and not worse: quality and cost, both shown, each at the whole alpha."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.domain.evals.run import Sample, SampleError
from harness.domain.evals.suite_plan import Claim, SuitePlan, SuiteRole
from harness.domain.evals.verdict import Failed, Inconclusive, InfraError, Passed, Verdict
from harness.gate.offline.costs import CostOutcome, items_to_show_saving, judge_costs
from tests.unit.test_gate_verdicts import Sides, ask, plan, sides

pytestmark = pytest.mark.req("A3", "A7")

N = 300
EQUAL = sides([1.0, 0.0] * (N // 2), [1.0, 0.0] * (N // 2))
WORSE = sides([1.0] * N, [0.0] * N)
BETTER = sides([0.0] * N, [1.0] * N)


def claim(n_max: int = N, min_saving: float = 0.2, cost_ceiling: float = 10.0) -> SuitePlan:
    made = plan(claim=Claim.CHEAPER, n_max=n_max)
    return replace(made, min_saving=min_saving, cost_ceiling=cost_ceiling)


def priced(found: Sides, ours: float | None, theirs: float | None) -> Sides:
    return costing(found, [ours] * len(found[0]), [theirs] * len(found[1]))


def costing(
    found: Sides, ours: Sequence[float | None], theirs: Sequence[float | None]
) -> Sides:
    def with_costs(side: Sequence[Sample], costs: Sequence[float | None]) -> list[Sample]:
        return [replace(s, cost_usd=c) for s, c in zip(side, costs, strict=True)]

    return with_costs(found[0], ours), with_costs(found[1], theirs)


def one(found: Sides, suite_plan: SuitePlan | None = None) -> Verdict | None:
    return ask([suite_plan or claim()], {"math": found})


def test_a_dearer_candidate_fails_early_however_good_it_is() -> None:
    found = one(priced(BETTER, 0.002, 0.006))

    assert isinstance(found, Failed)
    assert "does not save enough: 200 % more per item" in found.reason
    cost = found.suites[0].figures.cost
    assert cost is not None
    assert cost.n_used < 60


def test_a_cheap_candidate_that_is_worse_fails_for_its_answers() -> None:
    found = one(priced(WORSE, 0.002, 0.0001))

    assert isinstance(found, Failed)
    assert "The candidate is worse" in found.reason


@pytest.mark.parametrize("costs", [(None, 0.001), (0.002, None), (None, None), (0.0, 0.0)])
def test_a_cost_that_nobody_knows_is_never_passed(
    costs: tuple[float | None, float | None],
) -> None:
    verdict = one(priced(EQUAL, *costs))

    assert isinstance(verdict, Inconclusive)
    assert "Not shown to be cheaper" in verdict.reason
    # It is known after 20 items that nobody knows it: the rest is not paid for.
    assert len(verdict.inputs["pairs"]["math"]) == 20  # type: ignore[index]


def test_missing_costs_of_the_candidate_count_against_it() -> None:
    theirs = [None if n % 10 == 9 else 0.0014 for n in range(N)]
    found = one(costing(EQUAL, [0.002] * N, theirs), claim(min_saving=0.1))

    assert isinstance(found, Failed | Inconclusive)
    alike = judge_costs([(0.002, 0.0014)] * N, claim(min_saving=0.1))
    missing = judge_costs([(0.002, c) for c in theirs], claim(min_saving=0.1))
    assert missing.log_e < 0.0 < alike.log_e
    assert "30 of the candidate's costs are missing" in found.reason


def test_an_unanswered_call_has_no_cost() -> None:
    ours, theirs = priced(EQUAL, 0.002, 0.001)
    gone = replace(theirs[7], strict=None, error=SampleError.INFRA, cost_usd=0.0)
    found = one((ours, [*theirs[:7], gone, *theirs[8:]]))

    assert isinstance(found, Passed)
    cost = found.suites[0].figures.cost
    assert cost is not None
    assert cost.missing_candidate == 1


def test_one_answer_above_the_ceiling_shows_that_rare_dear_ones_exist() -> None:
    theirs = [0.001] * N
    theirs[30] = 0.03
    found = one(costing(EQUAL, [0.002] * N, theirs))

    assert isinstance(found, Inconclusive)
    assert "item 31 cost the candidate more than the ceiling of 10 times" in found.reason
    again = one(costing(EQUAL, [0.002] * N, theirs), claim(cost_ceiling=20.0))
    assert isinstance(again, Passed | Inconclusive)
    assert "ceiling" not in again.reason


def test_the_level_is_the_plans_own() -> None:
    pairs = [(0.002, 0.001)] * N
    usual = judge_costs(pairs, claim())
    strict = judge_costs(pairs, replace(claim(), alpha=0.002))

    assert usual.outcome is strict.outcome is CostOutcome.SHOWN
    assert strict.log_e >= math.log(500) > usual.log_e >= math.log(20)
    assert strict.n_used > usual.n_used


def test_a_share_and_a_ceiling_say_how_many_items_it_takes() -> None:
    planned = items_to_show_saving(0.5, claim(min_saving=0.1))
    evidence = judge_costs([(0.002, 0.001)] * N, claim(min_saving=0.1))

    assert planned == 102
    assert evidence.n_used == pytest.approx(planned, abs=6)
    assert items_to_show_saving(0.1, claim(min_saving=0.1)) is None


def test_it_stays_open_while_items_are_missing_and_never_passes_when_they_stop() -> None:
    ours, theirs = priced(BETTER, 0.002, 0.001)
    some = (ours[:20], theirs[:20])
    assert one(some) is None
    stopped = {"math": ("inconclusive", "over budget")}
    assert isinstance(ask([claim()], {"math": some}, stopped), Inconclusive)
    gone = {"math": ("infra_error", "the worker died")}
    assert isinstance(ask([claim()], {"math": some}, gone), InfraError)


def test_a_required_suite_is_asked_for_quality_alone() -> None:
    required = plan("safety", SuiteRole.REQUIRED, Claim.NON_INFERIOR)
    alike = sides([1.0, 0.0] * 100, [1.0, 0.0] * 100)
    verdict = ask([claim(), required], {"math": priced(EQUAL, 0.002, 0.001), "safety": alike})

    assert isinstance(verdict, Passed)
    assert "cost" not in verdict.suites[0].details
    assert list(verdict.inputs["costs"]) == ["math"]  # type: ignore[call-overload]


@given(
    costs=st.lists(st.tuples(st.floats(0.001, 1.0), st.floats(0.0, 1.0)), min_size=1),
    factor=st.floats(0.5, 1.0),
)
def test_a_lower_cost_never_weakens_what_the_same_items_show(
    costs: list[tuple[float, float]], factor: float
) -> None:
    """Only where all stay under one ceiling: a lower one lets more be bet."""
    asked = claim(len(costs), cost_ceiling=1e4)
    usual = judge_costs(costs, asked)
    cheaper = judge_costs([(a, b * factor) for a, b in costs], asked)
    assert cheaper.outcome is not CostOutcome.REFUTED or usual.outcome is CostOutcome.REFUTED
