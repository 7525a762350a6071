"""Metric families carry the metrics of several processes as plain data, and add them up.

Counters and histograms are summed, those of ended workers included, so that they never go
back. Gauges stay apart, each with the label `worker`.
"""

import math
from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple


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


WORKER = "worker"


class MetricSample(NamedTuple):
    name: str
    labels: Mapping[str, str]
    value: float


class MetricFamily(NamedTuple):
    """Holds a metric with all its samples."""

    name: str
    kind: str  # counter, gauge or histogram, as prometheus_client calls them
    says: str
    samples: Sequence[MetricSample]


def families_from_json(data: Iterable[Sequence[object]]) -> list[MetricFamily]:
    """Reads metric families from what a worker sent as JSON. Raises TypeError or ValueError for
    anything else.
    """
    families = []
    for name, kind, says, samples in data:
        if not isinstance(samples, list):
            raise TypeError("a family's samples are no list")
        metric_samples = [
            MetricSample(str(n), dict(labels), float(value)) for n, labels, value in samples
        ]
        families.append(MetricFamily(str(name), str(kind), str(says), metric_samples))
    return families


def counter_family(name: str, says: str, value: float) -> MetricFamily:
    """Builds the family of one counter. name: without `_total`."""
    return MetricFamily(name, "counter", says, [MetricSample(f"{name}_total", {}, value)])


def gauge_family(name: str, says: str, value: float) -> MetricFamily:
    return MetricFamily(name, "gauge", says, [MetricSample(name, {}, value)])


_Labels = tuple[tuple[str, str], ...]


class MetricTotals:
    """Adds metric families up, in the order in which they first came."""

    def __init__(self) -> None:
        self._about: dict[str, tuple[str, str]] = {}
        self._values: dict[str, dict[tuple[str, _Labels], float]] = {}

    def add(self, families: Iterable[MetricFamily], *, worker: str | None = None) -> None:
        """Adds the values of a process. worker: whose gauges these are; None for the parent's
        own, which need no label.
        """
        for family in families:
            self._about.setdefault(family.name, (family.kind, family.says))
            values = self._values.setdefault(family.name, {})
            apart = family.kind == "gauge" and worker is not None
            for name, labels, value in family.samples:
                mark = {WORKER: worker} if apart and worker is not None else {}
                key = (name, tuple({**labels, **mark}.items()))
                values[key] = value if family.kind == "gauge" else values.get(key, 0.0) + value

    def add_counts(self, families: Iterable[MetricFamily]) -> None:
        """Adds the counts of a worker that ended: its states ended with it."""
        self.add(family for family in families if family.kind != "gauge")

    def families(self) -> list[MetricFamily]:
        return [
            MetricFamily(
                name,
                kind,
                says,
                [
                    MetricSample(sample, dict(labels), value)
                    for (sample, labels), value in self._values[name].items()
                ],
            )
            for name, (kind, says) in self._about.items()
        ]
