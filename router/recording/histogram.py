"""A histogram counts the requests of one worker in buckets. Adding to it takes two additions;
`prometheus_client`'s own takes two locks and five calls, for every request.
"""

import math
from bisect import bisect_left
from collections.abc import Collection, Sequence
from itertools import accumulate


class HistogramSeries:
    """Counts the values of one set of labels. bounds: the buckets' upper ends, in order. total:
    the sum of all values.
    """

    __slots__ = ("_bounds", "_counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.total = 0.0
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)

    def observe(self, values: Collection[float]) -> None:
        """Counts values, each in the bucket whose upper end is the first that is not below
        it.
        """
        for value in values:
            self._counts[bisect_left(self._bounds, value)] += 1
        self.total = sum(values, self.total)

    def buckets(self) -> list[tuple[float, int]]:
        """Lists each upper end with the number of values up to it; infinity is the last."""
        ends = (*self._bounds, math.inf)
        return list(zip(ends, accumulate(self._counts), strict=True))
