"""Searches for the null that the rule of a pool promotes most often: an evolution of joint
distributions of differences and predictions, with any predictions within their limit.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from itertools import product
from typing import Final

import numpy as np

from benchmarks.gate.gate_benchmark import theta0_of
from benchmarks.gate.gate_rules import MARGIN
from benchmarks.gate.pool_rule import (
    MOST_PREDICTED,
    MOST_PREDICTED_WHOLE,
    PoolDesign,
    Pools,
    pool_p,
)
from benchmarks.gate.score_matrix import Floats
from harness.gate.offline.design import Design
from harness.gate.suite_plan import QUALITY_CLAIMS, Claim

POOL: Final = 1_000
EXPLAINED: Final = 0.4  # as on the matrices; it spaces the levels
_SCOUTED: Final = 1_000
_SURE: Final = 20  # times as many draws measure the worst null
_AT_ONCE: Final = 4_000  # draws judged at once
_KEPT: Final = 12
_BRED: Final = 18
_GENERATIONS: Final = 3
_FINALISTS: Final = 5
_MOST_KINDS: Final = 7
_LOST: Final = (0.7, 1.2, 2.0, 2.7, 3.4, 4.4, 6.0, 9.0, 14.0)  # expected whole losses


class Scores(StrEnum):
    PASS_FAIL = "pass/fail"  # noqa: S105 - a kind of scores, not a secret
    GRADED = "graded"


@dataclass(frozen=True)
class PoolNull:
    """Kinds of items: their difference, prediction and share."""

    kinds: Floats  # (kinds, 2)
    shares: Floats  # (kinds,)

    @property
    def text(self) -> str:
        rows = sorted(zip(self.shares, self.kinds, strict=True), key=lambda row: -row[0])
        return ", ".join(f"{s:.2%} {d:+.3f} ({h:+.2f})" for s, (d, h) in rows if s > 1e-4)


@dataclass(frozen=True)
class WorstPoolNull:
    """promoted: a share. null: difference and, in brackets, prediction of each kind of item."""

    scores: Scores
    claim: Claim
    n_max: int
    pool_items: int
    alpha: float
    promoted: float
    null: str


def search_pool_nulls(seed: int = 11) -> Iterator[WorstPoolNull]:
    """Searches pass/fail and graded nulls of plans with 150 and 300 candidate answers."""
    sizes = ((150, 0.05), (300, 0.05), (150, 0.005))
    for (n_max, alpha), scores, claim in product(sizes, Scores, QUALITY_CLAIMS):
        design = PoolDesign(Design(claim, MARGIN, n_max, alpha), POOL, EXPLAINED)
        rng = np.random.default_rng([seed, n_max, POOL, round(1_000 * alpha)])
        yield search_pool_null(design, scores=scores, rng=rng)


def search_pool_null(
    design: PoolDesign,
    *,
    scores: Scores,
    rng: np.random.Generator,
    generations: int = _GENERATIONS,
    draws: int = _SCOUTED,
) -> WorstPoolNull:
    """Returns the worst null that the search finds."""
    fitness = partial(promoted_share, design=design, rng=rng)
    theta0 = theta0_of(design.gate.claim)
    bred = _seeds(design, scores, rng)
    scored = [(fitness(null, draws=draws), null) for null in bred]
    for generation in range(generations):
        scored.sort(key=lambda one: -one[0])
        kept = scored[:_KEPT]
        scored = [((old + fitness(null, draws=draws)) / 2.0, null) for old, null in kept]
        parents = [null for _, null in scored]
        step = 0.4 * 0.8**generation
        children = (_child(parents, step, scores, theta0, rng) for _ in range(_BRED))
        scored += [(fitness(null, draws=draws), null) for null in children if null]
    scored.sort(key=lambda one: -one[0])
    best = max(
        (null for _, null in scored[:_FINALISTS]),
        key=lambda null: fitness(null, draws=8 * draws),
    )
    gate = design.gate
    return WorstPoolNull(
        scores,
        gate.claim,
        gate.n_max,
        design.pool_items,
        gate.alpha,
        round(fitness(best, draws=_SURE * draws), 4),
        best.text,
    )


def promoted_share(
    null: PoolNull, design: PoolDesign, draws: int, rng: np.random.Generator
) -> float:
    """Returns the share of draws that any look promotes, without rejections before."""
    looks = design.levels
    steps = np.diff([0, *looks, design.pool_items])
    shown = 0
    for first in range(0, draws, _AT_ONCE):
        rows = min(_AT_ONCE, draws - first)
        counts = [rng.multinomial(step, null.shares, size=rows) for step in steps]
        known = np.cumsum(counts, axis=0).astype(np.float64)
        pools = _pools(null, known[-1])
        d = np.broadcast_to(null.kinds[:, 0], known[-1].shape)
        open_ = np.arange(rows)
        for seen, level in zip(known, looks.values(), strict=False):
            if not len(open_):
                break
            kinds = pools.first(open_, d.shape[1])
            p = pool_p(d[open_], kinds, design.gate.theta0, seen[open_])
            open_ = open_[p > level]
        shown += rows - len(open_)
    return shown / draws


def _pools(null: PoolNull, counts: Floats) -> Pools:
    """Computes the moments of whole pools.

    Args:
        counts: (rows, kinds) items of each kind in the whole pool.
    """
    items = round(float(counts[0].sum()))
    h = null.kinds[:, 1]
    mean = counts @ h / items
    third = (counts * (h - mean[:, None]) ** 3).sum(axis=1) / items
    return Pools(items, np.broadcast_to(h, counts.shape), mean, third)


def _seeds(design: PoolDesign, scores: Scores, rng: np.random.Generator) -> list[PoolNull]:
    theta0 = theta0_of(design.gate.claim)
    whole = scores is Scores.PASS_FAIL
    raw = _whole_seeds(design.gate.n_max) if whole else _graded_seeds(design)
    for _ in range(12):
        values = rng.choice((-1.0, 0.0, 1.0), 6) if whole else rng.uniform(-1.0, 1.0, 6)
        kinds = np.stack([values, rng.uniform(-1.0, 1.0, 6)], axis=1)
        raw.append((kinds, rng.dirichlet([0.5] * 6)))
    found = [_at_the_null(kinds, shares, scores, theta0) for kinds, shares in raw]
    return [null for null in found if null]


def _whole_seeds(n: int) -> list[tuple[Floats, Floats]]:
    """Returns differences that predictions explain wholly, partly or not, and rare losses."""
    raw = []
    for differ, told in product((0.03, 0.06, 0.1, 0.2, 0.4, 0.8), (0.0, 0.3, 0.6, 0.9, 1.0)):
        half = differ / 2.0
        kinds = [[1.0, told], [0.0, 0.0], [0.0, 0.2], [-1.0, -told]]
        raw.append((kinds, [half, 0.9 - differ, 0.1, half]))
    for lost, told in product((1.0, 2.0, 3.0, 4.0, 6.0, 9.0), (0.5, 1.0)):
        rate = lost / n
        kinds = [[-1.0, 0.0], [1.0, told], [0.0, 0.0], [0.0, told]]
        raw.append((kinds, [rate, rate, 1.0 - 2.1 * rate, 0.1 * rate]))
    return [(np.array(kinds), np.maximum(shares, 1e-6)) for kinds, shares in raw]


def _graded_seeds(design: PoolDesign) -> list[tuple[Floats, Floats]]:
    """Returns rare whole losses beside small differences."""
    raw = []
    for lost, noise, told in product(_LOST, (0.0, 0.1, 0.3, 0.5), (0.0, 1.0)):
        for items, guess in product((design.gate.n_max, design.pool_items), (0.0, 1.0)):
            rate = min(lost / items, 0.5)
            kinds = [[-1.0, guess], [-noise, -told * noise], [noise, told * noise]]
            raw.append((kinds, [rate, (1.0 - rate) / 2.0, (1.0 - rate) / 2.0]))
    return [(np.array(kinds), np.array(shares)) for kinds, shares in raw]


def _child(
    parents: list[PoolNull],
    step: float,
    scores: Scores,
    theta0: float,
    rng: np.random.Generator,
) -> PoolNull | None:
    one, other = (parents[at] for at in rng.integers(len(parents), size=2))
    kinds, shares = one.kinds, one.shares
    if rng.random() < 0.3:
        some = rng.permutation(len(shares) + len(other.shares))[:_MOST_KINDS]
        kinds = np.concatenate([kinds, other.kinds])[some]
        shares = np.concatenate([shares, other.shares])[some]
    moved = (rng.random(kinds.shape) < 0.4) * rng.normal(0.0, step, kinds.shape)
    kinds = kinds + moved * ((0.0, 1.0) if scores is Scores.PASS_FAIL else (0.5, 1.0))
    weighed = (rng.random(len(shares)) < 0.5) * rng.normal(0.0, 2.0 * step, len(shares))
    return _at_the_null(np.clip(kinds, -1.0, 1.0), shares * np.exp(weighed), scores, theta0)


def _at_the_null(
    kinds: Floats, shares: Floats, scores: Scores, theta0: float
) -> PoolNull | None:
    """Moves the mean to the null: by shares (pass/fail), or by all differences but the lowest
    (graded). Returns None if that is impossible.
    """
    order = np.argsort(kinds[:, 0])
    kinds, shares = kinds[order].copy(), shares[order] / shares.sum()
    most = MOST_PREDICTED_WHOLE if scores is Scores.PASS_FAIL else MOST_PREDICTED
    kinds[:, 1] = np.clip(kinds[:, 1], -most, most)
    d = kinds[:, 0]
    if scores is Scores.PASS_FAIL:
        if not d.min() < theta0 < d.max():
            return None
        logs = np.log(np.maximum(shares, 1e-9))
        low, high = -60.0, 60.0
        for _ in range(60):
            middle = (low + high) / 2.0
            shares = np.exp(logs + middle * d - (logs + middle * d).max())
            shares /= shares.sum()
            low, high = (middle, high) if float(shares @ d) < theta0 else (low, middle)
        return PoolNull(kinds, shares)
    d[1:] += (theta0 - float(d @ shares)) / max(float(shares[1:].sum()), 1e-9)
    inside = float(d.min()) >= -1.0 and float(d.max()) <= 1.0
    return PoolNull(kinds, shares) if inside else None
