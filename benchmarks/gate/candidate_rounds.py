"""How often a route's candidate schedule proposes by luck: a quarter of weekly rounds, each of
candidates that are exactly as good as the incumbent; and how often a better candidate passes in
the first, the fourth and the last round.
"""

from dataclasses import dataclass

import numpy as np

from benchmarks.gate.gate_benchmark import resample_items
from benchmarks.gate.gate_rules import MARGIN, judge_rows
from benchmarks.gate.score_matrix import ModelPair, ScoreMatrix, close_pairs
from harness.domain.evals.suite_plan import Claim
from harness.domain.routing.candidate_schedule import round_alpha
from harness.gate.offline.design import Design
from harness.gate.planning.multiplicity import FUTILITY

WEEKS, CANDIDATES = 13, 5


@dataclass(frozen=True)
class QuarterRow:
    """Shares of 1 on one matrix. quarters: those in which any useless candidate passed."""

    matrix: str
    n: int
    quarters: float
    worst_pair: float
    first_ten: float  # passes of one that is 10 points better, by its round
    fourth_ten: float
    last_ten: float


def weekly_alphas() -> list[float]:
    """The alpha of each candidate, round by round."""
    alphas: list[float] = []
    for _ in range(WEEKS):
        alphas.append(round_alpha(CANDIDATES * sum(alphas), CANDIDATES))
    return alphas


def measure_quarter(
    matrix: ScoreMatrix, n: int, replications: int = 600, seed: int = 11
) -> QuarterRow:
    """Measures quarters on the closest pairs of a matrix."""
    pairs, alphas = close_pairs(matrix, 3), weekly_alphas()
    shares = []
    for index, pair in enumerate(pairs):
        any_passed = np.zeros(replications, dtype=bool)
        for week, alpha in enumerate(alphas):
            for candidate in range(CANDIDATES):
                rng = np.random.default_rng([seed, index, week, candidate])
                any_passed |= _passes(pair, n, replications, 0.0, alpha, rng)
        shares.append(float(any_passed.mean()))
    found = [
        np.mean(
            [
                _passes(
                    p, n, replications, 0.1, alphas[week], np.random.default_rng([seed, week])
                ).mean()
                for p in pairs
            ]
        )
        for week in (0, 3, WEEKS - 1)
    ]
    return QuarterRow(matrix.name, n, float(np.mean(shares)), max(shares), *map(float, found))


def _passes(
    pair: ModelPair, n: int, rows: int, lift: float, alpha: float, rng: np.random.Generator
) -> np.ndarray:
    a, b = resample_items(pair, lift, (rows, n), rng)
    design = Design(Claim.SUPERIOR, MARGIN, n, alpha, futility=FUTILITY)
    return np.asarray(judge_rows(b - a, design)[0], dtype=bool)
