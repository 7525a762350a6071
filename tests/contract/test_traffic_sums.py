import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.app.store.store import Store
from harness.frame.database import engine
from harness.gate.online.observation import (
    TrafficMinute,
    TrafficPoint,
    TrafficTotal,
)
from harness.routing.records.observations import Observations
from harness.routing.records.traffic import split_window
from harness.routing.records.traffic_tables import DAY, HOUR, floor_time
from harness.routing.reliability.latency import merge_histograms
from harness.routing.table import Arm
from tests.contract.conftest import Opener
from tests.support.store.records import NOW, ROUTE, TRAFFIC

pytestmark = pytest.mark.both_databases

MINUTE = timedelta(minutes=1)
BEGIN = floor_time(NOW, DAY) - 3 * DAY
SPAN_MINUTES = 4 * 24 * 60
ROUTES = (ROUTE, "mail")
SUMS = (
    "requests",
    "failed",
    "charged",
    "streams",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "unpriced",
)
EVER = datetime(1970, 1, 1, tzinfo=NOW.tzinfo)

offsets = st.integers(0, SPAN_MINUTES) | st.sampled_from([0, 59, 60, 61, 1439, 1440, 2880])
moments = st.builds(
    lambda n, s: BEGIN + n * MINUTE + timedelta(seconds=s),
    offsets,
    st.sampled_from([0, 7]),
)
minutes = st.builds(
    TrafficMinute,
    route=st.sampled_from(ROUTES),
    minute=offsets.map(lambda n: BEGIN + n * MINUTE),
    worker=st.sampled_from(["router-1/0", "router-1/1"]),
    arm=st.sampled_from([Arm.INCUMBENT.value, Arm.CANARY.value]),
    target=st.sampled_from(["t_a", "t_b"]),
    revision=st.integers(1, 2),
    **{name: st.integers(0, 50) for name in SUMS},
    # Halves add up exactly.
    cost_usd=st.integers(0, 20).map(lambda n: n / 2),
    latency_ms=st.dictionaries(st.sampled_from([10, 250, -1]), st.integers(1, 9)),
)
batches = st.lists(minutes, min_size=1, max_size=5)


@dataclass
class Recorded:
    store: Store
    db: sa.Engine
    written: list[TrafficMinute]

    def write(self, more: Sequence[TrafficMinute]) -> None:
        with self.store.write() as tx:
            Observations(tx).append([], more)
        self.written += more

    def begin_anew(self) -> None:
        self.written = []
        with self.db.begin() as db:
            for table in ("traffic", "traffic_hour", "traffic_day"):
                db.execute(sa.text(f"DELETE FROM {table}"))  # noqa: S608 - as above

    def minutes_since(self, since: datetime, route: str | None = None) -> list[TrafficMinute]:
        return [
            minute
            for minute in self.written
            if minute.minute >= since and route in (None, minute.route)
        ]


@pytest.fixture
def recorded(database_url: str, sql_stores: Opener) -> Iterator[Recorded]:
    made = engine.make(engine.parse(database_url))
    with closing(sql_stores()) as store:
        yield Recorded(store, made.execution_options(**{engine.BEGIN: "IMMEDIATE"}), [])
    made.dispose()


def totals_of(rows: Sequence[TrafficMinute]) -> list[TrafficTotal]:
    grouped: dict[tuple[str, str, str], list[TrafficMinute]] = {}
    for row in rows:
        grouped.setdefault((row.route, row.arm, row.target), []).append(row)
    return [
        TrafficTotal(
            *key,
            first=min(row.minute for row in of),
            last=max(row.minute for row in of),
            cost_usd=sum(row.cost_usd for row in of),
            **{name: sum(getattr(row, name) for row in of) for name in SUMS},
        )
        for key, of in sorted(grouped.items())
    ]


def points_of(rows: Sequence[TrafficMinute], span: timedelta) -> list[TrafficPoint]:
    grouped: dict[datetime, list[TrafficMinute]] = {}
    for row in rows:
        grouped.setdefault(floor_time(row.minute, span), []).append(row)
    return [
        TrafficPoint(
            at,
            sum(row.requests for row in of),
            sum(row.failed for row in of),
            sum(row.charged for row in of),
        )
        for at, of in sorted(grouped.items())
    ]


def latencies_of(rows: Sequence[TrafficMinute]) -> dict[tuple[str, str], dict[int, int]]:
    grouped: dict[tuple[str, str], list[TrafficMinute]] = {}
    for row in rows:
        grouped.setdefault((row.route, row.target), []).append(row)
    return {key: merge_histograms(row.latency_ms for row in of) for key, of in grouped.items()}


def assert_reads_are_those_of_the_minutes(recorded: Recorded, since: datetime) -> None:
    rows = recorded.minutes_since(since)
    of_route = recorded.minutes_since(since, ROUTE)
    with recorded.store.read() as tx:
        read = Observations(tx)
        assert read.totals(since=since) == totals_of(rows)
        assert read.totals(since=since, route=ROUTE) == totals_of(of_route)
        assert read.latencies(since=since) == latencies_of(rows)
        assert read.latencies(since=since, route=ROUTE) == latencies_of(of_route)
        for step in (MINUTE, 15 * MINUTE, 2 * HOUR, DAY):
            begin = floor_time(since, step)
            points = read.traffic_points(since=begin, step=step)
            assert _summed(points, step) == points_of(recorded.minutes_since(begin), step)


def _summed(points: Sequence[TrafficPoint], step: timedelta) -> list[TrafficPoint]:
    grouped: dict[datetime, list[TrafficPoint]] = {}
    for point in points:
        grouped.setdefault(floor_time(point.minute, step), []).append(point)
    return [
        TrafficPoint(
            at,
            sum(p.requests for p in of),
            sum(p.failed for p in of),
            sum(p.charged for p in of),
        )
        for at, of in grouped.items()
    ]


@pytest.mark.req("F5")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(written=st.lists(batches, max_size=6), since=moments)
def test_every_window_has_the_figures_of_its_minutes(
    recorded: Recorded,
    written: list[list[TrafficMinute]],
    since: datetime,
) -> None:
    recorded.begin_anew()
    for batch in written:
        recorded.write(batch)
    assert_reads_are_those_of_the_minutes(recorded, since)
    with recorded.store.read() as tx:
        assert Observations(tx).totals(since=EVER) == totals_of(recorded.written)


def test_raw_sql_keeps_the_sums(recorded: Recorded) -> None:
    recorded.write([TRAFFIC])
    with recorded.db.begin() as db:
        more = {
            "latency_ms": json.dumps(
                {
                    "100": 10,
                    "250": 4,
                    "-1": 1,
                }
            ),
            "route": TRAFFIC.route,
        }
        db.execute(
            sa.text(
                "UPDATE traffic SET requests = requests + 4, cost_usd = cost_usd + 0.5,"
                " latency_ms = :latency_ms WHERE route = :route"
            ),
            more,
        )
    recorded.write([replace(TRAFFIC, minute=TRAFFIC.minute + MINUTE)])

    with recorded.store.read() as tx:
        [hours] = Observations(tx).totals(since=floor_time(TRAFFIC.minute, HOUR))
        [days] = Observations(tx).totals(since=floor_time(TRAFFIC.minute, DAY))
        latencies = Observations(tx).latencies(since=floor_time(TRAFFIC.minute, HOUR))
    assert hours == days
    assert (hours.requests, hours.cost_usd) == (
        24,
        2 * TRAFFIC.cost_usd + 0.5,
    )
    both = merge_histograms(
        [
            {
                100: 10,
                250: 4,
                -1: 1,
            },
            TRAFFIC.latency_ms,
        ]
    )
    assert latencies == {(ROUTE, TRAFFIC.target): both}


def test_a_day_keeps_its_sum_when_its_minutes_are_deleted(recorded: Recorded) -> None:
    old = [replace(TRAFFIC, minute=TRAFFIC.minute - n * DAY) for n in range(3)]
    recorded.write(old)
    boundary = TRAFFIC.minute - DAY
    with recorded.store.write() as tx:
        assert Observations(tx).forget_traffic(boundary) == 1

    with recorded.store.read() as tx:
        read = Observations(tx)
        assert read.totals(since=EVER) == totals_of(old)
        assert read.totals(since=boundary) == totals_of(old[:2])
        assert len(read.traffic(since=EVER)) == 2


@given(since=moments, until=moments)
def test_a_window_is_split_into_parts_that_follow_one_another(
    since: datetime, until: datetime
) -> None:
    spans = split_window(since, until)
    if since >= until:
        assert spans == []
        return
    assert spans[0].begin == since
    assert spans[-1].end == until
    assert all(one.end == other.begin for one, other in pairwise(spans))
    for span in spans:
        whole = {
            "traffic": MINUTE,
            "traffic_hour": HOUR,
            "traffic_day": DAY,
        }[span.table.name]
        if span.table.name != "traffic":
            assert not (span.begin - EVER) % whole
            assert not (span.end - EVER) % whole
    left = [span.end - span.begin for span in spans if span.table.name == "traffic"]
    assert all(length < 2 * HOUR for length in left)
