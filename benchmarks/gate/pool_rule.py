"""The rule of a *pool*: the incumbent answers N items, the candidate only the first n of them.
The gate does not use the rule yet (docs/adr/0048); the benchmark of pools measures it.

A *prediction* h of each item's difference comes from scores that exist before the candidate's
first answer. It is linear in two covariates: the incumbent's score in one earlier run over the
whole pool, and the mean score of past models. The past models' differences give the slopes, so
the candidate's scores change neither slopes nor predictions. The estimate is the mean of d - h
over the n items plus the mean of h over the pool. Its variance is

    (variance of d - h)·(1/n - 1/N) + (variance of d)/N

Source: Cochran 1977, "Sampling Techniques", chapter 12 (two-phase sampling, differences).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.gate.gate_rules import Floats
from harness.gate.offline.design import (
    FIRST_ITEMS,
    Design,
    interim_items,
    interim_levels,
)
from harness.gate.offline.intervals import VARIANCE_GUARD
from harness.gate.offline.item_tests import t_tail
from harness.gate.offline.sequential import BatchDecisions, evidence_path

# A pass/fail candidate's unseen loss shrinks with its spread four times more slowly than a
# graded one's, because no exact test guards few wins and losses.
_WHOLE_SPREAD: Final = 8.0
_SPREAD: Final = 2.0  # as `with_unseen_loss`
# The largest predicted difference, either way: with larger predictions of graded scores, rare
# losses pass too often.
MOST_PREDICTED: Final = 0.3
MOST_PREDICTED_WHOLE: Final = 1.0  # for pass/fail scores
_FULL: Final = 100_000  # units of the information at the last look
_NOTHING: Final = 1e-12


@dataclass(frozen=True)
class Pools:
    """The predictions of many pools, one a row."""

    items: int  # N
    known: Floats  # (rows, n): predictions of the candidate's items, in their order
    mean: Floats  # (rows,): over all N items
    third: Floats  # (rows,): third central moment over all N items

    @classmethod
    def of(cls, predictions: Floats, n: int) -> "Pools":
        """Computes the moments of predictions.

        Args:
            predictions: (rows, N). The first n items are the candidate's.
        """
        mean = predictions.mean(axis=1)
        third = ((predictions - mean[:, None]) ** 3).mean(axis=1)
        return cls(predictions.shape[1], predictions[:, :n], mean, third)

    def first(self, rows: NDArray[np.int64], n: int) -> "Pools":
        """Returns some rows, with the predictions of the candidate's first n items."""
        return Pools(self.items, self.known[rows, :n], self.mean[rows], self.third[rows])


@dataclass(frozen=True)
class PoolDesign:
    """Fixes a comparison on a pool before the candidate's first score."""

    gate: Design  # n_max counts the candidate's answers
    pool_items: int  # N
    # The share of the differences' variance that the predictions explain, as the past models
    # show it. It spaces levels; 0 spaces them by items, which is valid but slower.
    explained: float = 0.0

    @property
    def levels(self) -> Mapping[int, float]:
        """The level of each look, by its number of candidate answers.

        After n answers the share V(n_max)/V(n) of the information is known.
        """
        looks = interim_items(self.gate.n_max)
        left = [(1.0 - self.explained) / n + self.explained / self.pool_items for n in looks]
        shares = tuple(round(_FULL * left[-1] / variance) for variance in left)
        return dict(zip(looks, interim_levels(shares, self.gate.alpha), strict=True))


def items_for_equal_power(planned: int, pool_items: int, explained: float) -> int:
    """Computes how many candidate answers on a pool have the variance of `planned` pairs."""
    paid = planned * explained / pool_items
    return max(FIRST_ITEMS, round(planned * (1.0 - explained) / (1.0 - paid)))


def predict_differences(incumbent: Floats, past: Floats) -> tuple[Floats, Floats]:
    """Predicts differences from earlier scores alone. Returns predictions (rows, N), and the
    share of the past models' variance that such predictions explain (rows,).

    Args:
        incumbent: (rows, N).
        past: (rows, models, N), two models or more.

    Each past model's differences are regressed, by one pair of slopes for all, on the
    incumbent's score and on the mean of the other past models. Predictions have a limit: a line
    without a limit predicts gains for rare items far from all others (`pool_regression`).
    """
    models = past.shape[1]
    others = (past.sum(axis=1, keepdims=True) - past) / (models - 1)
    d = _centred(past - incumbent[:, None])
    ours = _centred(np.broadcast_to(incumbent[:, None], past.shape))
    theirs = _centred(others)
    squares = [(x * y).mean(axis=(1, 2)) for x, y in ((ours, ours), (ours, theirs))]
    own, shared, other = *squares, (theirs * theirs).mean(axis=(1, 2))
    by_own, by_other = ((x * d).mean(axis=(1, 2)) for x in (ours, theirs))
    scale = np.maximum(own * other - shared * shared, _NOTHING)
    slope = (other * by_own - shared * by_other) / scale
    slope_past = (own * by_other - shared * by_own) / scale
    explained = slope * by_own + slope_past * by_other
    mean_past = past.mean(axis=1)
    expected = (
        (mean_past - incumbent).mean(axis=1, keepdims=True)
        + slope[:, None] * _centred(incumbent)
        + slope_past[:, None] * _centred(mean_past)
    )
    whole = all(bool((x == np.round(x)).all()) for x in (incumbent, past))
    most = MOST_PREDICTED_WHOLE if whole else MOST_PREDICTED
    predictions = np.clip(expected, -most, most)
    return predictions, explained / np.maximum((d * d).mean(axis=(1, 2)), _NOTHING)


def _centred(scores: Floats) -> Floats:
    return np.asarray(scores - scores.mean(axis=-1, keepdims=True))


def judge_pools(d: Floats, pools: Pools, design: PoolDesign) -> BatchDecisions:
    """Judges rows of differences (rows, n_max). Rejections and futility read the differences
    alone, as without a pool.
    """
    taken = evidence_path(d, design.gate)
    stops = taken.rejects | taken.hopeless
    rows, items = d.shape
    used = np.where(stops.any(axis=-1), np.argmax(stops, axis=-1) + 1, items)
    promoted = np.zeros(rows, dtype=np.bool_)
    for n, level in design.levels.items():
        at = np.flatnonzero(~promoted & (used >= n))
        if not len(at):
            break
        p = pool_p(d[at, :n], pools.first(at, n), design.gate.theta0)
        passed = at[p <= level]
        promoted[passed] = True
        used[passed] = n
    last = np.arange(rows), used - 1
    rejected = ~promoted & taken.rejects[last]
    return BatchDecisions(
        promoted, rejected, ~promoted & ~rejected & taken.hopeless[last], used
    )


def pool_p(d: Floats, pools: Pools, theta0: float, counts: Floats | None = None) -> Floats:
    """Computes the p-value of (rows, n) differences: how well they fit a mean of theta0.

    Adds an unseen loss to d - h (statistics.md §1.17), and corrects t for skewness (§1.5). For
    graded scores without predictions, this is `final_p`.

    Args:
        counts: (rows, kinds), if a column of differences and predictions stands for several
            items.
    """
    weights = np.ones_like(d) if counts is None else counts
    h = pools.known
    n = float(weights[0].sum())
    whole = (d == np.round(d)).all(axis=1)
    adjusted = d - h + pools.mean[:, None]
    before = _summed(weights, adjusted) / n
    unseen = _unseen_loss(weights, adjusted - before[:, None], whole)
    # The unseen item's prediction is the mean of the n predictions.
    items = n + 1.0
    mean = before + (unseen - before) / items
    gaps = adjusted - mean[:, None]
    last = unseen - mean
    waves = h - (_summed(weights, h) / n)[:, None]
    inflated = np.where(whole, _null_inflation(d, weights, theta0), 1.0)
    left, total = (
        ((_summed(weights, x * x) + last * last) * inflated + VARIANCE_GUARD) / items
        for x in (gaps, gaps + waves)
    )
    unpaid = max(1.0 / items - 1.0 / pools.items, 0.0)
    variance = left * unpaid + total / pools.items
    t = (mean - theta0) / np.sqrt(variance)
    moved = waves / pools.items
    cubes = _summed(weights, (gaps / items + moved) ** 3 - moved**3) + (last / items) ** 3
    cubes += pools.third / (pools.items * pools.items)
    a = np.minimum(cubes / (variance * np.sqrt(variance)), 0.0) / 3.0
    return t_tail(int(items), t + a / 2.0 + a * t * t + a * a * t**3 / 3.0)


def _summed(weights: Floats, values: Floats) -> Floats:
    return np.asarray((weights * values).sum(axis=1))


def _unseen_loss(weights: Floats, gaps: Floats, whole: NDArray[np.bool_]) -> Floats:
    """Returns the difference of an unseen item (statistics.md §1.17).

    Args:
        gaps: from the mean.
    """
    above = _summed(weights, np.maximum(gaps, 0.0) ** 2)
    below = _summed(weights, np.minimum(gaps, 0.0) ** 2)
    return -1.0 / (1.0 + np.minimum(above, below) / np.where(whole, _WHOLE_SPREAD, _SPREAD))


def _null_inflation(d: Floats, weights: Floats, theta0: float) -> Floats:
    """Returns by how much pass/fail differences vary more under the null than observed, at
    least 1. Source: Tango 1998, as `tango_z`.
    """
    n = weights[0].sum()
    won = _summed(weights, np.maximum(np.sign(d), 0.0))
    lost = _summed(weights, np.maximum(np.sign(-d), 0.0))
    first = -won - lost + (2.0 * n - won + lost) * theta0
    second = -lost * theta0 * (1.0 - theta0)
    lose = (np.sqrt(np.maximum(first * first - 8.0 * n * second, 0.0)) - first) / (4.0 * n)
    null = 2.0 * lose + theta0 * (1.0 - theta0)
    seen = (won + lost) / n - ((won - lost) / n) ** 2
    return np.asarray(np.maximum(null / np.maximum(seen, _NOTHING), 1.0))
