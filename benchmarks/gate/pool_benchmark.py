"""Measures the rule of a pool (`pool_rule`): `python -m benchmarks.gate.pool_benchmark
[--replications 2000] [--search] MATRIX …`.

Draws pools of new items from the items of a score matrix, with every model's scores of a drawn
item. Weights place the candidate at the null or 5 points above. Past models are the five rows
with the nearest means. Compares the pool with the gate's plan of 500 items in the same run.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from itertools import product
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.gate.gate_benchmark import theta0_of, tilt_weights
from benchmarks.gate.gate_rules import ALPHA, MARGIN, judge_rows
from benchmarks.gate.pool_nulls import search_pool_nulls
from benchmarks.gate.pool_rule import (
    PoolDesign,
    Pools,
    items_for_equal_power,
    judge_pools,
    predict_differences,
)
from benchmarks.gate.score_matrix import Floats, ScoreMatrix, close_pairs, load_matrix
from benchmarks.print_rows import print_rows
from harness.gate.offline.design import Design
from harness.gate.suite_plan import QUALITY_CLAIMS, Claim

POOLS: Final = (1_000, 2_000)
PLANNED: Final = 500  # items of the plan without a pool
LIFT: Final = 0.05
PAST_MODELS: Final = 5
CANDIDATES: Final = 10
DRIFT: Final = 0.03
ASKED_AGAIN: Final = 60  # items of a check whether the incumbent has drifted
_AT_ONCE: Final = 50


@dataclass(frozen=True)
class PoolPair:
    """One incumbent, candidate and past models, with scores of the same items."""

    name: str
    incumbent: Floats  # (items,)
    candidate: Floats
    past: Floats  # (models, items)


def pool_pairs(matrix: ScoreMatrix, count: int = 6) -> list[PoolPair]:
    """Draws close pairs of models. Raises InputError if the matrix has none."""
    means = {model: float(row.as_candidate.mean()) for model, row in matrix.rows.items()}
    found = []
    for pair in close_pairs(matrix, count):
        two = pair.name.split("/")
        others = [model for model in sorted(means) if model not in two]
        others.sort(key=lambda model: abs(means[model] - means[two[0]]))
        past = [matrix.rows[model].as_candidate for model in others[:PAST_MODELS]]
        found.append(PoolPair(pair.name, pair.a, pair.b, np.array(past)))
    return found


@dataclass(frozen=True)
class PoolPlan:
    """One cell of the benchmark: a claim on a pool of N items; the candidate answers n."""

    claim: Claim
    pool_items: int
    n_max: int
    explained: float
    alpha: float = ALPHA

    @property
    def design(self) -> PoolDesign:
        gate = Design(self.claim, MARGIN, self.n_max, self.alpha)
        return PoolDesign(gate, self.pool_items, self.explained)


def plan_pool(pair: PoolPair, claim: Claim, pool_items: int) -> PoolPlan:
    """Plans as many candidate answers as have the power of PLANNED pairs. It reads the past
    models' scores, and none of the candidate's.
    """
    found = predict_differences(pair.incumbent[None], pair.past[None])[1]
    explained = round(float(found[0]), 2)
    n_max = items_for_equal_power(PLANNED, pool_items, explained)
    return PoolPlan(claim, pool_items, n_max, explained)


class Pairing(StrEnum):
    """Says from which run the incumbent's scores of the pairs come, if the pool is old."""

    FRESH = "pairs asked anew"
    OLD = "pairs from the old run"
    CHECKED = "old run, unless 60 items show drift"


@dataclass(frozen=True)
class PoolDraws:
    promoted: NDArray[np.bool_]
    used: NDArray[np.int64]


def draw_pools(
    pair: PoolPair,
    plan: PoolPlan,
    lift: float,
    rows: int,
    rng: np.random.Generator,
    drift: float = 0.0,
    pairing: Pairing = Pairing.FRESH,
) -> PoolDraws:
    """Draws pools and judges them.

    Args:
        lift: the true difference above the null.
        drift: by how much the incumbent has changed since its run over the pool.
    """
    d = pair.candidate - pair.incumbent
    weights = tilt_weights(d, theta0_of(plan.claim) + lift + drift)
    promoted, used = [], []
    for first in range(0, rows, _AT_ONCE):
        shape = min(_AT_ONCE, rows - first), plan.pool_items
        items = rng.choice(len(d), size=shape, p=weights)
        old = pair.incumbent[items]
        predictions, _ = predict_differences(old, pair.past[:, items].transpose(1, 0, 2))
        now = _drifted(old[:, : plan.n_max], drift, rng)
        asked = _paired_scores(old[:, : plan.n_max], now, pairing)
        decided = judge_pools(
            pair.candidate[items[:, : plan.n_max]] - asked,
            Pools.of(predictions, plan.n_max),
            plan.design,
        )
        promoted.append(decided.promoted)
        used.append(decided.n_used)
    return PoolDraws(np.concatenate(promoted), np.concatenate(used))


def _drifted(scores: Floats, drift: float, rng: np.random.Generator) -> Floats:
    """Turns random items right or wrong, so that the mean moves by `drift`."""
    if not drift:
        return scores
    room = 1.0 - scores.mean() if drift > 0.0 else scores.mean()
    turned = rng.random(scores.shape) < abs(drift) / room
    return np.where(turned, 1.0 if drift > 0.0 else 0.0, scores)


def _paired_scores(old: Floats, now: Floats, pairing: Pairing) -> Floats:
    if pairing is Pairing.FRESH:
        return now
    if pairing is Pairing.OLD:
        return old
    moved = (now - old)[:, :ASKED_AGAIN]
    error = np.sqrt((moved.var(axis=1) + 0.25 / ASKED_AGAIN) / ASKED_AGAIN)
    seen = np.abs(moved.mean(axis=1)) > 1.96 * error
    return np.where(seen[:, None], now, old)


@dataclass(frozen=True)
class PoolRow:
    """A matrix's figures on one pool. Shares are of 1; null_*: of useless candidates."""

    matrix: str
    claim: Claim
    pool_items: int
    n_max: float  # mean over the pairs of models
    null_mean: float
    null_worst: float
    power: float
    power_today: float
    answers: float  # candidate answers 5 points above the null, mean
    answers_today: float

    @property
    def saved(self) -> float:
        return 1.0 - self.answers / self.answers_today


def measure_pool(
    cell: tuple[ScoreMatrix, Claim, int], replications: int = 2_000, seed: int = 11
) -> PoolRow:
    """Measures one pool's level, and its power and answers beside today's plan."""
    matrix, claim, pool_items = cell
    nulls, lifted, today, planned = [], [], [], []
    for index, pair in enumerate(pool_pairs(matrix)):
        rng = np.random.default_rng([seed, index, pool_items, QUALITY_CLAIMS.index(claim)])
        plan = plan_pool(pair, claim, pool_items)
        planned.append(plan.n_max)
        nulls.append(draw_pools(pair, plan, 0.0, replications, rng).promoted.mean())
        some = replications // 4
        better = draw_pools(pair, plan, LIFT, some, rng)
        lifted.append((better.promoted.mean(), better.used.mean()))
        promoted, used = _judge_today(pair, claim, some, rng)
        today.append((promoted.mean(), used.mean()))
    power, answers = np.mean(lifted, axis=0)
    power_today, answers_today = np.mean(today, axis=0)
    return PoolRow(
        matrix.name,
        claim,
        pool_items,
        float(np.mean(planned)),
        float(np.mean(nulls)),
        float(max(nulls)),
        *(float(x) for x in (power, power_today, answers, answers_today)),
    )


def _judge_today(
    pair: PoolPair, claim: Claim, rows: int, rng: np.random.Generator
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    d = pair.candidate - pair.incumbent
    weights = tilt_weights(d, theta0_of(claim) + LIFT)
    items = rng.choice(len(d), size=(rows, PLANNED), p=weights)
    return judge_rows(d[items], Design(claim, MARGIN, PLANNED, ALPHA))


@dataclass(frozen=True)
class NullRow:
    """How often useless candidates pass: mean over the pairs, and the worst pair."""

    matrix: str
    claim: Claim
    cell: str
    mean: float
    worst: float


def measure_small_plans(
    cell: tuple[ScoreMatrix, Claim], replications: int = 2_000, seed: int = 12
) -> Iterator[NullRow]:
    """Measures nulls with 150 and 300 candidate answers of a pool of 1,000."""
    matrix, claim = cell
    for n_max in (150, 300):
        shares = []
        for index, pair in enumerate(pool_pairs(matrix)):
            rng = np.random.default_rng([seed, index, n_max])
            explained = plan_pool(pair, claim, POOLS[0]).explained
            plan = PoolPlan(claim, POOLS[0], n_max, explained)
            shares.append(float(draw_pools(pair, plan, 0.0, replications, rng).promoted.mean()))
        name = f"{n_max} of {POOLS[0]}"
        yield NullRow(matrix.name, claim, name, float(np.mean(shares)), max(shares))


def measure_drift(
    cell: tuple[ScoreMatrix, Claim], replications: int = 2_000, seed: int = 13
) -> Iterator[NullRow]:
    """Measures an old pool, if the incumbent has moved by 3 points since."""
    matrix, claim = cell
    for pairing, drift in product(Pairing, (DRIFT, -DRIFT)):
        shares = []
        for index, pair in enumerate(pool_pairs(matrix)):
            rng = np.random.default_rng([seed, index, round(1_000 + 1_000 * drift)])
            plan = plan_pool(pair, claim, POOLS[0])
            draws = draw_pools(pair, plan, 0.0, replications, rng, drift, pairing)
            shares.append(float(draws.promoted.mean()))
        name = f"incumbent {drift:+.2f}, {pairing.value}"
        yield NullRow(matrix.name, claim, name, float(np.mean(shares)), max(shares))


def measure_many_candidates(
    cell: tuple[ScoreMatrix, Claim], replications: int = 2_000, seed: int = 14
) -> Iterator[NullRow]:
    """Measures how often any of ten useless candidates passes that share one pool and alpha."""
    matrix, claim = cell
    shares = []
    for index, pair in enumerate(pool_pairs(matrix, 3)):
        rng = np.random.default_rng([seed, index])
        rivals = _rivals(matrix, pair)
        weights = _weights_at_null(rivals - pair.incumbent, theta0_of(claim))
        plan = plan_pool(pair, claim, POOLS[0])
        plan = PoolPlan(
            claim,
            POOLS[0],
            plan.n_max,
            plan.explained,
            ALPHA / CANDIDATES,
        )
        passed = [
            _any_passes(pair, rivals, plan, weights, min(_AT_ONCE, replications - first), rng)
            for first in range(0, replications, _AT_ONCE)
        ]
        shares.append(float(np.concatenate(passed).mean()))
    name = f"any of {CANDIDATES} candidates"
    yield NullRow(matrix.name, claim, name, float(np.mean(shares)), max(shares))


def _rivals(matrix: ScoreMatrix, pair: PoolPair) -> Floats:
    """Returns the scores of the ten models nearest to the incumbent that are no past models."""
    taken = {row.tobytes() for row in (pair.incumbent, *pair.past)}
    mean = pair.incumbent.mean()
    rows = [row.as_candidate for row in matrix.rows.values()]
    free = [row for row in rows if row.tobytes() not in taken]
    free.sort(key=lambda row: abs(float(row.mean() - mean)))
    return np.array(free[:CANDIDATES])


def _weights_at_null(d: Floats, theta0: float) -> Floats:
    """Finds the item weights nearest to equal for which all candidates are at the null.

    Args:
        d: (candidates, items).

    Newton's method on the exponential tilt.
    """
    tilt = np.zeros(len(d))
    for _ in range(100):
        logs = tilt @ d
        weights = np.exp(logs - logs.max())
        weights /= weights.sum()
        gap = d @ weights - theta0
        spread = (d * weights) @ d.T - np.outer(d @ weights, d @ weights)
        step = np.linalg.solve(spread + 1e-9 * np.eye(len(d)), gap)
        tilt -= step * min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-12))
    return np.asarray(weights)


def _any_passes(
    pair: PoolPair,
    rivals: Floats,
    plan: PoolPlan,
    weights: Floats,
    rows: int,
    rng: np.random.Generator,
) -> NDArray[np.bool_]:
    items = rng.choice(len(weights), size=(rows, plan.pool_items), p=weights)
    past = pair.past[:, items].transpose(1, 0, 2)
    predictions, _ = predict_differences(pair.incumbent[items], past)
    pools = Pools.of(predictions, plan.n_max)
    asked = items[:, : plan.n_max]
    passed = np.zeros(rows, dtype=np.bool_)
    for rival in rivals:
        d = rival[asked] - pair.incumbent[asked]
        passed |= judge_pools(d, pools, plan.design).promoted
    return passed


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("matrix", nargs="+", type=Path)
    options.add_argument("--replications", type=int, default=2_000, help="per pair at the null")
    options.add_argument("--search", action="store_true", help="search the worst nulls only")
    chosen = options.parse_args()
    if chosen.search:
        print_rows("worst nulls of a pool", [*search_pool_nulls()])
        return 0
    matrices: Sequence[ScoreMatrix] = [load_matrix(path) for path in chosen.matrix]
    with ProcessPoolExecutor(2) as processes:
        measure = partial(measure_pool, replications=chosen.replications)
        rows = [*processes.map(measure, product(matrices, QUALITY_CLAIMS, POOLS))]
        print_rows("pools beside the plan without a pool, at +5 points", rows)
    nulls = [
        row
        for measure_nulls in (measure_small_plans, measure_drift, measure_many_candidates)
        for cell in product(matrices, QUALITY_CLAIMS)
        for row in measure_nulls(cell, chosen.replications)
    ]
    print_rows("useless candidates that pass", nulls)
    return 0


if __name__ == "__main__":
    sys.exit(main())
