"""Sums of traffic by UTC hour, with latencies, and by UTC day; triggers on `traffic` keep them.

Each worker has its own rows, so that two writers never wait for each other. A row that is
deleted from `traffic` stays in its day's sum.
"""

# ruff: noqa: S608 - the statements consist of constants
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from harness.frame.records.columns import (
    EPOCH,
    MICROSECOND,
    at_least,
    count,
    json_value,
    metadata,
    number,
    text,
    time,
)

HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)
SUM_KEY: Final = ("begins_at", "route", "worker", "arm", "target")
COUNTS: Final = (
    "requests",
    "failed",
    "charged",
    "streams",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "unpriced",
)


def _columns(table: str) -> Sequence[Any]:
    return (
        time("begins_at"),
        text("route"),
        text("worker"),
        text("arm"),
        text("target"),
        time("first_minute"),
        time("last_minute"),
        *map(count, COUNTS),
        number("cost_usd"),
        sa.PrimaryKeyConstraint(*SUM_KEY),
        *(at_least(column, 0) for column in (*COUNTS, "cost_usd")),
        sa.Index(f"ix_{table}_route", "route", "begins_at"),
    )


traffic_hour = sa.Table(
    "traffic_hour",
    metadata,
    *_columns("traffic_hour"),
    json_value("latency_ms"),
)

traffic_day = sa.Table("traffic_day", metadata, *_columns("traffic_day"))


def floor_time(at: datetime, span: timedelta) -> datetime:
    """Returns the beginning of a moment's hour or day (UTC)."""
    return at - (at - EPOCH) % span


def ceil_time(at: datetime, span: timedelta) -> datetime:
    """Returns the beginning of the first hour or day (UTC) at or after a moment."""
    return at + (EPOCH - at) % span


SUMMED: Final = "traffic"
_SPANS: Final = {"traffic_hour": HOUR // MICROSECOND, "traffic_day": DAY // MICROSECOND}
_ADDED: Final = (*COUNTS, "cost_usd")
_LATENCY: Final = "latency_ms"
# A histogram is a JSON object: upper bound to count.
_SQLITE_MERGE: Final = (
    "(SELECT json_group_object(key, n) FROM (SELECT key, SUM(n) AS n FROM ({parts})"
    " GROUP BY key))"
)
_SQLITE_PART: Final = "SELECT key, {sign}value AS n FROM json_each({histogram})"
_POSTGRES_MERGE: Final = (
    "(SELECT COALESCE(json_object_agg(key, n)::text, '{{}}') FROM (SELECT key, SUM(n) AS n"
    " FROM ({parts}) part GROUP BY key) merged)"
)
_POSTGRES_PART: Final = (
    "SELECT key, {sign}value::bigint AS n FROM json_each_text(({histogram})::json)"
)


def write_bodies(*, postgres: bool, schema: str = "") -> Mapping[str, str]:
    """Maps INSERT and UPDATE to the trigger's statements. schema: PostgreSQL's, with a dot."""
    return {
        "INSERT": " ".join(
            _on_insert(table, span, schema, postgres=postgres) for table, span in _SPANS.items()
        ),
        "UPDATE": " ".join(
            _on_update(table, span, schema, postgres=postgres) for table, span in _SPANS.items()
        ),
    }


def _on_insert(table: str, span: int, schema: str, *, postgres: bool) -> str:
    columns = ["first_minute", "last_minute", *_ADDED]
    values = ["NEW.minute", "NEW.minute", *(f"NEW.{name}" for name in _ADDED)]
    least, most = ("LEAST", "GREATEST") if postgres else ("MIN", "MAX")
    changes = [
        f"first_minute = {least}({table}.first_minute, excluded.first_minute)",
        f"last_minute = {most}({table}.last_minute, excluded.last_minute)",
        *(f"{name} = {table}.{name} + excluded.{name}" for name in _ADDED),
    ]
    if table == "traffic_hour":
        columns.append(_LATENCY)
        values.append(f"NEW.{_LATENCY}")
        merged = _merge(f"{table}.{_LATENCY}", f"excluded.{_LATENCY}", postgres=postgres)
        changes.append(f"{_LATENCY} = {merged}")
    key = "NEW.route, NEW.worker, NEW.arm, NEW.target"
    return (
        f"INSERT INTO {schema}{table} ({', '.join((*SUM_KEY, *columns))})"
        f" VALUES ({_begin(span)}, {key}, {', '.join(values)})"
        f" ON CONFLICT ({', '.join(SUM_KEY)}) DO UPDATE SET {', '.join(changes)};"
    )


def _on_update(table: str, span: int, schema: str, *, postgres: bool) -> str:
    changes = [f"{name} = {name} + (NEW.{name} - OLD.{name})" for name in _ADDED]
    if table == "traffic_hour":
        parts = (f"{table}.{_LATENCY}", f"NEW.{_LATENCY}")
        merged = _merge(*parts, less=f"OLD.{_LATENCY}", postgres=postgres)
        changes.append(f"{_LATENCY} = {merged}")
    same = " AND ".join(f"{name} = NEW.{name}" for name in SUM_KEY[1:])
    return (
        f"UPDATE {schema}{table} SET {', '.join(changes)}"
        f" WHERE begins_at = {_begin(span)} AND {same};"
    )


def _begin(span: int) -> str:
    return f"NEW.minute - NEW.minute % {span}"


def _merge(*histograms: str, less: str = "", postgres: bool) -> str:
    merge, part = (
        (_POSTGRES_MERGE, _POSTGRES_PART) if postgres else (_SQLITE_MERGE, _SQLITE_PART)
    )
    parts = [part.format(sign="", histogram=histogram) for histogram in histograms]
    if less:
        parts.append(part.format(sign="-", histogram=less))
    return merge.format(parts=" UNION ALL ".join(parts))
