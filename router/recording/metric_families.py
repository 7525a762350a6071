"""Metrics of several processes go between them as plain data, and are added up.

Counters and histograms are summed, those of ended workers included, so that they never go
back. Gauges stay apart, each with the label `worker`.
"""

import math
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector


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


def metrics_to_json(metrics: Iterable[Metric]) -> list[object]:
    """Writes metrics as plain data, for another process."""
    return [
        [
            metric.name,
            metric.type,
            metric.documentation,
            [[sample.name, sample.labels, sample.value] for sample in metric.samples],
        ]
        for metric in metrics
    ]


def metrics_from_json(data: Iterable[Sequence[Any]]) -> list[Metric]:
    """Reads metrics from the data of `metrics_to_json`. Raises TypeError or ValueError for
    anything else.
    """
    found = []
    for name, kind, meaning, samples in data:
        metric = Metric(name, meaning, kind)
        for sample, labels, value in samples:
            metric.add_sample(sample, dict(labels), float(value))
        found.append(metric)
    return found


_Labels = tuple[tuple[str, str], ...]


class MetricTotals(Collector):
    """Adds metrics up, in the order in which they first came."""

    def __init__(self) -> None:
        self._metrics: dict[str, Metric] = {}
        self._values: dict[str, dict[tuple[str, _Labels], float]] = {}

    def add(self, metrics: Iterable[Metric], *, worker: str | None = None) -> None:
        """Adds the values of a process. worker: whose gauges these are; None for the parent's
        own, which need no label.
        """
        for metric in metrics:
            self._metrics.setdefault(metric.name, metric)
            values = self._values.setdefault(metric.name, {})
            is_gauge = metric.type == "gauge"
            mark = {WORKER: worker} if is_gauge and worker is not None else {}
            for sample in metric.samples:
                key = sample.name, tuple({**sample.labels, **mark}.items())
                before = 0.0 if is_gauge else values.get(key, 0.0)
                values[key] = before + sample.value

    def add_counts(self, metrics: Iterable[Metric]) -> None:
        """Adds the counts of a worker that ended: its states ended with it."""
        self.add(metric for metric in metrics if metric.type != "gauge")

    def collect(self) -> Iterator[Metric]:
        for name, first in self._metrics.items():
            metric = Metric(name, first.documentation, first.type)
            for (sample, labels), value in self._values[name].items():
                metric.add_sample(sample, dict(labels), value)
            yield metric

    def text(self) -> bytes:
        """Writes the metrics in Prometheus's text format."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return generate_latest(registry)
