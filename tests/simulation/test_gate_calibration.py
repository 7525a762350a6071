"""Does the gate err as often as it says? Seeded, on score matrices with a known truth.

Each limit is the promised rate plus three standard errors of the simulation.
"""

import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks.gate.gate_benchmark import (
    GateBenchmarkPlan,
    measure_rule,
    missed_goals,
    resample_items,
    run_gate_benchmark,
    theta0_of,
)
from benchmarks.gate.score_matrix import ScoreKind, close_pairs, generate_scores, load_matrix
from harness.domain.evals.suite_plan import QUALITY_CLAIMS, Claim
from harness.gate.offline.design import Design
from harness.gate.offline.sequential import judge_batch
from tests.support.gate.gate_missing import MOST_WRONG, measure_missing
from tests.support.sampling import later, sampled

pytestmark = pytest.mark.req("F2")

SHIPPED = Path(__file__).resolve().parents[2] / "datasets" / "gatebench"
BINARY, GRADED = SHIPPED / "suite_binary.csv", SHIPPED / "suite_graded.csv"
REPLICATIONS = 1000
PAIRS = 6
OURS = ("hybrid gate",)


def upto(rate: float, trials: int) -> float:
    return rate + 3.0 * math.sqrt(rate * (1.0 - rate) / trials)


@pytest.mark.parametrize("claim", list(QUALITY_CLAIMS))
@pytest.mark.parametrize("n", [200, later(500)])
@pytest.mark.parametrize("suite", [BINARY, GRADED], ids=["pass-fail", "graded"])
def test_a_candidate_that_is_no_better_is_promoted_in_at_most_one_of_twenty(
    suite: Path, claim: Claim, n: int
) -> None:
    pairs = close_pairs(load_matrix(suite), PAIRS)
    cell = measure_rule(pairs, claim, n=n, lift=0.0, replications=REPLICATIONS, rules=OURS)

    benchmark_cell = cell["hybrid gate"]
    assert benchmark_cell.mean <= upto(0.05, PAIRS * REPLICATIONS)
    assert benchmark_cell.worst <= upto(0.055, REPLICATIONS)


def test_a_candidate_that_is_ten_points_better_is_found_early() -> None:
    pairs = close_pairs(load_matrix(BINARY), PAIRS)
    cell = measure_rule(pairs, Claim.SUPERIOR, n=500, lift=0.10, replications=200, rules=OURS)[
        "hybrid gate"
    ]

    assert cell.mean >= 0.98
    assert cell.items <= 200


def test_the_gate_gives_little_power_away_for_looking_after_every_item() -> None:
    pairs = close_pairs(load_matrix(BINARY), PAIRS)
    rules = ("hybrid gate", "paired t, fixed n")
    cells = measure_rule(pairs, Claim.SUPERIOR, n=500, lift=0.05, replications=200, rules=rules)

    assert cells["paired t, fixed n"].mean - cells["hybrid gate"].mean <= 0.06


def test_rare_losses_alone_do_not_pass_as_non_inferior() -> None:
    """Where the plain t errs in 12 of 100: a candidate that loses 5 % and never wins."""
    rng = np.random.default_rng(3)
    d = -(rng.random((4000, 100)) < 0.05).astype(np.float64)
    decisions = judge_batch(d, Design(Claim.NON_INFERIOR, 0.05, 100))

    assert decisions.promoted.mean() <= upto(0.05, 4000)


@pytest.mark.parametrize("claim", sampled(QUALITY_CLAIMS, [Claim.SUPERIOR]))
def test_an_equal_candidate_is_called_worse_in_at_most_one_of_twenty(claim: Claim) -> None:
    rejected = []
    for index, pair in enumerate(close_pairs(load_matrix(BINARY), PAIRS)):
        rng = np.random.default_rng([17, index])
        a, b = resample_items(pair, 0.0, (REPLICATIONS, 200), rng)
        rejected.append(judge_batch(b - a, Design(claim, 0.05, 200)).rejected.mean())

    assert float(np.mean(rejected)) <= upto(0.05, PAIRS * REPLICATIONS)


@pytest.mark.parametrize("claim", sampled(QUALITY_CLAIMS, [Claim.NON_INFERIOR]))
def test_missing_scores_let_no_useless_candidate_pass_and_fail_no_equal_one(
    claim: Claim,
) -> None:
    """Against the candidate and for it: whichever scores somebody hides who knows them all."""
    pairs = close_pairs(generate_scores(ScoreKind.PASS_FAIL, 1), 1)
    for row in measure_missing(pairs, claim, n=200, replications=1000):
        assert max(row.passed, row.failed) <= upto(MOST_WRONG, 1000), row


def test_the_resampled_truth_is_the_one_that_was_asked_for() -> None:
    for index, pair in enumerate(close_pairs(load_matrix(GRADED), PAIRS)):
        rng = np.random.default_rng([19, index])
        a, b = resample_items(pair, theta0_of(Claim.NON_INFERIOR), (400, 500), rng)
        error = (b - a).std() / math.sqrt(a.size)
        assert abs((b - a).mean() + 0.05) <= 4.0 * error


@pytest.mark.parametrize(
    ("seed", "pairs"),
    [
        later(101, 6),
        pytest.param(202, 6, marks=pytest.mark.soak),
    ],
)
def test_the_goals_are_reached_on_matrices_that_nobody_has_seen(seed: int, pairs: int) -> None:
    plan = GateBenchmarkPlan(replications=1000, power=600, pairs=pairs)
    lines = run_gate_benchmark([generate_scores(kind, seed) for kind in ScoreKind], plan)

    assert [*missed_goals(lines)] == []
