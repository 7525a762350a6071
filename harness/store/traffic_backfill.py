"""Sums up the traffic that was recorded before there were sums of it, an hour in each unit of
work and the newest first, so that writers wait for no more than an hour's rows.

`meta.traffic_summed_since` goes back with each. Who is interrupted goes on from there.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import groupby
from typing import Final

import sqlalchemy as sa

from harness.domain.reliability.latency import merge_histograms
from harness.store.schema.columns import EPOCH, MICROSECOND, Row, Values
from harness.store.schema.observations import traffic
from harness.store.schema.operations import meta
from harness.store.schema.traffic_sums import (
    COUNTS,
    DAY,
    HOUR,
    SUM_KEY,
    ceil_time,
    floor_time,
    traffic_day,
    traffic_hour,
)

hours: Final = traffic_hour.c
_SINCE: Final = sa.select(meta.c.traffic_summed_since)
_LAST: Final = sa.select(sa.func.max(traffic.c.minute, type_=traffic.c.minute.type)).where(
    traffic.c.minute < sa.bindparam("since", type_=traffic.c.minute.type)
)
_ADDED: Final = (*COUNTS, "cost_usd")
_KEY: Final = [traffic.c[name] for name in SUM_KEY[1:]]
_MINUTES: Final = (
    sa.select(
        *_KEY, traffic.c.minute, *(traffic.c[name] for name in _ADDED), traffic.c.latency_ms
    )
    .where(
        traffic.c.minute >= sa.bindparam("begin", type_=traffic.c.minute.type),
        traffic.c.minute < sa.bindparam("end", type_=traffic.c.minute.type),
    )
    .order_by(*_KEY)
)


def is_complete(db: sa.Connection) -> bool:
    """Tells whether the sums have every minute that there is."""
    since: datetime | None = db.execute(_SINCE).scalar_one()
    return since == EPOCH


def sum_up_hour(db: sa.Connection) -> None:
    """Sums up the newest hour that is in no sum yet, and each day that is whole with it."""
    if db.dialect.name == "postgresql":
        # What somebody adds is in the sums by its trigger, or seen here: nobody adds meanwhile.
        db.exec_driver_sql("LOCK TABLE traffic IN SHARE ROW EXCLUSIVE MODE")
    summed: datetime = db.execute(_SINCE).scalar_one()
    last: datetime | None = db.execute(_LAST, {"since": summed}).scalar_one()
    if last is None:
        # Of the hours before nothing is in the day of the last one.
        begin, day = EPOCH, floor_time(summed, DAY)
    else:
        begin = floor_time(last, HOUR)
        day = ceil_time(begin, DAY)
        _replace_hour(db, begin)
    _replace_days(db, day, ceil_time(summed, DAY))
    db.execute(sa.update(meta).values(traffic_summed_since=begin))


def _replace_hour(db: sa.Connection, begin: datetime) -> None:
    """Sums up an hour's minutes. What the triggers added of some of them goes first."""
    db.execute(sa.delete(traffic_hour).where(traffic_hour.c.begins_at == begin))
    found: Iterable[Row] = db.execute(_MINUTES, {"begin": begin, "end": begin + HOUR})
    rows = [
        {**dict(zip(SUM_KEY[1:], key, strict=True)), "begins_at": begin, **_sum(list(minutes))}
        for key, minutes in groupby(found, key=lambda row: tuple(row[: len(_KEY)]))
    ]
    db.execute(sa.insert(traffic_hour), rows)


def _sum(minutes: Sequence[Row]) -> Values:
    latencies = [{int(k): n for k, n in row.latency_ms.items()} for row in minutes]
    return {
        "first_minute": min(row.minute for row in minutes),
        "last_minute": max(row.minute for row in minutes),
        "latency_ms": {str(bound): n for bound, n in merge_histograms(latencies).items()},
        **{name: sum(getattr(row, name) for row in minutes) for name in _ADDED},
    }


def _replace_days(db: sa.Connection, first: datetime, end: datetime) -> None:
    """Sums up the hours of whole days, from `first` to before `end`."""
    if first >= end:
        return
    is_theirs = sa.and_(hours.begins_at >= first, hours.begins_at < end)
    begin = sa.type_coerce(hours.begins_at, sa.BigInteger)
    sums = sa.select(
        (begin - begin % (DAY // MICROSECOND)).label("begins_at"),
        *(hours[name] for name in SUM_KEY[1:]),
        sa.func.min(hours.first_minute),
        sa.func.max(hours.last_minute),
        *(sa.func.sum(hours[name]) for name in _ADDED),
    )
    key = [sums.selected_columns[0], *(hours[name] for name in SUM_KEY[1:])]
    columns = [*SUM_KEY, "first_minute", "last_minute", *_ADDED]
    days = traffic_day.c.begins_at
    db.execute(sa.delete(traffic_day).where(days >= first, days < end))
    db.execute(
        sa.insert(traffic_day).from_select(columns, sums.where(is_theirs).group_by(*key))
    )
