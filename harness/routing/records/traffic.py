"""Reads a window's traffic: whole days and hours from their sums, the other parts from minutes.

Triggers keep the sums (`harness.routing.records.traffic_tables`). Writing is in
`harness.routing.records.observations`.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final

import sqlalchemy as sa

from harness.frame.records.columns import EPOCH, MICROSECOND, UtcTime
from harness.frame.records.transaction import Transaction
from harness.gate.caller_forecast import PART, TrafficPart
from harness.gate.online.observation import TrafficPoint, TrafficTotal
from harness.routing.records.preload import among, read_named
from harness.routing.records.traffic_tables import (
    DAY,
    HOUR,
    TOTAL_KEY,
    TRAFFIC_SUMS,
    ceil_time,
    floor_time,
    total_from_row,
    traffic,
    traffic_day,
    traffic_hour,
    traffic_point_from_row,
)
from harness.routing.reliability.latency import merge_histograms
from harness.routing.table import Arm

# The end of a span without an end. Without this bound, SQLite estimates that a quarter of the
# table matches, and does not use the index.
OPEN_END: Final = datetime(9999, 12, 31, tzinfo=UTC)
MINUTE: Final = timedelta(minutes=1)
_TABLES: Final = {table.name: table for table in (traffic, traffic_hour, traffic_day)}
# In the order of `TrafficTotal`.
_TOTAL_SUMS: Final = tuple(
    name for name in TrafficTotal.__dataclass_fields__ if name in TRAFFIC_SUMS
)
_POINT_COLUMNS: Final = ("requests", "failed", "charged")
_BEGIN_COLUMNS: Final = {
    traffic: traffic.c.minute,
    traffic_hour: traffic_hour.c.begins_at,
    traffic_day: traffic_day.c.begins_at,
}


@dataclass(frozen=True, slots=True)
class MinuteOutcomes:
    """The outcomes of a route's requests in one minute. failed: a target was called."""

    minute: datetime
    answered: int
    failed: int


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a window, and the table that holds its sums."""

    table: sa.Table
    begin: datetime
    end: datetime  # exclusive


def split_window(since: datetime, until: datetime) -> Sequence[Span]:
    """Splits a window into whole days, whole hours around them, and minutes at its ends."""
    hour = ceil_time(since, HOUR)
    day = ceil_time(hour, DAY)
    last_day = floor_time(until, DAY)
    last_hour = floor_time(until, HOUR)
    if last_day < day:
        day = last_day = max(hour, last_hour)
    parts = (
        Span(traffic, since, min(hour, until)),
        Span(traffic_hour, hour, day),
        Span(traffic_day, day, last_day),
        Span(traffic_hour, last_day, last_hour),
        Span(traffic, max(hour, last_hour), until),
    )
    return [part for part in parts if part.begin < part.end]


class Traffic:
    """Reads sums of traffic. `Observations` extends it by the writing methods."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    def totals(self, *, since: datetime, route: str | None = None) -> Sequence[TrafficTotal]:
        """Sums up traffic by route, arm and target, in this order. Counts the whole first day
        if its minutes were deleted.
        """
        # By default each table has an empty span.
        bounds = {f"{name}_{end}": OPEN_END for name in _TABLES for end in ("begin", "end")}
        for span in split_window(since, OPEN_END):
            name = span.table.name
            bounds |= {f"{name}_begin": span.begin, f"{name}_end": span.end}
        query = _totals_query(route is not None)
        parameters = {} if route is None else {"of": route}
        return [total_from_row(row) for row in self._tx.read(query, {**bounds, **parameters})]

    def latencies(
        self, *, since: datetime, route: str | None = None
    ) -> Mapping[tuple[str, str], Mapping[int, int]]:
        """Adds up latency histograms by route and target. Keeps only one histogram per pair in
        memory.
        """
        sums: dict[tuple[str, str], Mapping[int, int]] = {}
        hour = ceil_time(since, HOUR)
        for span in (
            Span(traffic, since, hour),
            Span(traffic_hour, hour, OPEN_END),
        ):
            query = _LATENCIES[span.table]
            if route is not None:
                query = query.where(span.table.c.route == route)
            for row in self._tx.read(query, {"begin": span.begin, "end": span.end}):
                histograms = json.loads(f"[{row.histograms}]")
                row_histogram = merge_histograms(
                    {int(bound): count for bound, count in histogram.items()}
                    for histogram in histograms
                )
                key = (row.route, row.target)
                sums[key] = merge_histograms([sums.get(key, {}), row_histogram])
        return sums

    def parts(self, route: str, *, since: datetime) -> Sequence[TrafficPart]:
        """Sums up a route's requests by process and PART, and the callers that each process
        counted among them. Leaves out requests that keep a target warm.
        """
        key = _parts_key(route, since)
        return self._tx.once(key, lambda: self._read_parts([route], since)[route])

    def preload_parts(self, routes: Collection[str], *, since: datetime) -> None:
        """Reads the parts of several routes in one statement, for later calls of `parts`."""
        for route, parts in self._read_parts(routes, since).items():
            self._tx.keep(_parts_key(route, since), parts)

    def _read_parts(
        self, routes: Collection[str], since: datetime
    ) -> Mapping[str, list[TrafficPart]]:
        parts_by_route: dict[str, list[TrafficPart]] = {route: [] for route in routes}
        period = {"begin": since, "end": OPEN_END}
        for row in read_named(self._tx, _PARTS, routes, period):
            # PostgreSQL returns a sum of integers as a decimal.
            part = TrafficPart(row.worker, row.began, int(row.requests), int(row.callers))
            parts_by_route[row.route].append(part)
        return parts_by_route

    def traffic_points(
        self,
        *,
        since: datetime,
        step: timedelta = MINUTE,
        route: str | None = None,
    ) -> Sequence[TrafficPoint]:
        """Sums up traffic by minute, oldest first. Reads sums of hours or days if `since`
        begins an hour or day, and `step` is a multiple of it.
        """
        table = traffic
        for length, sums in ((HOUR, traffic_hour), (DAY, traffic_day)):
            if not (since - EPOCH) % length and not step % length:
                table = sums
        query = _points_query(table)
        if route is not None:
            query = query.where(table.c.route == route)
        if table is traffic and route is None:
            # With the routes' names, SQLite uses the primary key, which is faster than another
            # index.
            query = query.where(traffic.c.route.in_(_ROUTES_SINCE))
        span = {
            "begin": since,
            "end": OPEN_END,
            "day": floor_time(since, DAY),
        }
        return [traffic_point_from_row(row) for row in self._tx.read(query, span)]


def _is_within(begins: sa.ColumnElement[Any], named: str = "") -> sa.ColumnElement[bool]:
    """Returns the condition that a row begins within the span of the bound parameters."""
    return sa.and_(
        begins >= sa.bindparam(f"{named}begin", type_=UtcTime()),
        begins < sa.bindparam(f"{named}end", type_=UtcTime()),
    )


def _sums(
    table: sa.FromClause,
    first: str,
    last: str,
) -> Iterator[sa.ColumnElement[Any]]:
    """Yields the columns of a total over the rows of `table`."""
    yield from (table.c[name] for name in TOTAL_KEY)
    yield sa.func.min(table.c[first], type_=UtcTime()).label("first")
    yield sa.func.max(table.c[last], type_=UtcTime()).label("last")
    yield from (sa.func.sum(table.c[name]).label(name) for name in _TOTAL_SUMS)


def _table_sums(table: sa.Table) -> sa.Select[Any]:
    names = ("minute", "minute") if table is traffic else ("first_minute", "last_minute")
    return sa.select(*_sums(table, *names)).group_by(*(table.c[name] for name in TOTAL_KEY))


def _union_totals(parts: Iterable[sa.Select[Any]]) -> sa.Select[Any]:
    """Adds up the totals of a window's parts, in order of route, arm and target."""
    part = sa.union_all(*parts).subquery("part")
    key = [part.c[name] for name in TOTAL_KEY]
    return sa.select(*_sums(part, "first", "last")).group_by(*key).order_by(*key)


@cache
def _totals_query(of_route: bool) -> sa.Select[Any]:  # noqa: FBT001 - a key of the cache
    """Builds the query of all tables' totals. Each table has bounds of its own."""
    parts = []
    for name, table in _TABLES.items():
        part = _table_sums(table)
        if of_route:
            part = part.where(table.c.route == sa.bindparam("of"))
        parts.append(part.where(_is_within(_BEGIN_COLUMNS[table], f"{name}_")))
    return _union_totals(parts)


def _parts_key(route: str, since: datetime) -> tuple[str, ...]:
    return (traffic.name, "parts", route, since.isoformat())


_PART_BEGIN: Final = sa.type_coerce(traffic.c.minute, sa.BigInteger) - sa.type_coerce(
    traffic.c.minute, sa.BigInteger
) % (PART // MICROSECOND)
_FIRST_MINUTE: Final = sa.func.min(traffic.c.minute, type_=UtcTime())
_PARTS: Final = (
    sa.select(
        traffic.c.route,
        traffic.c.worker,
        _FIRST_MINUTE.label("began"),
        sa.func.sum(traffic.c.requests).label("requests"),
        sa.func.sum(traffic.c.first_requests).label("callers"),
    )
    .where(
        among(traffic.c.route),
        traffic.c.arm != sa.bindparam("arm", Arm.KEEP_WARM, type_=traffic.c.arm.type),
        _is_within(traffic.c.minute),
    )
    .group_by(traffic.c.route, traffic.c.worker, _PART_BEGIN)
    .order_by(_FIRST_MINUTE, traffic.c.worker)
)


@cache
def _points_query(table: sa.Table) -> sa.Select[Any]:
    """Builds the query of counts by minute, hour or day."""
    begins = _BEGIN_COLUMNS[table]
    counts = (sa.func.sum(table.c[name]).label(name) for name in _POINT_COLUMNS)
    query = sa.select(begins.label("minute"), *counts).where(_is_within(begins))
    return query.group_by(begins).order_by(begins)


_ROUTES_SINCE: Final = sa.select(traffic_day.c.route).where(
    traffic_day.c.begins_at >= sa.bindparam("day", type_=UtcTime()),
    traffic_day.c.begins_at < OPEN_END,
)


def _latencies_query(table: sa.Table) -> sa.Select[Any]:
    """Builds the query of all histograms by route and target, joined as text."""
    texts = sa.type_coerce(table.c.latency_ms, sa.Text)
    histograms = sa.func.aggregate_strings(texts, ",").label("histograms")
    key = (table.c.route, table.c.target)
    return sa.select(*key, histograms).where(_is_within(_BEGIN_COLUMNS[table])).group_by(*key)


_LATENCIES: Final = {table: _latencies_query(table) for table in (traffic, traffic_hour)}
