"""Does a suite show each claim as often as the plan says before anything is asked?"""

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from benchmarks.gate.gate_benchmark import (
    FIVE,
    GateBenchmarkPlan,
    resample_items,
    theta0_of,
)
from benchmarks.gate.gate_rules import hybrid
from benchmarks.gate.score_matrix import (
    ModelPair,
    close_pairs,
    generate_chances,
    load_matrix,
)
from harness.gate.budget import DifferenceSpread, measure_spread
from harness.gate.claim_advice import advise_claim
from harness.gate.offline.suite_claims import judge_costs
from harness.gate.suite_plan import Claim, ClaimPopulation
from harness.gate.verdict import CostOutcome
from tests.simulation.test_claims_calibration import PLAN, lognormal
from tests.simulation.test_gate_calibration import BINARY, GRADED
from tests.support.gate.gate_answers import (
    AnsweredSuite,
    measure_answers,
    move_chances,
)
from tests.support.sampling import later

pytestmark = pytest.mark.req("F2", "A3")
TIMES = 1000
SAVING = 0.9
NEAR = 0.05


def plan_powers(
    pair: ModelPair,
    lift: float,
    n: int,
) -> Mapping[Claim, float]:
    a, b = resample_items(
        pair,
        lift,
        (1, 2_000),
        np.random.default_rng(61),
    )
    spread = measure_spread((b - a).reshape(-1, 1).tolist())
    assert spread is not None
    plans = [replace(PLAN, claim=claim, n_max=n) for claim in Claim]
    advice = advise_claim(plans, None, n, spread, (None, None), SAVING, FIVE)
    return {
        option.claim: option.if_better if lift else option.if_equal for option in advice.options
    }


def reached(
    pair: ModelPair,
    claim: Claim,
    lift: float,
    n: int,
) -> float:
    rng = np.random.default_rng([67, n, round(lift * 1000)])
    a, b = resample_items(
        pair,
        lift,
        (TIMES, n),
        rng,
    )
    shown = float(hybrid(a, b, theta0_of(claim.quality))[0].mean())
    return shown * cost_shown(n) if claim is Claim.CHEAPER else shown


def cost_shown(n: int) -> float:
    rng = np.random.default_rng([71, n])
    times = 20
    found = [
        judge_costs(
            [(1.0, (1.0 - SAVING) * cost) for cost in lognormal(0.5)(rng, n).tolist()],
            replace(PLAN, n_max=n),
        ).outcome
        for _ in range(times)
    ]
    return found.count(CostOutcome.SHOWN) / times


@pytest.mark.parametrize("matrix", [BINARY, GRADED], ids=["pass or fail", "graded"])
@pytest.mark.parametrize("n", [100, later(200), later(480)])
def test_each_claim_is_shown_as_often_as_the_plan_says(matrix: Path, n: int) -> None:
    pairs = close_pairs(load_matrix(matrix), 2)

    for lift, claim in product((0.0, FIVE), Claim):
        planned = np.mean([plan_powers(pair, lift, n)[claim] for pair in pairs])
        shown = np.mean([reached(pair, claim, lift, n) for pair in pairs])
        assert abs(planned - shown) <= NEAR, (claim, lift, planned, shown)


@pytest.mark.parametrize("n", [100, later(200), later(480)])
def test_claims_about_these_very_items_are_shown_as_often_as_the_plan_says(n: int) -> None:
    bench = GateBenchmarkPlan(replications=80, power=300, pairs=6)
    matrix = generate_chances(bench.seed)
    suite = AnsweredSuite(Claim.SUPERIOR, n, n, 2)
    (_, these) = measure_answers(
        matrix,
        suite,
        bench,
    )
    plan = replace(
        PLAN,
        claim=Claim.SUPERIOR,
        n_max=n,
        epochs=2,
        population=ClaimPopulation.THESE,
    )
    spreads = [spread_of_chances(pair) for pair in close_pairs(matrix, bench.pairs)]
    planned = np.mean(
        [
            advise_claim([plan], None, n, spread, (None, None), None, FIVE).own.if_better
            for spread in spreads
        ]
    )

    assert abs(planned - these.five) <= NEAR, (planned, these)


def spread_of_chances(pair: ModelPair) -> DifferenceSpread:
    theirs = move_chances(pair.b, float(pair.a.mean()) + FIVE)
    noise = pair.a * (1.0 - pair.a) + theirs * (1.0 - theirs)
    return DifferenceSpread(float((theirs - pair.a).var()), float(noise.mean()), len(theirs))
