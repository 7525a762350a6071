"""Intervals of what an answer costs and takes. For display: nothing is decided by them."""

import math
from collections.abc import Sequence

from scipy import special

CONFIDENCE = 0.95


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Of the mean, by Student's t; None below two values."""
    n = len(values)
    if n < 2:
        return None
    mean = math.fsum(values) / n
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    half = float(special.stdtrit(n - 1, 0.5 + CONFIDENCE / 2)) * math.sqrt(variance / n)
    return mean - half, mean + half


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Of the median, by order statistics: no shape is assumed. None below six values.

    The widest pair of ranks that leaves at most 2.5 % on either side of a fair coin.
    """
    n = len(values)
    below = -1  # the largest rank with a tail of at most 2.5 %
    while float(special.bdtr(below + 1, n, 0.5)) <= (1 - CONFIDENCE) / 2:
        below += 1
    if below < 0:
        return None
    ordered = sorted(values)
    return ordered[below], ordered[n - 1 - below]
