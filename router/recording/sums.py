"""Adds up requests for the database, and the spending that counts against budgets.

All requests of a minute become a few rows for the database. Budgets need the sums of all
processes at any time (`DayTotals`). `CallerShares` finds keys that belong to whole
applications. This module does no I/O.
"""

import threading
from bisect import bisect_left
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar

from harness.frame.people.limits import KeySpend
from harness.frame.ports import Clock
from harness.gate.online.observation import TrafficMinute
from harness.gate.online.outcome import OutcomeKind
from harness.gate.online.waiting import (
    RequestWaits,
    WaitCounts,
    WaitKind,
    count_bins,
    count_waits,
    merge_waits,
)
from harness.gate.pins import MAX_SIGHTINGS, ServedModel, Sighting
from harness.routing.reliability.latency import (
    LATENCY_BOUNDS_MS,
    merge_histograms,
)
from harness.routing.shadow import add_tallies
from router.recording.caller_history import CallerHistory

if TYPE_CHECKING:
    from router.snapshot.compiled import CompiledSnapshot

_ALL_BOUNDS: Final[tuple[int, ...]] = (*LATENCY_BOUNDS_MS, -1)
_ADDED_FIELDS: Final[tuple[str, ...]] = (
    "requests",
    "failed",
    "charged",
    "streams",
    "input_tokens",
    "output_tokens",
    "cost_usd",
    "cached_tokens",
    "unpriced",
    "refused",
    "bounded",
    "unanswered",
    "first_requests",
    "first_failed",
    "windows",
    "windows_failed",
)


class CompletedRequest(NamedTuple):
    """The record of a finished request. `RequestAccounting` builds it."""

    route: str
    arm: str  # the assigned arm
    target: str = ""  # the id of the target that answered
    revision: int = 0
    stream: bool = False
    failed: bool = False  # the caller got an error that the caller did not cause
    charged: bool = False  # the assigned arm failed, even if another target answered
    latency_ms: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    key: str = ""  # the id of the caller's key
    priced: bool = True  # whether cost_usd is known
    cached_tokens: int = 0
    charge: str = ""  # the name of its failure (`name_failure`), if it failed
    model: str = ""  # the provider's name for the model that served
    target_name: str = ""  # the target that answered, else the last one that the router tried
    outcome: str = "unknown"  # ok, failed, refused, client_error, cancelled, handed_on
    first_token_s: float | None = None  # only for a stream that began
    refused: bool = False  # failed, and the router called no target (`RoutePlan.refuses`)
    gap_s: float = 0.0  # the longest wait between two outputs of a stream
    # The wait without new output before the caller or its own deadline ended it; else 0.
    waited_s: float = 0.0
    bounded: bool = False  # tokens and cost are lower bounds: the provider's count is missing
    unanswered: bool = False  # the caller waited, and left before any output
    caller: int = 0  # a hash of the caller's sticky key, of this process; 0 if unknown
    kind: OutcomeKind | None = None  # how the request ended for its arm; None if unknown


def minute_rows(
    ended: Sequence[CompletedRequest],
    at: datetime,
    worker: str,
    history: CallerHistory | None = None,
) -> list[TrafficMinute]:
    """Adds up requests into rows of one minute.

    Args:
        at: a time in that minute, aware.
        history: the process's callers, if it counts them.
    """
    minute = at.replace(second=0, microsecond=0)
    by_place: dict[tuple[str, str, str, int], list[CompletedRequest]] = {}
    for request in ended:
        by_place.setdefault(request[:4], []).append(request)
    rows: list[TrafficMinute] = []
    for (route, arm, target, revision), requests in by_place.items():
        column = _collect_columns(requests)
        callers = (
            history.count(route, arm, requests, at)._asdict() if history is not None else {}
        )
        buckets = Counter(map(partial(bisect_left, LATENCY_BOUNDS_MS), column["latency_ms"]))
        rows.append(
            TrafficMinute(
                route,
                minute,
                worker,
                arm,
                target,
                revision,
                requests=len(requests),
                failed=sum(column["failed"]),
                # A refused request shows nothing about the arm's target.
                charged=sum(r.charged and not r.refused for r in requests),
                streams=sum(column["stream"]),
                input_tokens=sum(column["input_tokens"]),
                output_tokens=sum(column["output_tokens"]),
                cost_usd=sum(column["cost_usd"]),
                latency_ms={_ALL_BOUNDS[bucket]: count for bucket, count in buckets.items()},
                cached_tokens=sum(column["cached_tokens"]),
                unpriced=len(requests) - sum(column["priced"]),
                refused=sum(column["refused"]),
                waits=_count_waits(requests),
                bounded=sum(column["bounded"]),
                unanswered=sum(column["unanswered"]),
                **callers,
            )
        )
    return rows


def spend_rows(
    ended: Sequence[CompletedRequest],
    at: datetime,
    worker: str,
) -> list[KeySpend]:
    """Adds up requests into the keys' spending on one day.

    Args:
        at: a time on that day, aware.
    """
    day = at.date()
    by_key: dict[tuple[str, bool], list[CompletedRequest]] = {}
    for request in ended:
        if request.key:
            by_key.setdefault((request.key, request.priced), []).append(request)
    rows: list[KeySpend] = []
    for (key, is_priced), requests in by_key.items():
        column = _collect_columns(requests)
        tokens = sum(column["input_tokens"]) + sum(column["output_tokens"])
        cost_usd = sum(column["cost_usd"]) if is_priced else 0.0
        unpriced = 0 if is_priced else len(requests)
        bounded_count = sum(column["bounded"])
        rows.append(
            KeySpend(
                key,
                day,
                worker,
                len(requests),
                tokens,
                cost_usd,
                unpriced,
                bounded_count,
            )
        )
    return rows


def _collect_columns(requests: Sequence[CompletedRequest]) -> Mapping[str, tuple[Any, ...]]:
    """Returns the values of each field. Python adds up columns at native speed."""
    columns = zip(*requests, strict=True)
    return dict(zip(CompletedRequest._fields, columns, strict=True))


def _count_waits(requests: Sequence[CompletedRequest]) -> WaitCounts:
    """Counts the waits of requests with an answer, and of requests that the caller ended."""
    answered_s = [r.latency_ms / 1000 for r in requests if r.outcome == "ok" and not r.stream]
    others = [
        RequestWaits(r.stream, r.first_token_s, r.gap_s, r.waited_s)
        for r in requests
        if (r.stream if r.outcome == "ok" else r.waited_s or r.outcome == "cancelled")
    ]
    counts = count_waits(others) if others else {}
    # Whole answers have only waits of this kind, because their output ends them at once.
    return {WaitKind.FIRST.value: count_bins(answered_s), **counts} if answered_s else counts


def _add_minutes(first: TrafficMinute, second: TrafficMinute) -> TrafficMinute:
    sums = {name: getattr(first, name) + getattr(second, name) for name in _ADDED_FIELDS}
    latency_ms = merge_histograms((first.latency_ms, second.latency_ms))
    waits = merge_waits((first.waits, second.waits))
    return replace(
        first,
        **sums,
        latency_ms=latency_ms,
        waits=waits,
    )


def _choose_newer(first: Sighting, second: Sighting) -> Sighting:
    return second if first.last_at <= second.last_at else first


def _add_requests(first: Any, second: Any) -> Any:
    return replace(first, requests=first.requests + second.requests)


class SumKind(NamedTuple):
    key: Callable[[Any], object]  # rows with equal keys become one row
    plus: Callable[[Any, Any], Any]


# Keyed by the field of a batch.
SUMMED: Final[Mapping[str, SumKind]] = {
    "traffic": SumKind(
        attrgetter("route", "minute", "worker", "arm", "target", "revision"),
        _add_minutes,
    ),
    "spends": SumKind(attrgetter("key", "day", "worker"), KeySpend.plus),
    "sightings": SumKind(attrgetter("target", "served"), _choose_newer),
    "shadows": SumKind(attrgetter("shadow", "day", "worker"), add_tallies),
    "asked_names": SumKind(
        attrgetter("name", "day", "route"),
        _add_requests,
    ),
    "exposure_counts": SumKind(
        attrgetter("rollout", "minute", "worker", "weight_bps", "canary", "reason"),
        _add_requests,
    ),
}
Row = TypeVar("Row")
Total = TypeVar("Total")


class Sums(Generic[Row]):
    """Adds up rows of one kind until `take`. kind: a key of `SUMMED`. Thread-safe."""

    def __init__(self, kind: str) -> None:
        self._key, self.plus = SUMMED[kind]
        self._lock = threading.Lock()
        self._rows: dict[object, Row] = {}

    def add(self, rows: Iterable[Row]) -> None:
        with self._lock:
            for row in rows:
                key = self._key(row)
                earlier = self._rows.get(key)
                self._rows[key] = row if earlier is None else self.plus(earlier, row)

    def take(self) -> list[Row]:
        """Returns the rows so far, and forgets them."""
        with self._lock:
            rows = self._rows
            self._rows = {}
        return list(rows.values())


def sum_rows(kind: str, rows: Iterable[Row]) -> list[Row]:
    sums: Sums[Row] = Sums(kind)
    sums.add(rows)
    return sums.take()


class DayTotals(Generic[Row, Total]):
    """A subject's total: this process's rows plus the database's rows of other processes.

    It ignores this process's rows in the database, so that no row counts twice. Thread-safe.
    new: receives the rows to store. subject: the field of a row that names the subject.
    worker: the process's name, which is new for every process.
    """

    def __init__(
        self,
        worker: str,
        new: Sums[Row],
        subject: str,
        total: Callable[[Iterable[Row], date], Total],
    ) -> None:
        self._worker = worker
        self._new = new
        self._subject: Callable[[object], str] = attrgetter(subject)
        self._total = total
        self._lock = threading.Lock()
        # By subject and day.
        self._own_rows: dict[str, dict[date, Any]] = {}
        self._other_rows: dict[str, dict[date, Any]] = {}

    def note(self, rows: Sequence[Row]) -> None:
        """Adds this process's own rows."""
        self._new.add(rows)
        with self._lock:
            for row in rows:
                self._add_row(self._own_rows, row)

    def used(self, subject: str, today: date) -> Total:
        """Returns a subject's total that this process knows."""
        with self._lock:
            own_rows = self._own_rows.get(subject, {})
            other_rows = self._other_rows.get(subject, {})
            rows = (*own_rows.values(), *other_rows.values())
        return self._total(rows, today)

    def knows(self, subject: str) -> bool:
        """Returns whether the database has reported the other processes' use."""
        return subject in self._other_rows

    def know(self, subjects: Iterable[str], rows: Iterable[Any]) -> None:
        """Enters the database's rows of these subjects, of the month or the day."""
        others: dict[str, dict[date, Any]] = {subject: {} for subject in subjects}
        for row in rows:
            if row.worker != self._worker:
                self._add_row(others, row)
        with self._lock:
            self._other_rows = others

    def _add_row(self, sums: dict[str, dict[date, Any]], row: Any) -> None:
        days = sums.setdefault(self._subject(row), {})
        day = row.day
        earlier = days.get(day)
        days[day] = row if earlier is None else self._new.plus(earlier, row)
        if earlier is None and len(days) > 1:
            # No budget lasts longer than a month.
            for old_day in [
                day_before for day_before in days if day_before < day.replace(day=1)
            ]:
                del days[old_day]


# The router notes a name again after this time, to update the time of its last sighting.
NOTE_EVERY_S: Final = 30.0
LONGEST_NAME: Final = 200  # characters


class ServedNames:
    """Notes the model names in targets' answers. Thread-safe.

    Within NOTE_EVERY_S, it notes at most MAX_SIGHTINGS names of a target.
    """

    def __init__(self, clock: Clock, new: Sums[Sighting]) -> None:
        self._clock = clock
        self._new = new
        self._lock = threading.Lock()
        # The time of a name's last note, in monotonic seconds, by target and name.
        self._noted: dict[str, dict[str, float]] = {}

    def note(self, target: str, model: str) -> None:
        """Notes the model that an answer names.

        Args:
            target: the target's id.
        """
        now = self._clock.monotonic()
        names = self._noted.get(target)
        at = names.get(model[:LONGEST_NAME]) if names is not None else None
        if not model or (at is not None and now - at < NOTE_EVERY_S):
            return
        model = model[:LONGEST_NAME]
        with self._lock:
            is_due = self._mark_noted(target, model, now)
        if is_due:
            now_at = self._clock.now()
            self._new.add((Sighting(target, ServedModel(model), now_at, now_at),))

    def _mark_noted(
        self,
        target: str,
        model: str,
        now: float,
    ) -> bool:
        names = self._noted.setdefault(target, {})
        if model not in names and len(names) >= MAX_SIGHTINGS:
            names = {name: at for name, at in names.items() if now - at < NOTE_EVERY_S}
            self._noted[target] = names
            if len(names) >= MAX_SIGHTINGS:
                return False
        names[model] = now
        return True


# A key with a larger share of a route's requests is an application with many users, not one
# caller.
APPLICATION_SHARE: Final = 0.05
# A key with fewer requests may belong to one agent's loop.
FEWEST_REQUESTS: Final = 100
MAX_KEYS_OF_ROUTE: Final = 200
# After this many requests, the router halves all counts: shares follow recent requests.
HALVE_AT_REQUESTS: Final = 20_000
# The most requests of a route that wait for the count. Only the latest requests count.
MAX_WAITING_REQUESTS: Final = 8_192
_build_queue: Final[Callable[[], deque[str]]] = partial(deque, maxlen=MAX_WAITING_REQUESTS)

NO_KEYS: Final[Mapping[str, float]] = {}


class RouteKeys:
    """Counts one route's keys. shares: each application's share of the requests, by key."""

    def __init__(self) -> None:
        self.shares: Mapping[str, float] = NO_KEYS
        self._requests = 0.0
        self._counts: Counter[str] = Counter()

    def add(self, keys: Iterable[str], openings: Iterable[str] = ()) -> None:
        """Counts the keys of new requests.

        Args:
            openings: names of applications' conversations.
        """
        new_counts = Counter(keys)
        self._requests += new_counts.total()
        new_counts.update(openings)
        self._counts.update({key: n for key, n in new_counts.items() if key and ":" in key})
        if self._requests >= HALVE_AT_REQUESTS:
            self._requests /= 2
            self._counts = Counter({key: n // 2 for key, n in self._counts.items() if n > 1})
        if len(self._counts) > MAX_KEYS_OF_ROUTE:
            # To limit the number of keys, subtract the next key's count from all kept counts.
            ordered = self._counts.most_common(MAX_KEYS_OF_ROUTE + 1)
            least = ordered[-1][1]
            self._counts = Counter({key: n - least for key, n in ordered if n > least})
        self.shares = {
            key: count / self._requests
            for key, count in self._counts.items()
            if count >= max(FEWEST_REQUESTS, APPLICATION_SHARE * self._requests)
        }


class CallerShares:
    """Finds applications' keys. on_change: called with a route and its new shares."""

    def __init__(self, on_change: Callable[[str, Mapping[str, float]], None]) -> None:
        self._on_change = on_change
        self._routes: dict[str, RouteKeys] = {}
        # Requests' keys by route, in order. Texts, because tuples slow garbage collection.
        self.waiting: defaultdict[str, deque[str]] = defaultdict(_build_queue)
        # The openings that distinguish an application's conversations, by route.
        self.openings: defaultdict[str, deque[str]] = defaultdict(_build_queue)
        # Applications' keys by route: each of their conversations draws its own arm.
        self.applications: dict[str, frozenset[str]] = {}

    def evaluate(self, serving: "CompiledSnapshot") -> None:
        """Counts the requests since the last call, and finds keys of applications."""
        by_route = dict(self.waiting)
        openings = dict(self.openings)
        self.waiting.clear()
        self.openings.clear()
        for route in self._routes.keys() - serving.routes.keys():
            del self._routes[route]
            self._set_shares(route, NO_KEYS)
        for route, keys in by_route.items():
            if route in serving.routes:
                route_keys = self._routes.setdefault(route, RouteKeys())
                route_keys.add(keys, openings.get(route, ()))
                self._set_shares(route, route_keys.shares)

    def _set_shares(self, route: str, shares: Mapping[str, float]) -> None:
        keys = frozenset(shares)
        if keys == self.applications.get(route, frozenset()):
            return
        self.applications[route] = keys
        if not keys:
            del self.applications[route]
        self._on_change(route, shares)
