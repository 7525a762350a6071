"""GateBench with a judge that errs: how often a candidate passes that people would score at the
allowed loss, by a plan that knows of no calibration and by one that registers the judge's slope
(statistics.md §1.17); and how often the interval of what people would score holds the truth.

Every comparison has a calibration of its own: references, half of them good, that the same
judge scores.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from harness.bench.gate_benchmark import (
    FIVE,
    GateBenchmarkPlan,
    MissedGoal,
    find_missed,
    level_checks,
    resample_items,
    theta0_of,
)
from harness.bench.gate_rules import ALPHA, MARGIN
from harness.bench.score_matrix import Floats, ModelPair, ScoreMatrix, close_pairs
from harness.domain.evals.judge_calibration import JudgeSlope
from harness.domain.evals.suite_plan import Claim
from harness.gate.offline.design import Design
from harness.gate.offline.intervals import t_interval
from harness.gate.offline.judge_slope import Ratings, judge_figures, measure_slope
from harness.gate.offline.sequential import judge_batch

REFERENCES: Final = 50
LEAST_COVERAGE: Final = 0.94
_ROWS: Final = 500


@dataclass(frozen=True)
class BenchJudge:
    """A judge of pass/fail answers: the shares that it scores as people do."""

    good: float  # of those that people passed
    bad: float  # of those that people failed

    @property
    def slope(self) -> float:
        return self.good + self.bad - 1.0

    def score(self, people: Floats, rng: np.random.Generator) -> Floats:
        """Scores answers anew."""
        as_people = rng.random(people.shape) < np.where(people > 0.5, self.good, self.bad)
        return np.asarray(np.where(as_people, people, 1.0 - people))


JUDGES: Final = (BenchJudge(0.98, 0.98), BenchJudge(0.9, 0.9), BenchJudge(0.8, 0.8),
                 BenchJudge(0.95, 0.7))  # fmt: skip


@dataclass(frozen=True)
class JudgeRow:
    """Holds the figures of one judge and size, means over the pairs; shares promoted."""

    matrix: str
    claim: Claim
    n: int
    slope: float
    references: int
    unknown: float  # at the null, where the plan knows of no calibration
    false_mean: float
    worst: float
    five_unknown: float  # five, five_unknown: of a candidate that is 5 points above the null
    five: float
    covered_raw: float  # at the null: intervals of the judged difference that hold people's
    covered: float  # the same of `judge_figures`; of the pair with the fewest


def run_judge_benchmark(
    matrix: ScoreMatrix, plan: GateBenchmarkPlan
) -> tuple[Sequence[JudgeRow], Sequence[MissedGoal]]:
    """Measures judged comparisons, and says which goals of statistics.md §4 were missed.

    Only of pass/fail scores, as no other is right or wrong.
    """
    scores = [score for pair in close_pairs(matrix, plan.pairs) for score in (pair.a, pair.b)]
    if not all((score == np.round(score)).all() for score in scores):
        return (), ()
    rows = [
        measure_judge_noise(matrix, (claim, n, judge), plan)
        for claim in plan.claims
        for n in plan.sizes
        for judge in JUDGES
    ]
    return rows, tuple(_missed(rows))


def measure_judge_noise(
    matrix: ScoreMatrix,
    setting: tuple[Claim, int, BenchJudge],
    plan: GateBenchmarkPlan,
    references: int = REFERENCES,
) -> JudgeRow:
    """Measures one judge. Both rules read the same comparisons."""
    claim, n, judge = setting
    null, five = (
        np.array(
            [
                _measure(pair, setting, lift, draws, [plan.seed, index, references])
                for index, pair in enumerate(close_pairs(matrix, plan.pairs))
            ]
        )
        for lift, draws in ((0.0, plan.replications), (FIVE, plan.power))
    )
    return JudgeRow(
        matrix=matrix.name,
        claim=claim,
        n=n,
        slope=judge.slope,
        references=references,
        unknown=float(null[:, 0].mean()),
        false_mean=float(null[:, 1].mean()),
        worst=float(null[:, 1].max()),
        five_unknown=float(five[:, 0].mean()),
        five=float(five[:, 1].mean()),
        covered_raw=float(null[:, 2].mean()),
        covered=float(null[:, 3].min()),
    )


def _measure(
    pair: ModelPair,
    setting: tuple[Claim, int, BenchJudge],
    lift: float,
    draws: int,
    key: Sequence[int],
) -> tuple[float, float, float, float]:
    """Shares: promoted without and with the slope, covered as judged and as people score."""
    claim, n, judge = setting
    rng = np.random.default_rng([*key, n, round(lift * 1000), round(judge.slope * 1000)])
    true = theta0_of(claim) + lift
    design = Design(claim, MARGIN, n, ALPHA)
    counts = np.zeros(4)
    for first in range(0, draws, _ROWS):
        a, b = resample_items(pair, true, (min(_ROWS, draws - first), n), rng)
        d = judge.score(b, rng) - judge.score(a, rng)
        known = _by_slope(judge, len(d), key[-1], rng)
        counts[0] += judge_batch(d, design).promoted.sum()
        for slope, rows in known.items():
            judged = replace(design, slope=slope.slope, slope_error=slope.error)
            counts[1] += judge_batch(d[rows], judged).promoted.sum()
            counts[2:] += _count_covered(d[rows], slope, true)
    return tuple(counts / draws)


def _by_slope(
    judge: BenchJudge, count: int, references: int, rng: np.random.Generator
) -> dict[JudgeSlope, list[int]]:
    """Which comparisons have which calibration."""
    people = np.repeat([1.0, 0.0], [references // 2, references - references // 2])
    found: dict[JudgeSlope, list[int]] = defaultdict(list)
    for row in range(count):
        ratings: Ratings = list(
            zip(people.tolist(), judge.score(people, rng).tolist(), strict=True)
        )
        slope = measure_slope(ratings)
        if slope is not None:
            found[slope].append(row)
    return found


def _count_covered(d: Floats, slope: JudgeSlope, true: float) -> tuple[int, int]:
    raw = known = 0
    for row in d:
        total, squares = float(row.sum()), float((row * row).sum())
        low, high = t_interval(len(row), total, squares)
        raw += low <= true <= high
        figures = judge_figures(slope, total / len(row), low, high)
        if figures.ci_low is None or figures.ci_high is None:
            known += 1  # nothing is said
        else:
            known += figures.ci_low <= true <= figures.ci_high
    return raw, known


def _missed(rows: Sequence[JudgeRow]) -> Iterator[MissedGoal]:
    for row in rows:
        name = f"judge of slope {row.slope:.2f}"
        checks = (
            *level_checks(row.false_mean, row.worst),
            ("intervals that miss", 1.0 - row.covered, 1.0 - LEAST_COVERAGE),
        )
        yield from find_missed((row.matrix, row.claim, row.n), checks, name)
