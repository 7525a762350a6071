"""Do the claims about cost, and about several suites, err as often as they say? Seeded.

Each limit is the promised rate plus three standard errors of the simulation.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.gate.gate_benchmark import resample_items
from benchmarks.gate.score_matrix import close_pairs, load_matrix
from harness.gate.offline.design import Design
from harness.gate.offline.sequential import judge_batch
from harness.gate.offline.suite_claims import judge_costs
from harness.gate.suite_plan import Claim, SuitePlan, SuiteRole
from harness.gate.verdict import CostOutcome
from tests.simulation.test_gate_calibration import BINARY, GRADED, upto
from tests.support.sampling import later

pytestmark = pytest.mark.req("F2", "A3")

Floats = NDArray[np.float64]
Shape = Callable[[np.random.Generator, int], Floats]
PLAN = SuitePlan(
    "s",
    "d",
    SuiteRole.PRIMARY,
    Claim.CHEAPER,
    0.05,
    0.05,
    200,
    1,
    7,
    min_saving=0.1,
    cost_ceiling=10.0,
)
TRIALS = 300


def lognormal(sigma: float) -> Shape:
    return lambda rng, n: rng.lognormal(-sigma * sigma / 2, sigma, n)


def runaways(rng: np.random.Generator, n: int) -> Floats:
    return np.where(rng.random(n) < 0.1, 5.5, 0.5)


# Each has the mean 1. Pareto's variance is infinite.
SHAPES: Mapping[str, Shape] = {
    "even": lambda _, n: np.ones(n),
    "lognormal 0.5": lognormal(0.5),
    "lognormal 1": lognormal(1.0),
    "lognormal 2": lognormal(2.0),
    "Pareto 1.5": lambda rng, n: rng.pareto(1.5, n) * 0.5,
    "runaways": runaways,
}


def shown(
    plan: SuitePlan,
    theirs: Shape,
    saving: float,
    seed: int,
    trials: int,
) -> float:
    rng = np.random.default_rng([41, seed])
    hits = 0
    for _ in range(trials):
        ours = lognormal(0.5)(rng, plan.n_max)
        paid = (1.0 - saving) * theirs(rng, plan.n_max)
        evidence = judge_costs(list(zip(ours.tolist(), paid.tolist(), strict=True)), plan)
        hits += evidence.outcome is CostOutcome.SHOWN
    return hits / trials


@pytest.mark.parametrize("shape", list(SHAPES))
@pytest.mark.parametrize("n", [200, later(500)])
def test_one_that_saves_no_more_than_was_claimed_is_hardly_ever_called_cheaper(
    shape: str, n: int
) -> None:
    plan = replace(PLAN, n_max=n)
    rate = shown(plan, SHAPES[shape], PLAN.min_saving, n, TRIALS)

    assert rate <= upto(0.05, TRIALS)


def test_one_at_half_the_price_is_found_to_be_cheaper() -> None:
    assert shown(PLAN, lognormal(0.5), 0.5, 1, 60) >= 0.95


def test_one_that_saves_enough_is_hardly_ever_said_not_to() -> None:
    rng = np.random.default_rng(43)
    hits = 0
    for _ in range(TRIALS):
        ours = lognormal(1.0)(rng, 200)
        theirs = 0.9 * lognormal(1.0)(rng, 200)
        pairs = list(zip(ours.tolist(), theirs.tolist(), strict=True))
        hits += judge_costs(pairs, PLAN).outcome is CostOutcome.REFUTED

    assert hits / TRIALS <= upto(0.05, TRIALS)


@pytest.mark.parametrize("claim", [Claim.SUPERIOR, later(Claim.NON_INFERIOR)])
def test_a_weighted_mean_of_two_suites_errs_no_more_often_than_one(claim: Claim) -> None:
    truth = 0.0 if claim is Claim.SUPERIOR else -0.05
    promoted = []
    pairs = zip(
        close_pairs(load_matrix(BINARY), 4),
        close_pairs(load_matrix(GRADED), 4),
        strict=True,
    )
    for index, both in enumerate(pairs):
        rng = np.random.default_rng([47, index])
        (a, b), (c, d) = (resample_items(truth_, truth, (1000, 200), rng) for truth_ in both)
        mean = 0.7 * (b - a) + 0.3 * (d - c)
        promoted.append(judge_batch(mean, Design(claim, 0.05, 200)).promoted.mean())

    assert float(np.mean(promoted)) <= upto(0.05, 4000)
    assert max(promoted) <= upto(0.055, 1000)


def test_one_of_three_equal_suites_passes_in_at_most_one_of_twenty() -> None:
    suites = close_pairs(load_matrix(BINARY), 3)
    hits = np.zeros(2000, dtype=np.bool_)
    for index, pair in enumerate(suites):
        rng = np.random.default_rng([53, index])
        a, b = resample_items(
            pair,
            0.0,
            (2000, 200),
            rng,
        )
        # Holm's first limit; nothing is promoted before the end.
        design = Design(
            Claim.SUPERIOR,
            0.05,
            200,
            alpha=0.05 / 3,
            early=False,
        )
        decisions = judge_batch(b - a, design)
        assert decisions.n_used[decisions.promoted].min(initial=200) == 200
        hits |= decisions.promoted

    assert hits.mean() <= upto(0.05, 2000)
