"""Quantiles of latency from recorded histograms. Pure."""

from collections.abc import Iterable, Mapping
from typing import Final

# Upper bounds of the recorded histogram's buckets in ms; -1 stands for "no bound".
BOUNDS_MS: Final = (10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000)


def merged(histograms: Iterable[Mapping[int, int]]) -> dict[int, int]:
    """Upper bound in ms (-1: no bound) to count."""
    found: dict[int, int] = {}
    for each in histograms:
        for bound, count in each.items():
            found[bound] = found.get(bound, 0) + count
    return found


def quantile_ms(histogram: Mapping[int, int], share: float) -> float | None:
    """Where `share` of the requests is reached, straight within a bucket. None without any.

    In the bucket without a bound it is that bucket's lower end: at least so much.
    Source: Prometheus, `histogram_quantile`.
    """
    wanted = share * sum(histogram.values())
    if not wanted:
        return None
    below, seen = 0, 0
    for bound in BOUNDS_MS:
        count = histogram.get(bound, 0)
        if count and seen + count >= wanted:
            return below + (bound - below) * (wanted - seen) / count
        below, seen = bound, seen + count
    return float(below)
