"""What Prometheus reads: requests and attempts counted here, states read at each scrape."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from harness.domain.failures import FailureClass

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST.encode()
DURATION_S: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
FIRST_TOKEN_S: Final = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 30.0)
NO_FAILURE: Final = "none"


class Reading(NamedTuple):
    """The worker's state now. breakers: 0 closed, 1 half open, 2 open, by target's name.

    counters, gauges: by their name after `swapgate_`, without `_total`.
    """

    gauges: Mapping[str, float]
    counters: Mapping[str, float]
    breakers: Mapping[str, int]


class Finished(NamedTuple):
    """A request that ended. target: the name of what answered, or "".

    outcome: ok, failed, client_error, cancelled. first_token_s: of a stream that began.
    """

    route: str
    arm: str
    target: str
    outcome: str
    duration_s: float
    first_token_s: float | None
    input_tokens: int
    output_tokens: int
    cost_usd: float


class RouterMetrics:
    """One worker's. read: called at each scrape."""

    def __init__(self, read: Callable[[], Reading]) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # theirs
        self._registry = here = CollectorRegistry()
        self._requests = Counter(
            "swapgate_requests",
            "Requests by assigned arm, and by the target that answered",
            ("route", "arm", "target", "outcome"),
            registry=here,
        )
        self._duration = Histogram(
            "swapgate_request_duration_seconds",
            "From the request to the last byte of its answer",
            ("route",),
            registry=here,
            buckets=DURATION_S,
        )
        self._first_token = Histogram(
            "swapgate_time_to_first_token_seconds",
            "From a stream's request to its first output, failovers included",
            ("route", "target"),
            registry=here,
            buckets=FIRST_TOKEN_S,
        )
        self._attempts = Counter(
            "swapgate_attempts",
            "Calls of a provider; failure_class none for those that answered",
            ("target", "failure_class"),
            registry=here,
        )
        self._failovers = Counter(
            "swapgate_failovers",
            "Times that a request left a target for the next one, or found its circuit open",
            ("route", "target", "failure_class"),
            registry=here,
        )
        self._tokens = Counter(
            "swapgate_tokens", "As providers report them", ("target", "kind"), registry=here
        )
        self._cost = Counter(
            "swapgate_cost_dollars", "Of priced targets", ("target",), registry=here
        )
        here.register(_States(read))

    def attempt(self, target: str, failure: FailureClass | None) -> None:
        """An attempt is over, a stream's at its end."""
        self._attempts.labels(target, failure.value if failure else NO_FAILURE).inc()

    def failover(self, route: str, target: str, failure: str) -> None:
        self._failovers.labels(route, target, failure).inc()

    def finished(self, done: Finished) -> None:
        self._requests.labels(done.route, done.arm, done.target, done.outcome).inc()
        self._duration.labels(done.route).observe(done.duration_s)
        if done.first_token_s is not None:
            self._first_token.labels(done.route, done.target).observe(done.first_token_s)
        if done.input_tokens or done.output_tokens:
            self._tokens.labels(done.target, "input").inc(done.input_tokens)
            self._tokens.labels(done.target, "output").inc(done.output_tokens)
        if done.cost_usd:
            self._cost.labels(done.target).inc(done.cost_usd)

    def text(self) -> bytes:
        """In Prometheus's text format, as CONTENT_TYPE."""
        return generate_latest(self._registry)


class _States(Collector):
    def __init__(self, read: Callable[[], Reading]) -> None:
        self._read = read

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        reading = self._read()
        for name, value in reading.gauges.items():
            yield GaugeMetricFamily(f"swapgate_{name}", _said(name), value)
        for name, value in reading.counters.items():
            yield CounterMetricFamily(f"swapgate_{name}", _said(name), value)
        breakers = GaugeMetricFamily(
            "swapgate_breaker_state", "0 closed, 1 half open, 2 open", labels=("target",)
        )
        for target, state in reading.breakers.items():
            breakers.add_metric((target,), state)
        yield breakers


def _said(name: str) -> str:
    return name.removeprefix("router_").replace("_", " ")
