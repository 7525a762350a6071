"""One worker's Prometheus metrics, and `MetricTotals`, which adds up all workers' metrics.

`harness.frame.metrics` declares names, meanings and labels. The callers limit the number of
labels that clients could choose. `sums` counts traffic for the database, independently of these
counters.
"""

import math
from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from itertools import accumulate
from operator import attrgetter
from typing import Any, Final, NamedTuple

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from harness.frame.failures import FailureClass
from harness.frame.metrics import (
    PROCESS_COUNTERS,
    ROUTER_METRICS,
    router_metric,
)
from harness.providers.target import Price
from router.protocols.answers import TokenUsage
from router.recording.sums import CompletedRequest

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST.encode()
_Bounds = tuple[float, ...]
DURATION_S: Final[_Bounds] = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
FIRST_TOKEN_S: Final[_Bounds] = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 30.0)
NO_FAILURE: Final = "none"
GAUGE: Final = "gauge"
WORKER: Final = "worker"
# `attrgetter` needs no Python call for each request.
_get_kind: Final = attrgetter("route", "arm", "target_name", "outcome", "target")
_get_amounts: Final = attrgetter("input_tokens", "output_tokens", "cost_usd")


class TargetCheck(NamedTuple):
    """A target's state by its latest health check."""

    up: bool  # the target answered the check, or answered a user after it
    seconds: float


class StateSample(NamedTuple):
    """A state at a scrape. name: the metric's name without `swapproof_` and `_total`."""

    name: str
    value: float
    labels: tuple[str, ...] = ()


class HistogramSeries:
    """Counts the values of one set of labels.

    bounds: the buckets' upper ends in order. total: the sum of all values.
    """

    __slots__ = ("_bounds", "_counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.total = 0.0
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)

    def observe(self, values: Collection[float]) -> None:
        for bucket, count in Tally(map(partial(bisect_left, self._bounds), values)).items():
            self._counts[bucket] += count
        self.total = sum(values, self.total)

    def buckets(self) -> list[tuple[float, int]]:
        """Returns the buckets' upper ends with the number of values up to each end."""
        ends = (*self._bounds, math.inf)
        return list(zip(ends, accumulate(self._counts), strict=True))


class RouterMetrics:
    """One worker's metrics, for its event loop. read: returns the states of a scrape."""

    def __init__(self, read: Callable[[], Iterable[StateSample]]) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no type
        self._registry = CollectorRegistry()
        self._requests = self._counter("swapproof_requests")
        self._duration = self._histogram("swapproof_request_duration_seconds", DURATION_S)
        self._first_token = self._histogram(
            "swapproof_time_to_first_token_seconds", FIRST_TOKEN_S
        )
        self._attempts = self._counter("swapproof_attempts")
        self._failovers = self._counter("swapproof_failovers")
        self._feedback = self._counter("swapproof_feedback")
        self._irregular = self._counter("swapproof_irregular_answers")
        self._refused = self._counter("swapproof_refused_pieces")
        self._without_route = self._counter("swapproof_requests_without_route")
        self._internal = self._counter("swapproof_internal_errors")
        self._tokens = self._counter("swapproof_tokens")
        self._cost = self._counter("swapproof_cost_dollars")
        # Attempts since the last scrape. A counter's `inc` is too slow for each attempt.
        self._attempt_counts: dict[tuple[str, FailureClass | None], int] = {}
        # By target: its attempts, and the tokens of its answers.
        self._attempts_by_target: dict[str, int] = {}
        self._tokens_by_target: dict[str, int] = {}
        self._registry.register(_StateCollector(read))

    def _counter(self, name: str) -> Counter:
        spec = ROUTER_METRICS[name]
        return Counter(name, spec.meaning, spec.labels, registry=self._registry)

    def _histogram(self, name: str, buckets: tuple[float, ...]) -> "Histogram":
        histogram = Histogram(name, buckets)
        self._registry.register(histogram)
        return histogram

    def attempt(self, target: str, failure: FailureClass | None) -> None:
        """Counts an attempt at a target.

        Args:
            failure: None for an answer.
        """
        target_and_failure = target, failure
        self._attempt_counts[target_and_failure] = (
            self._attempt_counts.get(target_and_failure, 0) + 1
        )

    def irregular(self, target: str, kind: str) -> None:
        self._irregular.labels(target, kind).inc()

    def refused_piece(self, target: str, piece: str) -> None:
        self._refused.labels(target, piece).inc()

    def without_route(self, model: str) -> None:
        self._without_route.labels(model).inc()

    def failover(
        self,
        route: str,
        target: str,
        failure: str,
    ) -> None:
        self._failovers.labels(route, _provider_name(target), target, failure).inc()

    def internal_error(self, part: str, arm: str) -> None:
        self._internal.labels(part, arm).inc()

    def feedback(
        self,
        route: str,
        arm: str,
        verdict: str,
        label: str,
    ) -> None:
        self._feedback.labels(route, arm, verdict, label).inc()

    def spent(
        self,
        target: str,
        usage: TokenUsage,
        price: Price | None,
    ) -> None:
        """Adds the tokens and the cost of a request that no client sent, such as a judge's."""
        self._tokens.labels(target, "input").inc(usage.input_tokens)
        self._tokens.labels(target, "output").inc(usage.output_tokens)
        cost_usd = None if price is None else price.answer_usd(*usage)
        if cost_usd is not None:
            self._cost.labels(target).inc(cost_usd)

    def finished(self, requests_done: Iterable[CompletedRequest]) -> None:
        """Adds finished requests of clients: counts, times, tokens and costs."""
        by_kind: dict[tuple[str, str, str, str, str], list[CompletedRequest]] = {}
        for request in requests_done:
            by_kind.setdefault(_get_kind(request), []).append(request)
        for kind, requests in by_kind.items():
            route, arm, target, outcome, answered_by = kind
            provider = _provider_name(target)
            self._requests.labels(route, arm, provider, target, outcome).inc(len(requests))
            durations = self._duration.labels(route, provider, target, outcome)
            durations.observe([r.latency_ms / 1000 for r in requests])
            first_tokens_s = [r.first_token_s for r in requests if r.first_token_s is not None]
            if first_tokens_s:
                self._first_token.labels(route, provider, target).observe(first_tokens_s)
            if answered_by:
                columns = zip(*map(_get_amounts, requests), strict=True)
                input_tokens, output_tokens, cost_usd = map(sum, columns)
                self._tokens.labels(target, "input").inc(input_tokens)
                self._tokens.labels(target, "output").inc(output_tokens)
                self._tokens_by_target[target] = (
                    self._tokens_by_target.get(target, 0) + input_tokens + output_tokens
                )
                self._cost.labels(target).inc(cost_usd)

    def _count_attempts(self) -> None:
        counts = self._attempt_counts
        self._attempt_counts = {}
        for (target, failure), count in counts.items():
            failure_class = failure.value if failure else NO_FAILURE
            self._attempts.labels(_provider_name(target), target, failure_class).inc(count)
            self._attempts_by_target[target] = self._attempts_by_target.get(target, 0) + count

    def count_targets(self) -> dict[str, tuple[int, int]]:
        """Returns the counts of each target since the worker began.

        A pair has the attempts for users and health checks, and the tokens of users' answers.
        """
        self._count_attempts()
        tokens = self._tokens_by_target
        return {
            name: (attempts, tokens.get(name, 0))
            for name, attempts in self._attempts_by_target.items()
        }

    def families(self) -> list[object]:
        """Returns all metrics as plain data, for the parent."""
        self._count_attempts()
        return [
            [
                metric.name,
                metric.type,
                metric.documentation,
                [[sample.name, sample.labels, sample.value] for sample in metric.samples],
            ]
            for metric in self._registry.collect()
        ]

    def text(self) -> bytes:
        self._count_attempts()
        return generate_latest(self._registry)


def _provider_name(target: str) -> str:
    return target.partition("/")[0]


class Histogram(Collector):
    """Collects the series of one histogram. Belongs to one event loop."""

    def __init__(self, name: str, bounds: Sequence[float]) -> None:
        self._name = name
        self._bounds = bounds
        self._series: dict[tuple[str, ...], HistogramSeries] = {}

    def labels(self, *values: str) -> HistogramSeries:
        series = self._series.get(values)
        if series is None:
            series = self._series[values] = HistogramSeries(self._bounds)
        return series

    def collect(self) -> Iterable[Metric]:
        spec = ROUTER_METRICS[self._name]
        family = HistogramMetricFamily(self._name, spec.meaning, labels=spec.labels)
        for labels, series in self._series.items():
            buckets = [
                (floatToGoString(end), count)  # type: ignore[no-untyped-call]  # the library has no type
                for end, count in series.buckets()
            ]
            family.add_metric(labels, buckets, series.total)
        yield family


class _StateCollector(Collector):
    def __init__(self, read: Callable[[], Iterable[StateSample]]) -> None:
        self._read = read

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for name, value, labels in self._read():
            if name not in families:
                spec = router_metric(name)
                family_class = GaugeMetricFamily if spec.kind == GAUGE else CounterMetricFamily
                families[name] = family_class(
                    f"swapproof_{name}", spec.meaning, labels=spec.labels
                )
            families[name].add_metric(labels, value)
        return families.values()


_ZEROS: Final = {name.removeprefix("swapproof_"): 0 for name in PROCESS_COUNTERS}


def counter_names(counts: Mapping[str, int]) -> dict[str, int]:
    """Returns all counters by name. Missing counters are 0.

    Without the 0, a rule's `increase` would miss the first increment.
    """
    counters = {f"router_{name}": count for name, count in counts.items()}
    all_counters = dict(sorted({**_ZEROS, **counters}.items()))
    return {
        "observations_dropped": all_counters.pop("router_rows_dropped", 0),
        **all_counters,
    }


_Labels = tuple[tuple[str, str], ...]


class MetricTotals(Collector):
    """Adds up metrics of several processes. `RouterMetrics.families` returns the metrics.

    It sums counters and histograms, including those of ended workers, so that they never fall.
    Each gauge stays separate, with the label `worker`.
    """

    def __init__(self) -> None:
        self._descriptions: dict[str, tuple[str, str]] = {}
        self._values: dict[str, dict[tuple[str, _Labels], float]] = {}

    def add(self, families: Iterable[Sequence[Any]], *, worker: str | None = None) -> None:
        """Adds a process's values.

        Args:
            worker: the label of its gauges; None for the parent.
        """
        for name, kind, meaning, samples in families:
            self._descriptions.setdefault(name, (kind, meaning))
            values = self._values.setdefault(name, {})
            worker_label = {WORKER: worker} if kind == GAUGE and worker is not None else {}
            for sample, labels, value in samples:
                key = sample, tuple({**labels, **worker_label}.items())
                values[key] = value if kind == GAUGE else values.get(key, 0.0) + value

    def add_counts(self, families: Iterable[Sequence[Any]]) -> None:
        """Adds an ended worker's counters and histograms, without its gauges."""
        self.add(family for family in families if family[1] != GAUGE)

    def collect(self) -> Iterable[Metric]:
        for name, (kind, meaning) in self._descriptions.items():
            metric = Metric(name, meaning, kind)
            for (sample, labels), value in self._values[name].items():
                metric.add_sample(sample, dict(labels), value)
            yield metric

    def text(self) -> bytes:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return generate_latest(registry)
