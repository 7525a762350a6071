"""Reads the traffic of a window: whole days and hours from their sums, and only what is left at
the window's ends from the minutes. What no sum has yet (`harness.store.traffic_backfill`) is
read from the minutes, too.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final

import sqlalchemy as sa

from harness.domain.canary.observation import TrafficPoint, TrafficTotal
from harness.domain.reliability.latency import merge_histograms
from harness.store.rules import TOTAL_KEY, TRAFFIC_SUMS
from harness.store.schema.columns import EPOCH, MICROSECOND, UtcTime
from harness.store.schema.observations import total_from_row, traffic, traffic_point_from_row
from harness.store.schema.operations import meta
from harness.store.schema.traffic_sums import (
    DAY,
    HOUR,
    ceil_time,
    floor_time,
    traffic_day,
    traffic_hour,
)
from harness.store.sql.json_rows import json_rows
from harness.store.sql.pages import owned_by
from harness.store.unit_of_work import Unit

Totals = Sequence[TrafficTotal]
# Each span has an end as well as a beginning: SQLite takes one without for a quarter of the
# table, and rather reads all of it than go by the index.
FAR: Final = datetime(9999, 12, 31, tzinfo=UTC)
_SUMMED_SINCE: Final = sa.select(meta.c.traffic_summed_since)
_COUNTED: Final = ("requests", "failed", "charged")
_BEGINS: Final = {
    traffic: traffic.c.minute,
    traffic_hour: traffic_hour.c.begins_at,
    traffic_day: traffic_day.c.begins_at,
}


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a window, and the table that it is read from."""

    table: sa.Table
    begin: datetime
    end: datetime  # not in it


def split_window(since: datetime, until: datetime, summed: datetime) -> Sequence[Span]:
    """Splits a window into whole days, whole hours before and after them, and the minutes at
    its ends. summed: the hour from which on there are sums; a day is summed with its first.
    """
    hour = max(ceil_time(since, HOUR), summed)
    day = ceil_time(hour, DAY)
    last_day, last_hour = floor_time(until, DAY), floor_time(until, HOUR)
    if last_day < day:
        day = last_day = max(hour, last_hour)
    spans = (
        Span(traffic, since, min(hour, until)),
        Span(traffic_hour, hour, day),
        Span(traffic_day, day, last_day),
        Span(traffic_hour, last_day, last_hour),
        Span(traffic, max(hour, last_hour), until),
    )
    return [span for span in spans if span.begin < span.end]


class SqlTraffic:
    """Sums of recorded traffic."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def totals(self, since: datetime, route: str | None, project: str) -> Totals:
        parts: list[TrafficTotal] = []
        for span in split_window(since, FAR, self._summed_since()):
            query = _of(_totals(span.table), span.table, route, project)
            parts += map(total_from_row, self._unit.read(query, _bounds(span)))
        return merge_totals(parts)

    def totals_of_routes(
        self, windows: Mapping[str, tuple[datetime, datetime | None]]
    ) -> Totals:
        summed = self._summed_since()
        asked: dict[sa.Table, list[dict[str, object]]] = {}
        for route, (since, until) in windows.items():
            for span in split_window(since, FAR if until is None else until, summed):
                begin, end = ((at - EPOCH) // MICROSECOND for at in (span.begin, span.end))
                row = {"route": route, "begin": begin, "end": end}
                asked.setdefault(span.table, []).append(row)
        parts: list[TrafficTotal] = []
        for table, rows in asked.items():
            query = _totals_of_routes(table, self._unit.dialect)
            found = self._unit.read(query, {"asked": json.dumps(rows)})
            parts += map(total_from_row, found)
        return merge_totals(parts)

    def latencies(
        self, since: datetime, route: str | None
    ) -> Mapping[tuple[str, str], Mapping[int, int]]:
        sums: dict[tuple[str, str], Mapping[int, int]] = {}
        summed = self._summed_since()
        hour = max(ceil_time(since, HOUR), summed)
        for span in (Span(traffic, since, hour), Span(traffic_hour, hour, FAR)):
            query = _of(_LATENCIES[span.table], span.table, route)
            for row in self._unit.read(query, _bounds(span)):
                histograms = json.loads(f"[{row.histograms}]")
                own = merge_histograms(
                    {int(bound): n for bound, n in histogram.items()}
                    for histogram in histograms
                )
                key = (row.route, row.target)
                sums[key] = merge_histograms([sums.get(key, {}), own])
        return sums

    def points(
        self, since: datetime, step: timedelta, route: str | None, project: str
    ) -> Sequence[TrafficPoint]:
        summed, table = self._summed_since(), traffic
        for span, other in ((HOUR, traffic_hour), (DAY, traffic_day)):
            whole = not (since - EPOCH) % span and not step % span
            if whole and ceil_time(summed, span) <= since:
                table = other
        query = _of(_points(table), table, route, project)
        if (
            table is traffic
            and route is None
            and ceil_time(summed, DAY) <= floor_time(since, DAY)
        ):
            # SQLite gets at a minute's rows faster route by route than through an index that
            # has not their counts.
            query = query.where(traffic.c.route.in_(_ROUTES_SINCE))
        asked = {"begin": since, "end": FAR, "day": floor_time(since, DAY)}
        return [traffic_point_from_row(row) for row in self._unit.read(query, asked)]

    def _summed_since(self) -> datetime:
        since: datetime | None = self._unit.read(_SUMMED_SINCE).scalar_one()
        return FAR if since is None else since


def merge_totals(parts: Iterable[TrafficTotal]) -> Totals:
    """Adds up the totals of the parts of a window, in order of route, arm and target."""
    merged: dict[tuple[str, str, str], TrafficTotal] = {}
    for part in parts:
        key = (part.route, part.arm, part.target)
        before = merged.get(key)
        merged[key] = part if before is None else _add(before, part)
    return [merged[key] for key in sorted(merged)]


def _add(one: TrafficTotal, other: TrafficTotal) -> TrafficTotal:
    return replace(
        one,
        first=min(one.first, other.first),
        last=max(one.last, other.last),
        **{name: getattr(one, name) + getattr(other, name) for name in TRAFFIC_SUMS},
    )


def _bounds(span: Span) -> Mapping[str, datetime]:
    return {"begin": span.begin, "end": span.end}


def _within(begins: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
    return sa.and_(
        begins >= sa.bindparam("begin", type_=UtcTime()),
        begins < sa.bindparam("end", type_=UtcTime()),
    )


def _of(
    query: sa.Select[Any], table: sa.Table, route: str | None, project: str | None = None
) -> sa.Select[Any]:
    """The query over one route or over all of them that are a project's."""
    if route is not None:
        query = query.where(table.c.route == route)
    own = None if project is None else owned_by(table, project)
    return query if own is None else query.where(own)


def _sums(table: sa.Table) -> Iterator[sa.ColumnElement[Any]]:
    """The columns of a total, over rows of any of the three tables."""
    first, last = (
        (table.c.minute, table.c.minute)
        if table is traffic
        else (table.c.first_minute, table.c.last_minute)
    )
    yield from (table.c[name] for name in TOTAL_KEY)
    yield sa.func.min(first, type_=UtcTime()).label("first")
    yield sa.func.max(last, type_=UtcTime()).label("last")
    yield from (sa.func.sum(table.c[name]).label(name) for name in TRAFFIC_SUMS)


@cache
def _totals(table: sa.Table) -> sa.Select[Any]:
    query = sa.select(*_sums(table)).where(_within(_BEGINS[table]))
    return query.group_by(*(table.c[name] for name in TOTAL_KEY))


@cache
def _totals_of_routes(table: sa.Table, dialect: str) -> sa.Select[Any]:
    """Of spans of several routes, which `asked` has as JSON."""
    columns = {"route": sa.Text(), "begin": sa.BigInteger(), "end": sa.BigInteger()}
    asked = json_rows("asked", columns, dialect)
    begins = sa.type_coerce(_BEGINS[table], sa.BigInteger)
    same = sa.and_(
        table.c.route == asked.c.route, begins >= asked.c.begin, begins < asked.c.end
    )
    query = sa.select(*_sums(table)).select_from(asked.join(table, same))
    return query.group_by(*(table.c[name] for name in TOTAL_KEY))


@cache
def _points(table: sa.Table) -> sa.Select[Any]:
    begins = _BEGINS[table]
    counts = (sa.func.sum(table.c[name]).label(name) for name in _COUNTED)
    query = sa.select(begins.label("minute"), *counts).where(_within(begins))
    return query.group_by(begins).order_by(begins)


_ROUTES_SINCE: Final = sa.select(traffic_day.c.route).where(
    traffic_day.c.begins_at >= sa.bindparam("day", type_=UtcTime()),
    traffic_day.c.begins_at < FAR,
)


def _latencies(table: sa.Table) -> sa.Select[Any]:
    """A row for each route and target: the histograms of its rows, one after the other."""
    texts = sa.type_coerce(table.c.latency_ms, sa.Text)
    histograms = sa.func.aggregate_strings(texts, ",").label("histograms")
    key = (table.c.route, table.c.target)
    return sa.select(*key, histograms).where(_within(_BEGINS[table])).group_by(*key)


_LATENCIES: Final = {table: _latencies(table) for table in (traffic, traffic_hour)}
