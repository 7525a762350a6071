"""Tables of sums of traffic by the minute: of each UTC hour with its latencies, and of each UTC
day. Triggers on `traffic` keep them (`harness.store.guards.traffic_sums`). Each worker has rows
of its own, as in `traffic`: two writers never wait for each other.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from harness.store.schema.columns import (
    EPOCH,
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
    "internal_errors",
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
    """Returns when the hour or the day (UTC) of a moment began."""
    return at - (at - EPOCH) % span


def ceil_time(at: datetime, span: timedelta) -> datetime:
    """Returns the begin of the first hour or day that does not begin before a moment."""
    return at + (EPOCH - at) % span
