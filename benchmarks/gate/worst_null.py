"""Searches for the distribution of differences with its mean exactly at the null that the gate
promotes most often. An evolutionary search changes distributions; new draws of the worst
measure its share of promotions without the search's luck.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Final

import numpy as np

from benchmarks.gate.gate_rules import ALPHA, MARGIN
from benchmarks.gate.score_matrix import Floats
from harness.gate.offline.design import Design
from harness.gate.offline.sequential import analysis_p
from harness.gate.suite_plan import QUALITY_CLAIMS, Claim

SIZES: Final = (20, 50, 80, 199, 200, 500, 1000)
MOST_FOUND: Final = 0.055
TWO_ERRORS: Final = 0.0036  # two standard errors of MOST_FOUND in 16,000 draws
DRAWS: Final = 10_000
# Draws of each null in the search (a quarter for more than 200 items), and of the worst null.
_SCOUTED = 1_000
_SURE = 40_000
# Differences judged at once; more would not fit into the processor's cache.
_AT_ONCE = 50_000
_KEPT = 12
_BRED = 18
_GENERATIONS = 8
_FINALISTS = 5
# Expected number of items that the candidate loses whole.
_LOST: Final = (0.7, 1.2, 2.0, 2.7, 3.0, 3.4, 4.4, 6.0, 9.0, 14.0)
_NOISE: Final = (0.0, 0.1, 0.3, 0.5)


@dataclass(frozen=True)
class NullDifferences:
    values: Floats
    weights: Floats


@dataclass(frozen=True)
class WorstNull:
    """The worst null of a search. promoted: a share. differences: its distribution."""

    claim: Claim
    n: int
    early_stops: bool
    promoted: float
    differences: str


def search_worst_nulls(
    sizes: Sequence[int] = SIZES,
    draws: int = DRAWS,
    seed: int = 11,
    workers: int = 2,
) -> Iterator[WorstNull]:
    """Searches every size and claim, with early stops and without."""
    cells = sorted(product(sizes, QUALITY_CLAIMS), reverse=True)
    with ProcessPoolExecutor(workers) as processes:
        for rows in processes.map(partial(_search, draws=draws, seed=seed), cells):
            yield from rows


def _search(
    cell: tuple[int, Claim],
    draws: int,
    seed: int,
) -> list[WorstNull]:
    n, claim = cell
    rng = np.random.default_rng([seed, n, QUALITY_CLAIMS.index(claim)])
    designs = [Design(claim, MARGIN, n, ALPHA, early) for early in (True, False)]
    if designs[0].levels == designs[1].levels:
        del designs[1]
    scouted, draws = (_SCOUTED, draws) if n <= 200 else (_SCOUTED // 4, draws * 2 // 5)
    return [
        _worst(_evolve(design, min(draws, scouted), rng), design, draws, rng)
        for design in designs
    ]


def _worst(
    nulls: Sequence[NullDifferences],
    design: Design,
    draws: int,
    rng: np.random.Generator,
) -> WorstNull:
    worst = max(nulls, key=lambda null: _promoted(null, design, draws, rng))
    pairs = sorted(zip(worst.values, worst.weights, strict=True))
    text = ", ".join(f"{weight:.2%} {value:+.3f}" for value, weight in pairs if weight > 1e-4)
    found = _promoted(worst, design, min(_SURE, 4 * draws), rng)
    return WorstNull(design.claim, design.n_max, design.early, round(found, 4), text)


def _promoted(
    null: NullDifferences,
    design: Design,
    draws: int,
    rng: np.random.Generator,
) -> float:
    """Returns the share of draws that any analysis promotes, without rejections before."""
    shown = 0
    most = _AT_ONCE // design.n_max
    for first in range(0, draws, most):
        shape = min(most, draws - first), design.n_max
        rows = rng.choice(null.values, size=shape, p=null.weights)
        for used, level in design.levels.items():
            rows = rows[analysis_p(rows[:, :used], design, most=level) > level]
        shown += shape[0] - len(rows)
    return shown / draws


def _evolve(
    design: Design,
    draws: int,
    rng: np.random.Generator,
) -> list[NullDifferences]:
    fitness = partial(
        _promoted,
        design=design,
        draws=draws,
        rng=rng,
    )
    n = design.n_max
    theta0 = design.theta0
    scored = [(fitness(null), null) for null in _seeds(n, theta0, rng)]
    for generation in range(_GENERATIONS):
        scored.sort(key=lambda one: -one[0])
        scored = [((score + fitness(null)) / 2.0, null) for score, null in scored[:_KEPT]]
        parents = [null for _, null in scored]
        bred = (_bred(parents, 0.4 * 0.8**generation, theta0, rng) for _ in range(_BRED))
        scored += [(fitness(null), null) for null in bred if null is not None]
    scored.sort(key=lambda one: -one[0])
    return [null for _, null in scored[:_FINALISTS]]


def _seeds(
    n: int,
    theta0: float,
    rng: np.random.Generator,
) -> Iterator[NullDifferences]:
    """Yields the search's first distributions: rare whole losses beside small differences, two
    or three values, random values, and pass/fail.
    """
    raw = []
    for lost, noise in product(_LOST, _NOISE):
        rate = min(lost / n, 0.5)
        raw.append(
            (
                [-1.0, -noise, noise],
                [rate, (1.0 - rate) / 2.0, (1.0 - rate) / 2.0],
            )
        )
    raw += [([-reach, reach], [0.5, 0.5]) for reach in (0.6, 0.8, 0.95)]
    rare = (0.03, 0.06, 0.1, 0.2)
    raw += [([-1.0, 0.02, win], [x, 1.0 - 2.0 * x, x]) for x in rare for win in (0.8, 1.0)]
    raw += [(list(rng.uniform(-1, 1, 4)), list(rng.dirichlet([0.5] * 4))) for _ in range(8)]
    for values, weights in raw:
        null = _at_the_null(np.array(values), np.array(weights), theta0)
        if null is not None:
            yield null
    for differ in (0.1, 0.3, 0.6, 1.0):
        chances = [
            (differ - theta0) / 2.0,
            1.0 - differ,
            (differ + theta0) / 2.0,
        ]
        yield NullDifferences(np.array([-1.0, 0.0, 1.0]), np.array(chances))


def _bred(
    parents: Sequence[NullDifferences],
    step: float,
    theta0: float,
    rng: np.random.Generator,
) -> NullDifferences | None:
    one, other = (parents[index] for index in rng.integers(len(parents), size=2))
    values = one.values.copy()
    weights = one.weights.copy()
    if rng.random() < 0.3:
        values = np.concatenate([values, other.values])
        weights = np.concatenate([weights, other.weights])
        some = rng.permutation(len(values))[:6]
        values = values[some]
        weights = weights[some]
    moved, weighed = rng.random((2, len(values))) < 0.5
    values = np.clip(values + moved * rng.normal(0.0, step / 2.0, len(values)), -1.0, 1.0)
    weights = weights * np.exp(weighed * rng.normal(0.0, 2.0 * step, len(values)))
    return _at_the_null(values, weights, theta0)


def _at_the_null(
    values: Floats,
    weights: Floats,
    theta0: float,
) -> NullDifferences | None:
    """Moves all values except the lowest until the mean is at the null. Returns None if a value
    would leave the range from -1 to 1.
    """
    order = np.argsort(values)
    values = values[order]
    weights = weights[order] / weights.sum()
    rest = max(float(weights[1:].sum()), 1e-9)
    values[1:] += (theta0 - float(values @ weights)) / rest
    inside = float(values.min()) >= -1.0 and float(values.max()) <= 1.0
    return NullDifferences(values, weights) if inside else None
