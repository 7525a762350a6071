"""Tables of blocks, traffic, spend and asked names.

Triggers on `traffic` keep its sums by UTC hour, with latencies, and by UTC day. Each worker has
its own rows of sums, so that two writers never wait for each other. A row that is deleted from
`traffic` stays in its day's sum.

This module writes the triggers' bodies, and `harness.app.store.guards` installs them.
`harness.routing.records.traffic` reads the tables, and `harness.routing.records.observations`
writes them.
"""

# ruff: noqa: S608 - the statements consist of constants

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import sqlalchemy as sa

from harness.frame.people.limits import KeySpend
from harness.frame.records.columns import (
    EPOCH,
    MICROSECOND,
    Row,
    added_count,
    amount,
    at_least,
    count,
    json_value,
    metadata,
    number,
    one_of,
    text,
    time,
)
from harness.frame.records.record import record
from harness.gate.online.observation import (
    PAGES,
    AskedName,
    ObservationBlock,
    TrafficMinute,
    TrafficPoint,
    TrafficTotal,
)
from harness.routing.table import Arm

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
    "refused",
    "bounded",
    "unanswered",
)


def _sum_columns(table: str) -> Sequence[Any]:
    """Returns the columns and constraints of one table of sums."""
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
    *_sum_columns("traffic_hour"),
    json_value("latency_ms"),
)

traffic_day = sa.Table("traffic_day", metadata, *_sum_columns("traffic_day"))


def floor_time(at: datetime, span: timedelta) -> datetime:
    """Returns the beginning of a moment's hour or day (UTC)."""
    return at - (at - EPOCH) % span


def ceil_time(at: datetime, span: timedelta) -> datetime:
    """Returns the beginning of the first hour or day (UTC) at or after a moment."""
    return at + (EPOCH - at) % span


SUMMED_TABLE: Final = "traffic"
_SPANS_US: Final = {
    "traffic_hour": HOUR // MICROSECOND,
    "traffic_day": DAY // MICROSECOND,
}
_SUMMED_COLUMNS: Final = (*COUNTS, "cost_usd")
_LATENCY: Final = "latency_ms"
# A histogram is a JSON object with a count for each upper bound.
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


def write_trigger_bodies(*, postgres: bool, schema: str = "") -> Mapping[str, str]:
    """Maps INSERT and UPDATE to the trigger's statements.

    Args:
        schema: PostgreSQL's, with a dot.
    """
    return {
        "INSERT": " ".join(
            _write_insert(table, span, schema, postgres=postgres)
            for table, span in _SPANS_US.items()
        ),
        "UPDATE": " ".join(
            _write_update(table, span, schema, postgres=postgres)
            for table, span in _SPANS_US.items()
        ),
    }


def _write_insert(
    table: str,
    span_us: int,
    schema: str,
    *,
    postgres: bool,
) -> str:
    """Writes the statement that adds a new minute to one table of sums.

    Args:
        span_us: in microseconds.
    """
    columns = ["first_minute", "last_minute", *_SUMMED_COLUMNS]
    values = [
        "NEW.minute",
        "NEW.minute",
        *(f"NEW.{name}" for name in _SUMMED_COLUMNS),
    ]
    minimum, maximum = ("LEAST", "GREATEST") if postgres else ("MIN", "MAX")
    changes = [
        f"first_minute = {minimum}({table}.first_minute, excluded.first_minute)",
        f"last_minute = {maximum}({table}.last_minute, excluded.last_minute)",
        *(f"{name} = {table}.{name} + excluded.{name}" for name in _SUMMED_COLUMNS),
    ]
    if table == "traffic_hour":
        columns.append(_LATENCY)
        values.append(f"NEW.{_LATENCY}")
        merge_expression = _write_merge(
            f"{table}.{_LATENCY}", f"excluded.{_LATENCY}", postgres=postgres
        )
        changes.append(f"{_LATENCY} = {merge_expression}")
    key = "NEW.route, NEW.worker, NEW.arm, NEW.target"
    return (
        f"INSERT INTO {schema}{table} ({', '.join((*SUM_KEY, *columns))})"
        f" VALUES ({_write_begin(span_us)}, {key}, {', '.join(values)})"
        f" ON CONFLICT ({', '.join(SUM_KEY)}) DO UPDATE SET {', '.join(changes)};"
    )


def _write_update(
    table: str,
    span_us: int,
    schema: str,
    *,
    postgres: bool,
) -> str:
    """Writes the statement that adds a minute's change to one table of sums.

    Args:
        span_us: in microseconds.
    """
    changes = [f"{name} = {name} + (NEW.{name} - OLD.{name})" for name in _SUMMED_COLUMNS]
    if table == "traffic_hour":
        parts = (f"{table}.{_LATENCY}", f"NEW.{_LATENCY}")
        merge_expression = _write_merge(*parts, subtracted=f"OLD.{_LATENCY}", postgres=postgres)
        changes.append(f"{_LATENCY} = {merge_expression}")
    same_row = " AND ".join(f"{name} = NEW.{name}" for name in SUM_KEY[1:])
    return (
        f"UPDATE {schema}{table} SET {', '.join(changes)}"
        f" WHERE begins_at = {_write_begin(span_us)} AND {same_row};"
    )


def _write_begin(span_us: int) -> str:
    return f"NEW.minute - NEW.minute % {span_us}"


def _write_merge(
    *histograms: str,
    subtracted: str = "",
    postgres: bool,
) -> str:
    """Writes the expression that adds up histograms.

    Args:
        subtracted: a histogram to subtract.
    """
    merge, part = (
        (_POSTGRES_MERGE, _POSTGRES_PART) if postgres else (_SQLITE_MERGE, _SQLITE_PART)
    )
    parts = [part.format(sign="", histogram=histogram) for histogram in histograms]
    if subtracted:
        parts.append(part.format(sign="-", histogram=subtracted))
    return merge.format(parts=" UNION ALL ".join(parts))


# Append-only (trigger): `replay` computes a canary's decisions from these.
BLOCK: Final = record(
    ObservationBlock,
    "block",
    sa.Column(
        "period",
        sa.BigInteger,
        nullable=False,
        server_default="1",
    ),
    *(added_count(column) for column in ("late_of", "late_units", "late_canary_units")),
    sa.Column("windows_known_s", sa.Double, nullable=False, server_default="0"),
    json_value("counts", nullable=True),
    json_value("ranks", nullable=True),
    json_value("levels", nullable=True),
    *(json_value(column, nullable=True) for column in ("outcomes", "uncounted", "bets")),
    *(json_value(column, nullable=True) for column in ("by_key", "served", "waits", "bounds")),
    *(json_value(column, nullable=True) for column in ("capped", "usual_rates")),
    sa.UniqueConstraint("rollout", "worker", "sequence", name="uq_block_sent_once"),
    at_least("number", 1),
    at_least("period", 1),
    at_least("late_of", 0),
    at_least("windows_known_s", 0),
    sa.CheckConstraint("weight_bps BETWEEN 0 AND 10000", name="weight_bps_range"),
    sa.CheckConstraint(
        "units >= 0 AND canary_units BETWEEN 0 AND units AND missing BETWEEN 0 AND units",
        name="units_range",
    ),
    sa.CheckConstraint(
        "failures >= 0 AND canary_failures BETWEEN 0 AND canary_units"
        " AND failures - canary_failures BETWEEN 0 AND units - canary_units",
        name="failures_range",
    ),
    key="rollout number",
)

block = BLOCK.table

# Fingerprints of the keys that a rollout has counted. Swapproof deletes them after the
# rollout's end.
seen_keys = sa.Table(
    "seen_keys",
    metadata,
    text("rollout"),
    count("page"),
    sa.Column("entries", sa.LargeBinary, nullable=False),
    sa.PrimaryKeyConstraint("rollout", "page"),
    sa.CheckConstraint(f"page BETWEEN 0 AND {PAGES - 1}", name="page_range"),
)

# Callers that a rollout's candidate served, by the sticky key's fingerprint in hexadecimal,
# with the days on which the ledger counted them. rollout: a ledger's name. Deleted as the
# traffic is.
canary_caller = sa.Table(
    "canary_caller",
    metadata,
    text("rollout"),
    text("caller"),
    count("days"),
    time("newest_at"),
    sa.PrimaryKeyConstraint("rollout", "caller"),
    at_least("days", 1),
    sa.Index("ix_canary_caller_newest_at", "newest_at"),
)

# Failed requests of a rollout's callers, which the routers read when windows are over, packed
# by `late_outcomes.pack_turns`. Deleted when the rollout has ended.
failed_turns = sa.Table(
    "failed_turns",
    metadata,
    text("rollout"),
    count("number"),
    time("newest_at"),
    sa.Column("entries", sa.LargeBinary, nullable=False),
    sa.PrimaryKeyConstraint("rollout", "number"),
)

# Ids of the stored batches, until the routers get the acknowledgement. The key refuses a batch
# that a router sends again after a lost acknowledgement.
observation_batch = sa.Table(
    "observation_batch",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    time("at"),
    sa.Index("ix_observation_batch_at", "at"),
)

TRAFFIC: Final = record(
    TrafficMinute,
    "traffic",
    added_count("cached_tokens"),
    added_count("unpriced"),
    added_count("refused"),
    json_value("waits", nullable=True),
    added_count("bounded"),
    added_count("unanswered"),
    added_count("first_requests"),
    added_count("first_failed"),
    added_count("windows"),
    added_count("windows_failed"),
    one_of("arm", Arm),
    *(at_least(column, 0) for column in ("requests", "failed", "charged", "streams")),
    *(at_least(column, 0) for column in ("input_tokens", "output_tokens")),
    *(at_least(column, 0) for column in ("cached_tokens", "unpriced", "refused", "bounded")),
    *(at_least(column, 0) for column in ("unanswered", "first_requests", "first_failed")),
    *(at_least(column, 0) for column in ("windows", "windows_failed")),
    amount("cost_usd"),
    sa.Index("ix_traffic_minute", "minute"),
    key="route minute worker arm target revision",
)

traffic = TRAFFIC.table

# Spend by key, UTC day and process. There is no foreign key, because spend outlasts its key.
KEY_SPEND: Final = record(
    KeySpend,
    "key_spend",
    added_count("bounded"),
    *(at_least(column, 0) for column in ("requests", "tokens", "unpriced", "bounded")),
    amount("cost_usd"),
    sa.Index("ix_key_spend_day", "day"),
    key="key day worker",
)

key_spend = KEY_SPEND.table

# By UTC day. Clients choose the names, so Swapproof limits their number per route and day.
ASKED_NAME: Final = record(
    AskedName,
    "asked_name",
    at_least("requests", 0),
    key="day route name",
)

asked_name = ASKED_NAME.table


def total_from_row(row: Row) -> TrafficTotal:
    """Builds a total from a row of sums, in the order of `TrafficTotal`."""
    # PostgreSQL returns a sum of integers as a decimal.
    values: list[Any] = [int(value) if isinstance(value, Decimal) else value for value in row]
    return TrafficTotal(*values)


def traffic_point_from_row(row: Row) -> TrafficPoint:
    return TrafficPoint(row.minute, int(row.requests), int(row.failed), int(row.charged))


TRAFFIC_KEY: Final = (
    "route",
    "minute",
    "worker",
    "arm",
    "target",
    "revision",
)

# Only minutes have the counts of callers, because Swapproof reads only the last days.
CALLER_COUNTS: Final = ("first_requests", "first_failed", "windows", "windows_failed")
TRAFFIC_SUMS: Final = (*COUNTS, *CALLER_COUNTS, "cost_usd")

TOTAL_KEY: Final = ("route", "arm", "target")

SPEND_SUMS: Final = ("requests", "tokens", "cost_usd", "unpriced", "bounded")
