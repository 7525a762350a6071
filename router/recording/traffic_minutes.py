"""Traffic minutes add up finished requests per minute, route, arm, target and revision, in
memory: failures, tokens, costs, and a histogram of latencies. `CompletedRequest` says how one
request ended. No I/O, time is given.
"""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from harness.domain.canary.observation import TrafficMinute
from harness.domain.reliability.failures import ErrorClass
from harness.domain.reliability.latency import LATENCY_BOUNDS_MS, merge_histograms

_ALL_BOUNDS: Final = (*LATENCY_BOUNDS_MS, -1)
# Of a row: what it counts.
_ADDED: Final = (
    "requests",
    "failed",
    "charged",
    "streams",
    "input_tokens",
    "output_tokens",
    "cost_usd",
    "cached_tokens",
    "unpriced",
    "internal_errors",
)


class CompletedRequest(NamedTuple):
    """Says how one request ended."""

    route: str
    arm: str  # the assigned one
    target: str  # the id of what answered, or ""
    revision: int
    stream: bool
    failed: bool  # the caller got an error that is not the caller's own
    charged: bool  # the assigned arm failed, whatever answered
    latency_ms: float
    input_tokens: int
    output_tokens: int
    cost_usd: float
    key: str = ""  # the id of the caller's
    priced: bool = True  # whether cost_usd is known
    cached_tokens: int = 0
    charge: ErrorClass | None = None  # how, where it did
    internal_errors: int = 0  # faults of our own within it


_Key = tuple[str, datetime, str, str, int]


class _Sum:
    __slots__ = (
        "buckets",
        "cached_tokens",
        "charged",
        "cost_usd",
        "failed",
        "input_tokens",
        "internal_errors",
        "output_tokens",
        "requests",
        "streams",
        "unpriced",
    )

    def __init__(self) -> None:
        self.requests = self.failed = self.charged = self.streams = 0
        self.input_tokens = self.output_tokens = self.cached_tokens = self.unpriced = 0
        self.internal_errors = 0
        self.cost_usd = 0.0
        self.buckets = [0] * len(_ALL_BOUNDS)


class TrafficMinutes:
    """Sums traffic up by (route, minute, arm, target, revision)."""

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._sums: dict[_Key, _Sum] = {}
        self._minute = self._next = datetime.min.replace(tzinfo=UTC)

    def add(self, ended: CompletedRequest, at: datetime) -> None:
        if not self._minute <= at < self._next:
            self._minute = at.replace(second=0, microsecond=0)
            self._next = self._minute + timedelta(minutes=1)
        total = self._sum_of(
            (ended.route, self._minute, ended.arm, ended.target, ended.revision)
        )
        total.requests += 1
        total.failed += ended.failed
        total.charged += ended.charged
        total.streams += ended.stream
        total.input_tokens += ended.input_tokens
        total.output_tokens += ended.output_tokens
        total.cost_usd += ended.cost_usd
        total.cached_tokens += ended.cached_tokens
        total.unpriced += not ended.priced
        total.internal_errors += ended.internal_errors
        total.buckets[bisect_left(LATENCY_BOUNDS_MS, ended.latency_ms)] += 1

    def merge(self, row: TrafficMinute) -> None:
        """Adds what another process summed up."""
        total = self._sum_of((row.route, row.minute, row.arm, row.target, row.revision))
        total.requests += row.requests
        total.failed += row.failed
        total.charged += row.charged
        total.streams += row.streams
        total.input_tokens += row.input_tokens
        total.output_tokens += row.output_tokens
        total.cost_usd += row.cost_usd
        total.cached_tokens += row.cached_tokens
        total.unpriced += row.unpriced
        total.internal_errors += row.internal_errors
        for bound, count in row.latency_ms.items():
            total.buckets[_ALL_BOUNDS.index(bound)] += count

    def take(self) -> list[TrafficMinute]:
        """Returns all sums so far, and begins again at nothing."""
        sums, self._sums = self._sums, {}
        return [
            TrafficMinute(
                route=route,
                minute=minute,
                worker=self._worker,
                arm=arm,
                target=target,
                revision=revision,
                requests=total.requests,
                failed=total.failed,
                charged=total.charged,
                streams=total.streams,
                input_tokens=total.input_tokens,
                output_tokens=total.output_tokens,
                cost_usd=total.cost_usd,
                latency_ms={
                    bound: count
                    for bound, count in zip(_ALL_BOUNDS, total.buckets, strict=True)
                    if count
                },
                cached_tokens=total.cached_tokens,
                unpriced=total.unpriced,
                internal_errors=total.internal_errors,
            )
            for (route, minute, arm, target, revision), total in sums.items()
        ]

    def _sum_of(self, key: _Key) -> _Sum:
        total = self._sums.get(key)
        if total is None:
            total = self._sums[key] = _Sum()
        return total


def sum_by_minute(rows: Iterable[TrafficMinute]) -> list[TrafficMinute]:
    """Sums the rows up to one for each route, minute, worker, arm, target and revision."""
    sums: dict[tuple[object, ...], TrafficMinute] = {}
    for row in rows:
        key = row.route, row.minute, row.worker, row.arm, row.target, row.revision
        sums[key] = _both(sums[key], row) if key in sums else row
    return list(sums.values())


def _both(one: TrafficMinute, other: TrafficMinute) -> TrafficMinute:
    added = {name: getattr(one, name) + getattr(other, name) for name in _ADDED}
    latency_ms = merge_histograms((one.latency_ms, other.latency_ms))
    return replace(one, **added, latency_ms=latency_ms)
