"""GateBench of the adjusted rule: every comparison draws a pool of items, the incumbent has
answered all of it, and other models say how hard each item is (statistics.md §1.14). Beside it
the paired rule, on the same draws.

Pools are drawn with replacement under weights that make the true difference of all items known:
the null is about items like these, the widest of the claims.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from harness.bench.gate_benchmark import (
    FIVE,
    TEN,
    GateBenchmarkPlan,
    MissedGoal,
    PromotionRates,
    find_missed,
    level_checks,
    rates_over_pairs,
    theta0_of,
    tilt_weights,
)
from harness.bench.gate_rules import ALPHA, MARGIN
from harness.bench.score_matrix import Floats, ModelPair, ScoreMatrix, close_pairs
from harness.domain.evals.suite_plan import Claim, GateRule
from harness.gate.offline.adjusted import Covariates, judge_adjusted_batch
from harness.gate.offline.design import Design
from harness.gate.offline.sequential import judge_batch
from harness.gate.offline.unseen_loss import choose_unseen_loss

POOL: Final = 500
_ROWS: Final = 250


@dataclass(frozen=True, kw_only=True)
class RuleRow(PromotionRates):
    """Holds what a rule does on one matrix."""

    matrix: str
    claim: Claim
    n: int  # of a pool of POOL
    rule: GateRule


def run_adjusted_benchmark(
    matrix: ScoreMatrix, plan: GateBenchmarkPlan
) -> tuple[Sequence[RuleRow], Sequence[MissedGoal]]:
    """Measures both rules on one matrix, and says which goals of §4 the adjusted one missed."""
    rows = [
        row
        for claim in plan.claims
        for n in plan.sizes
        if n <= POOL
        for row in measure_rules(matrix, claim, n, plan)
    ]
    return rows, tuple(_missed(rows))


def measure_rules(
    matrix: ScoreMatrix, claim: Claim, n: int, plan: GateBenchmarkPlan
) -> Iterator[RuleRow]:
    """Measures the rules on the same draws of the same pairs."""
    pairs = close_pairs(matrix, plan.pairs)
    cells = {
        lift: [
            _decide(
                pair, _difficulty(matrix, pair), (claim, n, lift), draws, [plan.seed, index]
            )
            for index, pair in enumerate(pairs)
        ]
        for lift, draws in ((0.0, plan.replications), (FIVE, plan.power), (TEN, plan.power))
    }
    for rule in GateRule:
        rates = {lift: [pair[rule] for pair in pairs] for lift, pairs in cells.items()}
        yield RuleRow(
            matrix=matrix.name, claim=claim, n=n, rule=rule, **rates_over_pairs(rates)
        )


def _difficulty(matrix: ScoreMatrix, pair: ModelPair) -> Floats:
    """How the models that are not compared scored on each item."""
    arms = pair.name.split("/")
    others = [row.as_candidate for model, row in matrix.rows.items() if model not in arms]
    return np.asarray(np.mean(others, axis=0)) if others else np.zeros_like(pair.a)


def _decide(
    pair: ModelPair,
    difficulty: Floats,
    setting: tuple[Claim, int, float],
    draws: int,
    key: Sequence[int],
) -> dict[GateRule, tuple[float, float]]:
    """Returns each rule's share promoted, and its mean number of items."""
    claim, n, lift = setting
    design = Design(claim, MARGIN, n, ALPHA, unseen=choose_unseen_loss(n))
    weights = tilt_weights(pair.d, theta0_of(claim) + lift)
    rng = np.random.default_rng([*key, n, round(lift * 1000)])
    found = {rule: np.zeros(2) for rule in GateRule}
    for first in range(0, draws, _ROWS):
        count = min(_ROWS, draws - first)
        items = rng.choice(len(pair.d), size=(count, POOL), p=weights)
        d = pair.d[items[:, :n]]
        known = Covariates(pair.a[items], difficulty[items])
        for rule, decisions in (
            (GateRule.PAIRED, judge_batch(d, design)),
            (GateRule.ADJUSTED, judge_adjusted_batch(d, design, known)),
        ):
            found[rule] += decisions.promoted.sum(), decisions.n_used.sum()
    return {rule: (total[0] / draws, total[1] / draws) for rule, total in found.items()}


def _missed(rows: Sequence[RuleRow]) -> Iterator[MissedGoal]:
    for row in rows:
        if row.rule is not GateRule.ADJUSTED:
            continue
        checks = level_checks(row.false_mean, row.worst)
        yield from find_missed((row.matrix, row.claim, row.n), checks, "adjusted rule")
