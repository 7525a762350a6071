"""One cell of the table: a rule, a suite size, a truth; how often it promotes, at what cost."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.bench.gate_rules import MARGIN, RULES
from harness.bench.resampling import resample_items
from harness.bench.score_matrix import ModelPair
from harness.domain.evals.run import Claim


@dataclass(frozen=True)
class BenchmarkCell:
    """mean, worst: share promoted over the pairs. items: mean number used."""

    mean: float
    worst: float
    items: float


def theta0_of(claim: Claim) -> float:
    return 0.0 if claim is Claim.SUPERIOR else -MARGIN


def measure_rule(
    pairs: Sequence[ModelPair],
    claim: Claim,
    *,
    n: int,
    lift: float,
    replications: int,
    seed: int = 11,
    rules: Sequence[str] = tuple(RULES),
) -> dict[str, BenchmarkCell]:
    """Every rule on the same draws; the true mean difference is `lift` above the null's."""
    theta0 = theta0_of(claim)
    shares: dict[str, list[float]] = {rule: [] for rule in rules}
    items: dict[str, list[float]] = {rule: [] for rule in rules}
    for index, pair in enumerate(pairs):
        rng = np.random.default_rng([seed, index, n, round(lift * 1000)])
        a, b = resample_items(pair, theta0 + lift, (replications, n), rng)
        for rule in rules:
            promoted, used = RULES[rule](a, b, theta0)
            shares[rule].append(float(promoted.mean()))
            items[rule].append(float(used.mean()))
    return {
        rule: BenchmarkCell(
            float(np.mean(shares[rule])), max(shares[rule]), float(np.mean(items[rule]))
        )
        for rule in rules
    }
