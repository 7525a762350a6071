"""Does a plan that knows its judge keep its promise in people's points? Seeded, with a known
truth; the limits are those of statistics.md §4.
"""

import math
from pathlib import Path

import pytest

from harness.bench.gate_benchmark import GateBenchmarkPlan
from harness.bench.gate_judged import JUDGES, BenchJudge, measure_judge_noise
from harness.bench.score_matrix import load_matrix
from harness.domain.evals.suite_plan import Claim

pytestmark = pytest.mark.req("F2", "F7")

BINARY = Path(__file__).resolve().parents[2] / "datasets" / "gatebench" / "suite_binary.csv"


def test_a_judge_at_the_floor_of_agreement_promotes_no_more_than_it_may() -> None:
    plan = GateBenchmarkPlan(replications=300, power=50, pairs=2)
    setting = (Claim.NON_INFERIOR, 500, BenchJudge(0.8, 0.8))
    row = measure_judge_noise(load_matrix(BINARY), setting, plan)

    assert row.unknown > 0.1
    assert row.false_mean <= 0.05 + 3.0 * math.sqrt(0.05 * 0.95 / 600)
    assert row.covered >= 0.95 - 3.0 * math.sqrt(0.05 * 0.95 / 300)


@pytest.mark.verify
@pytest.mark.parametrize("references", [20, 50, 200])
@pytest.mark.parametrize("n", [200, 500])
@pytest.mark.parametrize("claim", [Claim.NON_INFERIOR, Claim.SUPERIOR])
@pytest.mark.parametrize("judge", JUDGES, ids=lambda judge: f"slope {judge.slope:.2f}")
def test_the_level_and_the_interval_hold_with_every_judge(
    judge: BenchJudge, claim: Claim, n: int, references: int
) -> None:
    plan = GateBenchmarkPlan(replications=2000, power=50)
    row = measure_judge_noise(load_matrix(BINARY), (claim, n, judge), plan, references)

    assert row.false_mean <= 0.055
    assert row.worst <= 0.065 + 3.0 * math.sqrt(0.065 * 0.935 / 2000)
    assert row.covered >= 0.94 - 3.0 * math.sqrt(0.06 * 0.94 / 2000)
