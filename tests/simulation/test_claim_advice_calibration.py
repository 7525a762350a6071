"""Does a suite show each claim as often as the plan says before anything is asked? Seeded, with
a known truth.
"""

from collections.abc import Mapping
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from benchmarks.gate.gate_benchmark import FIVE, resample_items, theta0_of
from benchmarks.gate.gate_rules import hybrid
from benchmarks.gate.score_matrix import ModelPair, close_pairs, load_matrix
from harness.domain.evals.suite_plan import Claim
from harness.gate.offline.costs import CostOutcome, judge_costs
from harness.gate.planning.budget import measure_spread
from harness.gate.planning.claim_advice import advise_claim
from tests.simulation.test_claims_calibration import PLAN, lognormal
from tests.simulation.test_gate_calibration import BINARY

pytestmark = pytest.mark.req("F2", "A3")
TIMES = 1000
SAVING = 0.9
NEAR = 0.05


def plan_powers(pair: ModelPair, n: int) -> Mapping[tuple[Claim, float], float]:
    """What the plan says, from an earlier comparison of two models that are equally good."""
    a, b = resample_items(pair, 0.0, (1, 2_000), np.random.default_rng(61))
    spread = measure_spread((b - a).reshape(-1, 1).tolist())
    assert spread is not None
    plans = [replace(PLAN, claim=claim, n_max=n) for claim in Claim]
    advice = advise_claim(plans, None, n, spread, (None, None), SAVING, FIVE)
    return {
        (option.claim, lift): power
        for option in advice.options
        for lift, power in ((0.0, option.if_equal), (FIVE, option.if_better))
    }


def reached(pair: ModelPair, claim: Claim, lift: float, n: int) -> float:
    rng = np.random.default_rng([67, n, round(lift * 1000)])
    a, b = resample_items(pair, lift, (TIMES, n), rng)
    shown = float(hybrid(a, b, theta0_of(claim.quality))[0].mean())
    return shown * cost_shown(n) if claim is Claim.CHEAPER else shown


def cost_shown(n: int) -> float:
    rng, times = np.random.default_rng([71, n]), 20
    found = [
        judge_costs(
            [(1.0, (1.0 - SAVING) * cost) for cost in lognormal(0.5)(rng, n).tolist()],
            replace(PLAN, n_max=n),
        ).outcome
        for _ in range(times)
    ]
    return found.count(CostOutcome.SHOWN) / times


@pytest.mark.parametrize("n", [100, 200, 480])
def test_each_claim_is_shown_as_often_as_the_plan_says(n: int) -> None:
    pairs = close_pairs(load_matrix(BINARY), 2)
    plans = [plan_powers(pair, n) for pair in pairs]

    for claim, lift in product(Claim, (0.0, FIVE)):
        planned = np.mean([plan[claim, lift] for plan in plans])
        shown = np.mean([reached(pair, claim, lift, n) for pair in pairs])
        assert abs(planned - shown) <= NEAR, (claim, lift, planned, shown)
