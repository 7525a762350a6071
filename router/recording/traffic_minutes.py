"""Sums finished requests by minute, route, arm, target and revision. No I/O."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final, NamedTuple

from harness.domain.canary.observation import TrafficMinute
from harness.domain.reliability.latency import LATENCY_BOUNDS_MS, merge_histograms

_ALL_BOUNDS: Final[tuple[int, ...]] = (*LATENCY_BOUNDS_MS, -1)
# Of a row: what it counts.
_ADDED: Final[tuple[str, ...]] = (
    "requests",
    "failed",
    "charged",
    "streams",
    "input_tokens",
    "output_tokens",
    "cost_usd",
    "cached_tokens",
    "unpriced",
)


class CompletedRequest(NamedTuple):
    route: str
    arm: str  # the assigned one
    target: str = ""  # the id of what answered
    revision: int = 0
    stream: bool = False
    failed: bool = False  # the caller got an error that is not the caller's own
    charged: bool = False  # the assigned arm failed, whatever answered
    latency_ms: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    key: str = ""  # the id of the caller's
    priced: bool = True  # whether cost_usd is known
    cached_tokens: int = 0
    charge: str = ""  # the name of the failure (`name_failure`), where it did
    model: str = ""  # as the provider names what it served
    target_name: str = ""  # of what answered or was tried last; empty for none
    outcome: str = "unknown"  # ok, failed, client_error, cancelled, handed_on
    first_token_s: float | None = None  # of a stream that began


_Key = tuple[str, datetime, str, str, int]


class _Sum:
    def __init__(self) -> None:
        self.requests = self.failed = self.charged = self.streams = 0
        self.input_tokens = self.output_tokens = self.cached_tokens = self.unpriced = 0
        self.cost_usd = 0.0
        self.buckets = [0] * len(_ALL_BOUNDS)

    def add(self, ended: Sequence[CompletedRequest]) -> None:
        # By columns, which are summed at native speed.
        column = dict(zip(CompletedRequest._fields, zip(*ended, strict=True), strict=True))
        self.requests += len(ended)
        self.streams += sum(column["stream"])
        self.failed += sum(column["failed"])
        self.charged += sum(column["charged"])
        self.input_tokens += sum(column["input_tokens"])
        self.output_tokens += sum(column["output_tokens"])
        self.cost_usd = sum(column["cost_usd"], self.cost_usd)
        self.cached_tokens += sum(column["cached_tokens"])
        self.unpriced += len(ended) - sum(column["priced"])
        for latency_ms in column["latency_ms"]:
            self.buckets[bisect_left(LATENCY_BOUNDS_MS, latency_ms)] += 1


class TrafficMinutes:
    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._sums: dict[_Key, _Sum] = {}

    def add(self, ended: Sequence[CompletedRequest], at: datetime) -> None:
        minute = start_of_minute(at)
        by_place: dict[tuple[str, str, str, int], list[CompletedRequest]] = {}
        for request in ended:
            by_place.setdefault(request[:4], []).append(request)
        for (route, arm, target, revision), requests in by_place.items():
            self._sum_of((route, minute, arm, target, revision)).add(requests)

    def merge(self, row: TrafficMinute) -> None:
        total = self._sum_of((row.route, row.minute, row.arm, row.target, row.revision))
        for name in _ADDED:
            setattr(total, name, getattr(total, name) + getattr(row, name))
        for bound, count in row.latency_ms.items():
            total.buckets[_ALL_BOUNDS.index(bound)] += count

    def take(self) -> list[TrafficMinute]:
        sums, self._sums = self._sums, {}
        return [
            TrafficMinute(
                route=route,
                minute=minute,
                worker=self._worker,
                arm=arm,
                target=target,
                revision=revision,
                latency_ms={
                    bound: count
                    for bound, count in zip(_ALL_BOUNDS, total.buckets, strict=True)
                    if count
                },
                **{name: getattr(total, name) for name in _ADDED},
            )
            for (route, minute, arm, target, revision), total in sums.items()
        ]

    def _sum_of(self, key: _Key) -> _Sum:
        total = self._sums.get(key)
        if total is None:
            total = self._sums[key] = _Sum()
        return total


def start_of_minute(at: datetime) -> datetime:
    return at.replace(second=0, microsecond=0)


def sum_by_minute(rows: Iterable[TrafficMinute]) -> list[TrafficMinute]:
    sums: dict[tuple[object, ...], TrafficMinute] = {}
    for row in rows:
        key = row.route, row.minute, row.worker, row.arm, row.target, row.revision
        sums[key] = _both(sums[key], row) if key in sums else row
    return list(sums.values())


def _both(one: TrafficMinute, other: TrafficMinute) -> TrafficMinute:
    added = {name: getattr(one, name) + getattr(other, name) for name in _ADDED}
    latency_ms = merge_histograms((one.latency_ms, other.latency_ms))
    return replace(one, **added, latency_ms=latency_ms)
