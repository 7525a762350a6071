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
from router.families import Family, families_of

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


class _Series(NamedTuple):
    """What a request of one kind adds to: looking series up by their labels takes longer."""

    requests: Counter
    duration: Histogram
    first_token: Histogram | None
    input_tokens: Counter | None
    output_tokens: Counter | None
    cost: Counter | None


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
        self._series: dict[tuple[str, str, str, str, bool], _Series] = {}
        self._ends: dict[tuple[str, FailureClass | None], Counter] = {}
        here.register(_States(read))

    def attempt(self, target: str, failure: FailureClass | None) -> None:
        """An attempt is over, a stream's at its end."""
        series = self._ends.get((target, failure))
        if series is None:
            said = failure.value if failure else NO_FAILURE
            series = self._ends[target, failure] = self._attempts.labels(target, said)
        series.inc()

    def failover(self, route: str, target: str, failure: str) -> None:
        self._failovers.labels(route, target, failure).inc()

    def finished(self, done: Finished) -> None:
        began = done.first_token_s is not None
        kind = (done.route, done.arm, done.target, done.outcome, began)
        to = self._series.get(kind)
        if to is None:
            to = self._series[kind] = self._series_of(done, began=began)
        to.requests.inc()
        to.duration.observe(done.duration_s)
        if to.first_token and done.first_token_s is not None:
            to.first_token.observe(done.first_token_s)
        if to.input_tokens and to.output_tokens and to.cost:
            to.input_tokens.inc(done.input_tokens)
            to.output_tokens.inc(done.output_tokens)
            to.cost.inc(done.cost_usd)

    def _series_of(self, done: Finished, *, began: bool) -> _Series:
        target = done.target
        return _Series(
            self._requests.labels(done.route, done.arm, target, done.outcome),
            self._duration.labels(done.route),
            self._first_token.labels(done.route, target) if began else None,
            self._tokens.labels(target, "input") if target else None,
            self._tokens.labels(target, "output") if target else None,
            self._cost.labels(target) if target else None,
        )

    def families(self) -> list[Family]:
        """As plain data, for the parent process."""
        return families_of(self._registry)

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
            yield GaugeMetricFamily(f"swapgate_{name}", said(name), value)
        for name, value in reading.counters.items():
            yield CounterMetricFamily(f"swapgate_{name}", said(name), value)
        breakers = GaugeMetricFamily(
            "swapgate_breaker_state", "0 closed, 1 half open, 2 open", labels=("target",)
        )
        for target, state in reading.breakers.items():
            breakers.add_metric((target,), state)
        yield breakers


def counter_names(counted: Mapping[str, int]) -> dict[str, int]:
    """A process's own counters as `Reading.counters` names them."""
    others = {f"router_{name}": n for name, n in sorted(counted.items())}
    return {"observations_dropped": others.pop("router_rows_dropped", 0), **others}


def said(name: str) -> str:
    return name.removeprefix("router_").replace("_", " ")
