"""Intervals and tests for paired differences: Tango's for pass/fail scores, Student's t for
graded scores; McNemar's test, intervals of a mean and a median, and a lower bound of a score
that stays valid under repeated inspection.

Most intervals here are for reading only, and are not adjusted for early stopping. The tests
that decide are in `harness.gate.offline.item_tests` and `harness.gate.offline.sequential`.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from harness.gate.arrays import ArrayLike, Floats, np, special

CONFIDENCE = 0.95
# Added to each sum of squares, because equal differences do not prove a spread of 0.
VARIANCE_GUARD = 0.25


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Returns Student's interval of the mean; None below two values or for infinite figures."""
    n = len(values)
    if n < 2 or not all(map(math.isfinite, values)):
        return None
    try:
        mean = math.fsum(values) / n
        variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    except OverflowError:
        return None
    half = float(special.stdtrit(n - 1, 0.5 + CONFIDENCE / 2)) * math.sqrt(variance / n)
    return mean - half, mean + half


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Returns the interval of the median as `quantile_interval` does; None below six values."""
    return quantile_interval(values, 0.5)


def quantile_interval(values: Sequence[float], share: float) -> tuple[float, float] | None:
    """Returns the interval of a quantile by order statistics, for any distribution. None below
    the minimum number of values: 72 for the 95th percentile.

    Uses the narrowest pair of ranks with at most 2.5 % probability outside on each side.
    Source: David & Nagaraja 2003, Order Statistics, 7.1.
    """
    n = len(values)
    tail = (1 - CONFIDENCE) / 2
    # The number of values below the quantile is binomial.
    below = bisect_right(range(n), tail, key=lambda rank: special.bdtr(rank, n, share)) - 1
    above = bisect_left(range(n), 1 - tail, key=lambda rank: special.bdtr(rank, n, share))
    if below < 0 or above > n - 1:
        return None
    ordered = sorted(values)
    return ordered[below], ordered[above]


def share_interval(count: int, n: int) -> tuple[float, float] | None:
    """Returns the exact interval of a share; None for n = 0. Source: Clopper & Pearson 1934."""
    if not n:
        return None
    tail = (1 - CONFIDENCE) / 2
    low = float(special.betaincinv(count, n - count + 1, tail)) if count else 0.0
    high = float(special.betaincinv(count + 1, n - count, 1 - tail)) if count < n else 1.0
    return low, high


_JEFFREYS_PRIOR = 0.5  # both parameters of the bound's beta prior (Jeffreys)


def lower_bound(scores: Sequence[float]) -> float | None:
    """Returns the one-sided lower 95 % bound of the mean of scores. None without scores, or if
    a score is outside [0, 1].

    The bound is valid at all sample sizes simultaneously, because runs stop early and people
    look repeatedly. It excludes a mean once the beta mixture of likelihood ratios against that
    mean reaches 20. The bound assumes no distribution: each likelihood ratio is convex on [0,
    1], so a graded score adds no more evidence than a pass/fail score of the same mean
    (statistics.md §1.11).
    Source: Robbins 1970, Ann. Math. Stat. 41:1397; Howard et al. 2021.
    """
    n = len(scores)
    if not n or not all(0.0 <= score <= 1.0 for score in scores):
        return None
    right = math.fsum(scores)
    wrong = n - right
    gain = float(
        special.betaln(right + _JEFFREYS_PRIOR, wrong + _JEFFREYS_PRIOR)
        - special.betaln(_JEFFREYS_PRIOR, _JEFFREYS_PRIOR)
    )
    needed = gain - math.log(1.0 / (1.0 - CONFIDENCE))
    low = 0.0
    high = right / n
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        likelihood = float(special.xlogy(right, middle) + special.xlog1py(wrong, -middle))
        if likelihood < needed:
            low = middle
        else:
            high = middle
    return low


Z95 = 1.959963984540054
# 2 / 2**60 is below the spacing of doubles near any real suite's limits.
_HALVINGS = 60


def tango_z(
    wins: ArrayLike,
    losses: ArrayLike,
    n: ArrayLike,
    theta0: ArrayLike,
) -> Floats:
    """Computes Tango's score statistic for the difference of paired proportions.

    Args:
        wins: pairs that only the candidate passed.
        losses: only the incumbent.

    At theta0 = 0 it is McNemar's z. If both the variance and the excess are 0, the result is 0.
    Source: Tango 1998, Stat. Med. 17:891.
    """
    b = np.asarray(wins, dtype=np.float64)
    c = np.asarray(losses, dtype=np.float64)
    count = np.asarray(n, dtype=np.float64)
    theta = np.asarray(theta0, dtype=np.float64)
    big_b = -b - c + (2.0 * count - b + c) * theta
    big_c = -c * theta * (1.0 - theta)
    root = np.sqrt(np.maximum(big_b * big_b - 8.0 * count * big_c, 0.0))
    q = (root - big_b) / (4.0 * count)
    variance = count * (2.0 * q + theta * (1.0 - theta))
    excess = b - c - count * theta
    positive = variance > 0.0
    z = excess / np.sqrt(np.where(positive, variance, 1.0))
    limit = np.where(excess == 0.0, 0.0, np.copysign(np.inf, excess))
    return np.asarray(np.where(positive, z, limit), dtype=np.float64)


def tango_p(
    wins: ArrayLike,
    losses: ArrayLike,
    n: ArrayLike,
    theta0: ArrayLike,
) -> Floats:
    """Computes the upper tail of tango_z: small when the difference exceeds theta0."""
    return np.asarray(special.ndtr(-tango_z(wins, losses, n, theta0)), dtype=np.float64)


def tango_interval(
    wins: int,
    losses: int,
    n: int,
    z: float = Z95,
) -> tuple[float, float]:
    """Returns the differences that Tango's test accepts. Not adjusted for early stopping."""
    targets = np.array([z, -z])
    low = np.array([-1.0, -1.0])
    high = np.array([1.0, 1.0])
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        above = tango_z(wins, losses, n, middle) > targets
        low = np.where(above, middle, low)
        high = np.where(above, high, middle)
    limits = (low + high) / 2.0
    return float(limits[0]), float(limits[1])


def squared_deviations(
    n: ArrayLike,
    total: ArrayLike,
    squares: ArrayLike,
) -> Floats:
    """Computes the sum of squared deviations from the mean."""
    count = np.maximum(np.asarray(n, dtype=np.float64), 1.0)
    sums = np.asarray(total, dtype=np.float64)
    deviations = np.asarray(squares, dtype=np.float64) - sums * sums / count
    return np.asarray(np.maximum(deviations, 0.0), dtype=np.float64)


def t_interval(
    n: int,
    total: float,
    squares: float,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Computes Student's interval, n >= 2. Not adjusted for early stopping."""
    mean = total / n
    error = float(np.sqrt(squared_deviations(n, total, squares) / (n * (n - 1.0))))
    reach = float(special.stdtrit(n - 1.0, 0.5 + confidence / 2.0)) * error
    return mean - reach, mean + reach


@dataclass(frozen=True, slots=True)
class McNemar:
    """Two-sided p-values of McNemar's test, exact and mid-p."""

    exact: float  # exact, mid_p: two-sided p-values
    mid_p: float


def mcnemar(wins: int, losses: int) -> McNemar:
    """Tests whether discordant pairs favour one model.

    Source: Fagerland, Lydersen & Laake 2013 (mid-p).
    """
    discordant = wins + losses
    if discordant == 0:
        return McNemar(1.0, 1.0)
    fewer = min(wins, losses)
    tail = float(special.bdtr(fewer, discordant, 0.5))
    below = float(special.bdtr(fewer - 1, discordant, 0.5)) if fewer else 0.0
    return McNemar(min(1.0, 2.0 * tail), 1.0 if wins == losses else tail + below)
