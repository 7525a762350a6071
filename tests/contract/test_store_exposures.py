import math
import re
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
import sqlalchemy as sa

from harness.app.store import migrate, views
from harness.app.store.store import Store
from harness.frame.records.transaction import RowRefused
from harness.gate.online.exposures import (
    KEPT,
    SEGMENTS_FROM,
    THINNED,
    EventKind,
    Exposure,
    ExposureCount,
    ExposureEvent,
)
from harness.gate.online.observation import SEGMENTS, Segment
from harness.gate.online.outcome import JudgeOutcome, OutcomeKind, OutcomeReason
from harness.gate.online.reading.scored_exposures import RequestTraits
from harness.gate.online.rollout import RolloutState, name_first_callers
from harness.routing.records import exposures as records
from harness.routing.records.exposures import Exposures
from harness.routing.records.proposals import Rollouts
from harness.routing.records.router_reports import RouterReport, RouterReports
from tests.contract.conftest import Opener
from tests.support.store import raw_rows
from tests.support.store.records import NOW, rollout, seeded
from tests.support.store.tampering import written

pytestmark = [pytest.mark.req("F2", "F3"), pytest.mark.both_databases]

PAGE: Final = Path(__file__).parents[2] / "docs/reference/database.md"
SECOND: Final = timedelta(seconds=1)
EXPOSURE: Final = Exposure(
    rollout="ro_1",
    number=0,
    worker="w",
    ticket=1,
    period=1,
    caller=2**63 - 1,
    sample=9_999,
    canary=True,
    weight_bps=100,
    admitted_at=NOW,
    traits=65,
    client="k_1",
)
ENDED: Final = ExposureEvent(
    "ro_1", 0, "w", 1, EventKind.ENDED, NOW + SECOND, NOW + SECOND, OutcomeKind.ANSWERED
)
MEASURED: Final = replace(
    ENDED,
    outcome=OutcomeKind.CUT,
    reason=OutcomeReason.PROVIDER,
    failure="timeout: read",
    waited_s=0.5,
    sent=True,
    first_output_s=0.25,
    longest_gap_s=0.125,
    served="vendor/new",
    latency_s=2.5,
    time_to_first_token_s=0.25,
    inter_token_latency_s=0.01,
    output_tokens=120.0,
    cost_usd=0.002,
    input_tokens=900,
    cached_tokens=100,
    cache_worth_usd=-0.001,
    cache_saved_s=0.1,
    opening_s=0.0,
    bounded=False,
    faults=9,
    text_hash=2**48 - 1,
    text_length=400,
    question_hash=3,
)
TURN: Final = replace(ENDED, kind=EventKind.TURN, began_at=NOW)
FEEDBACK: Final = replace(ENDED, kind=EventKind.FEEDBACK, outcome=None, bad=True)
JUDGED: Final = replace(
    FEEDBACK, kind=EventKind.JUDGED, bad=None, verdict=JudgeOutcome.GOOD, judge_usd=0.001
)
COUNT: Final = ExposureCount(
    rollout="ro_1",
    minute=NOW,
    worker="w",
    weight_bps=100,
    canary=False,
    reason=KEPT,
    requests=3,
)


def append(
    store: Store,
    exposures: Iterable[Exposure] = (),
    events: Iterable[ExposureEvent] = (),
) -> None:
    with store.write() as tx:
        Exposures(tx).append([*exposures], [*events])


def test_rows_come_back_in_order_of_arrival_with_all_that_they_hold(store: Store) -> None:
    other = replace(EXPOSURE, rollout="ro_2", client="")
    unknown = replace(ENDED, rollout="ro_2", outcome=OutcomeKind.LEFT)
    append(store, [EXPOSURE, other], [MEASURED, unknown, JUDGED])
    append(store, [replace(EXPOSURE, ticket=2)], [TURN])
    append(store, [], [FEEDBACK])

    with store.read() as tx:
        rows = Exposures(tx)
        assert rows.exposures("ro_1") == [
            replace(EXPOSURE, number=1),
            replace(EXPOSURE, number=4, ticket=2),
        ]
        assert rows.events("ro_1") == [
            replace(MEASURED, number=2),
            replace(JUDGED, number=3),
            replace(TURN, number=5),
            replace(FEEDBACK, number=6),
        ]
        assert rows.exposures("ro_1", after=1) == [replace(EXPOSURE, number=4, ticket=2)]
        assert [event.number for event in rows.events("ro_1", after=3)] == [5, 6]
        assert rows.exposures("ro_2") == [replace(other, number=1)]
        assert rows.events("ro_2") == [replace(unknown, number=2)]
        assert [rows.last_number(of) for of in ("ro_1", "ro_2", "ro_3")] == [6, 2, 0]


def test_an_unknown_value_is_null_in_the_database(store: Store) -> None:
    append(store, [replace(EXPOSURE, client="")], [ENDED])

    known = {"rollout", "number", "worker", "ticket", "kind", "at", "began_at", "outcome"}
    with written(store) as db:
        event = dict(db.execute(sa.text("SELECT * FROM exposure_event")).one()._mapping)
        client = db.execute(sa.text("SELECT client FROM exposure")).scalar_one()
    assert client is None
    assert {name for name, value in event.items() if value is not None} == known


def test_requests_add_up_by_their_key(store: Store) -> None:
    thinned = replace(COUNT, reason=THINNED, requests=10)
    for counts in ([COUNT, thinned], [thinned, COUNT, replace(COUNT, canary=True)], []):
        with store.write() as tx:
            Exposures(tx).add_counts(counts)

    with store.read() as tx:
        assert Exposures(tx).counts("ro_1") == [
            replace(COUNT, requests=6),
            replace(thinned, requests=20),
            replace(COUNT, canary=True),
        ]
        assert Exposures(tx).counts("ro_2") == []


def write_with_position(store: Store, new: Exposure) -> None:
    with store.write() as tx:
        Exposures(tx).note_file("w", "router-1", 240, NOW)
        Exposures(tx).append([new], [])


def test_a_files_position_commits_with_its_rows_or_not_at_all(store: Store) -> None:
    with store.write() as tx:
        Exposures(tx).append([EXPOSURE], [])
        Exposures(tx).note_file("w", "router-1", 120, NOW)
        Exposures(tx).note_file("w2", "router-1", 7, NOW)
    with pytest.raises(RowRefused):
        write_with_position(store, replace(EXPOSURE, sample=-1))
    with store.write() as tx:
        Exposures(tx).note_file("w2", "router-2", 9, NOW + SECOND)

    with store.read() as tx:
        assert Exposures(tx).file_positions(["w2", "w", "w3"]) == {"w": 120, "w2": 9}
        assert Exposures(tx).file_positions([]) == {}
        assert Exposures(tx).last_number("ro_1") == 1
    with store.write() as tx:
        Exposures(tx).forget_files(["w"])
        Exposures(tx).forget_files([])
        assert Exposures(tx).file_positions(["w", "w2"]) == {"w2": 9}
        assert Exposures(tx).forget_files_before(NOW + SECOND) == 0
        assert Exposures(tx).forget_files_before(NOW + 2 * SECOND) == 1


def test_writers_at_once_get_numbers_without_gaps_in_the_order_of_their_commits(
    sql_stores: Opener,
) -> None:
    """A reader that goes on from the highest number that it has seen misses no row."""
    writers = 4
    batches = 12
    rollouts = ("ro_1", "ro_2")
    stores = [sql_stores() for _ in range(writers)]
    reader = sql_stores()
    start = threading.Barrier(writers + 1)
    done = threading.Event()

    def write(writer: int) -> None:
        start.wait()
        for batch in range(batches):
            # The writers name the rollouts in different orders.
            of = rollouts if (writer + batch) % 2 else rollouts[::-1]
            new = [replace(EXPOSURE, rollout=name, worker=f"w{writer}") for name in of]
            ends = [replace(ENDED, rollout=name, worker=f"w{writer}") for name in of]
            append(stores[writer], new, ends)

    def read() -> dict[str, list[int]]:
        start.wait()
        seen: dict[str, list[int]] = {name: [] for name in rollouts}
        is_last = False
        while not is_last:
            is_last = done.is_set()
            with reader.read() as tx:
                for name, numbers in seen.items():
                    after = numbers[-1] if numbers else 0
                    rows: list[Exposure | ExposureEvent] = [
                        *Exposures(tx).exposures(name, after),
                        *Exposures(tx).events(name, after),
                    ]
                    numbers.extend(sorted(row.number for row in rows))
        return seen

    with ThreadPoolExecutor(writers + 1) as pool:
        reading = pool.submit(read)
        writing = [pool.submit(write, writer) for writer in range(writers)]
        try:
            for future in writing:
                future.result()
        finally:
            done.set()
        seen = reading.result()

    expected = [*range(1, 2 * writers * batches + 1)]
    assert seen == {"ro_1": expected, "ro_2": expected}


def test_a_writer_waits_for_the_numbers_of_an_earlier_writer(postgres_stores: Opener) -> None:
    first = postgres_stores()
    second = postgres_stores()
    with ThreadPoolExecutor(1) as pool:
        with first.write() as tx:
            Exposures(tx).append([EXPOSURE], [])
            waiting = pool.submit(append, second, [replace(EXPOSURE, worker="w2")])
            _wait_for_lock(tx.db)
            assert not waiting.done()
        waiting.result()

    with first.read() as tx:
        stored = Exposures(tx).exposures("ro_1")
    assert [(row.number, row.worker) for row in stored] == [(1, "w"), (2, "w2")]


def _wait_for_lock(db: sa.Connection) -> None:
    query = sa.text(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    # A transaction sees one state of the activity, unless it drops it.
    while not db.execute(query).scalar_one():
        db.execute(sa.text("SELECT pg_stat_clear_snapshot()"))


def test_a_refused_batch_takes_no_number(store: Store) -> None:
    append(store, [EXPOSURE])
    with pytest.raises(RowRefused):
        append(store, [EXPOSURE, replace(EXPOSURE, weight_bps=10_001)])
    append(store, [EXPOSURE])

    with store.read() as tx:
        assert [row.number for row in Exposures(tx).exposures("ro_1")] == [1, 2]


FORGED: Final[tuple[tuple[Any, dict[str, Any]], ...]] = (
    (EXPOSURE, {"rollout": " "}),
    (EXPOSURE, {"worker": ""}),
    (EXPOSURE, {"ticket": 0}),
    (EXPOSURE, {"period": 0}),
    (EXPOSURE, {"caller": -1}),
    (EXPOSURE, {"sample": 10_000}),
    (EXPOSURE, {"weight_bps": -1}),
    (EXPOSURE, {"traits": -1}),
    (ENDED, {"worker": " "}),
    (ENDED, {"ticket": 0}),
    (ENDED, {"outcome": None}),
    (ENDED, {"outcome": None, "reason": OutcomeReason.RATE}),
    (ENDED, {"bad": False}),
    (ENDED, {"verdict": JudgeOutcome.BAD}),
    (ENDED, {"judge_usd": 0.1}),
    (ENDED, {"cost_usd": math.inf}),
    (ENDED, {"cost_usd": -0.1}),
    (ENDED, {"latency_s": -0.1}),
    (ENDED, {"waited_s": math.inf}),
    (ENDED, {"cache_worth_usd": -math.inf}),
    (ENDED, {"cached_tokens": -1}),
    (ENDED, {"faults": -1}),
    (TURN, {"outcome": None}),
    (FEEDBACK, {"bad": None}),
    (FEEDBACK, {"outcome": OutcomeKind.ANSWERED}),
    (FEEDBACK, {"reason": OutcomeReason.FEEDBACK}),
    (FEEDBACK, {"ticket": 0}),
    (JUDGED, {"verdict": None, "judge_usd": None}),
    (JUDGED, {"bad": True}),
    (JUDGED, {"ticket": -1}),
)


def test_a_row_that_makes_no_sense_is_refused(store: Store) -> None:
    accepted = []
    for row, changes in FORGED:
        forged = replace(row, **changes)
        is_exposure = isinstance(row, Exposure)
        try:
            append(store, [forged] if is_exposure else [], [] if is_exposure else [forged])
        except RowRefused:
            continue
        accepted.append(forged)
    assert accepted == []
    append(store, [EXPOSURE], [ENDED, MEASURED, TURN, FEEDBACK, JUDGED])
    append(store, [], [replace(JUDGED, ticket=0), replace(JUDGED, verdict=None)])


NONSENSE: Final[tuple[tuple[str, raw_rows.Row], ...]] = (
    ("exposure", raw_rows.EXPOSURE | {"number": 0}),
    ("exposure", raw_rows.EXPOSURE | {"caller": None}),
    ("exposure_event", raw_rows.EXPOSURE_EVENT | {"number": 0}),
    ("exposure_event", raw_rows.EXPOSURE_EVENT | {"kind": "praised", "outcome": None}),
    ("exposure_event", raw_rows.EXPOSURE_EVENT | {"outcome": "thanked"}),
    ("exposure_event", raw_rows.EXPOSURE_EVENT | {"reason": "mood"}),
    ("exposure_event", raw_rows.EXPOSURE_EVENT | {"kind": "judged", "verdict": 3}),
    ("exposure_count", raw_rows.EXPOSURE_COUNT | {"weight_bps": 10_001}),
    ("exposure_count", raw_rows.EXPOSURE_COUNT | {"requests": -1}),
    ("exposure_arrival", {"rollout": "ro_1", "number": -1}),
    ("exposure_file", {"worker": "w", "router": "r", "bytes": -1, "at": 1}),
)


def test_raw_sql_stores_no_row_that_makes_no_sense(database_url: str) -> None:
    database = raw_rows.Database(database_url)
    assert [row for row in NONSENSE if database.takes(row)] == []
    assert database.takes(
        ("exposure", raw_rows.EXPOSURE), ("exposure_event", raw_rows.EXPOSURE_EVENT)
    )
    database.engine.dispose()


def test_sqlite_replaces_no_stored_row(sqlite_url: str) -> None:
    database = raw_rows.Database(sqlite_url)
    for table, row, column in (
        ("exposure", raw_rows.EXPOSURE, "caller"),
        ("exposure_event", raw_rows.EXPOSURE_EVENT, "ticket"),
    ):
        database.insert(table, row)
        database.insert(table, row | {column: 99}, verb="INSERT OR REPLACE")
        with database.engine.connect() as db:
            stored = db.execute(sa.text(f"SELECT {column} FROM {table}")).scalars().all()  # noqa: S608 - constants
        assert stored == [row[column]]
    database.engine.dispose()


TABLES: Final = ("exposure", "exposure_event", "exposure_count", "exposure_arrival")


@pytest.mark.parametrize(
    ("state", "bakes", "has_ended"),
    [
        (RolloutState.WAITING, False, False),
        (RolloutState.MEASURING, False, False),
        (RolloutState.PAUSED, False, False),
        (RolloutState.PROMOTED, True, False),
        (RolloutState.PROMOTED, False, True),
        (RolloutState.ROLLED_BACK, False, True),
    ],
)
@pytest.mark.parametrize("name", ["ro_1", name_first_callers("ro_1")])
def test_rows_are_deleted_only_after_the_end_of_their_rollout(
    store: Store,
    name: str,
    state: RolloutState,
    *,
    bakes: bool,
    has_ended: bool,
) -> None:
    seeded(store)
    bake_ends_at = NOW + SECOND if bakes else None
    with store.write() as tx:
        Rollouts(tx).add(rollout(state=state, bake_ends_at=bake_ends_at))
        Exposures(tx).append([replace(EXPOSURE, rollout=name)], [replace(ENDED, rollout=name)])
        Exposures(tx).add_counts([replace(COUNT, rollout=name)])

    for table in TABLES:
        refused = pytest.raises(sa.exc.IntegrityError, match="only after the end")
        with written(store) as db:
            savepoint = db.begin_nested()
            refusal = nullcontext() if has_ended else refused
            with refusal:
                assert db.exec_driver_sql(f"DELETE FROM {table}").rowcount == 1  # noqa: S608 - constants
            savepoint.rollback()
    if not has_ended:
        with pytest.raises(RowRefused, match="only after the end"), store.write() as tx:
            Exposures(tx).forget(name)


def test_rows_are_outdated_some_time_after_the_end_of_their_rollout(store: Store) -> None:
    seeded(store)
    first = name_first_callers("ro_1")
    with store.write() as tx:
        Rollouts(tx).add(rollout(state=RolloutState.ROLLED_BACK, updated_at=NOW))
        Exposures(tx).append([EXPOSURE, replace(EXPOSURE, rollout="ro_unknown")], [])
        Exposures(tx).add_counts([replace(COUNT, rollout=first)])

    with store.read() as tx:
        assert Exposures(tx).outdated(NOW) == ["ro_unknown"]
        assert Exposures(tx).outdated(NOW + SECOND) == ["ro_1", first, "ro_unknown"]


def test_rows_are_deleted_in_parts_and_leave_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "NUMBERS_PER_DELETION", 2)
    append(store, [EXPOSURE] * 3, [ENDED] * 2)
    with store.write() as tx:
        Exposures(tx).add_counts([COUNT, replace(COUNT, rollout="ro_2")])
    append(store, [replace(EXPOSURE, rollout="ro_2")])

    left = []
    has_more = True
    while has_more:
        with store.write() as tx:
            has_more = Exposures(tx).forget("ro_1")
            left.append(len([*Exposures(tx).exposures("ro_1"), *Exposures(tx).events("ro_1")]))
    assert left == [3, 1, 0]
    with store.write() as tx:
        assert not Exposures(tx).forget("ro_1")
        assert Exposures(tx).counts("ro_1") == []
        assert Exposures(tx).last_number("ro_1") == 0
        assert len(Exposures(tx).exposures("ro_2")) == len(Exposures(tx).counts("ro_2")) == 1
    append(store, [EXPOSURE])
    with store.read() as tx:
        assert [row.number for row in Exposures(tx).exposures("ro_1")] == [1]


def test_a_routers_report_says_until_when_its_rows_are_complete(store: Store) -> None:
    unknown = RouterReport("w", NOW, NOW)
    known = replace(unknown, at=NOW + SECOND, complete_until=NOW)
    for report in (unknown, known):
        with store.write() as tx:
            RouterReports(tx).keep(report)
        with store.read() as tx:
            assert RouterReports(tx).oldest(NOW) == report


def bits(traits: RequestTraits, *segments: Segment) -> int:
    flags = sum(1 << SEGMENTS.index(segment) for segment in segments)
    return int(traits) | flags << SEGMENTS_FROM


def analysed(store: Store, query: str) -> list[dict[str, Any]]:
    with written(store) as db:
        return [dict(row._mapping) for row in db.execute(sa.text(query))]


def fill_view(store: Store) -> None:
    seeded(store)
    stream = bits(RequestTraits.WORDS, Segment.STREAM, Segment.NO_TOOLS, Segment.CHAT)
    whole = bits(RequestTraits.STREAMS, Segment.WHOLE, Segment.TOOLS, Segment.RESPONSES)
    later = replace(EXPOSURE, worker="w2", admitted_at=NOW + SECOND, canary=False)
    with store.write() as tx:
        Rollouts(tx).add(rollout())
    append(
        store,
        [
            later,
            replace(EXPOSURE, traits=stream),
            replace(EXPOSURE, ticket=2, caller=2, canary=False, traits=whole, client=""),
            replace(EXPOSURE, ticket=3, caller=3, traits=0, period=2),
            replace(EXPOSURE, ticket=4, rollout=name_first_callers("ro_1")),
        ],
        [
            replace(ENDED, worker="w2"),
            MEASURED,
            TURN,
            replace(TURN, outcome=OutcomeKind.FAILED),
            replace(TURN, outcome=OutcomeKind.LEFT),
            replace(FEEDBACK, bad=False),
            FEEDBACK,
            replace(JUDGED, verdict=JudgeOutcome.NO_VERDICT),
            replace(JUDGED, verdict=JudgeOutcome.BAD),
            replace(JUDGED, ticket=0),
            replace(ENDED, ticket=2, cost_usd=0.001),
            replace(FEEDBACK, ticket=2, bad=False),
        ],
    )


def test_the_view_shows_each_callers_earliest_exposure_with_what_followed(store: Store) -> None:
    fill_view(store)
    query = "SELECT * FROM canary_exposures ORDER BY rollout, arm, period"
    candidate, still_open, incumbent, first = analysed(store, query)

    assert candidate == {
        "rollout": "ro_1",
        "route": "triage",
        "arm": "candidate",
        "period": 1,
        "admitted_at": "2026-11-20T09:30:15.123456Z",
        "weight_bps": 100,
        "client_key": "k_1",
        "endpoint": "chat",
        "is_stream": True,
        "has_tools": False,
        "outcome": "cut",
        "reason": "provider",
        "failure": "timeout: read",
        "cost_usd": 0.002,
        "latency_s": 2.5,
        "output_tokens": 120.0,
        "served_model": "vendor/new",
        "later_turns": 3,
        "later_failures": 1,
        "feedback": "bad",
        "verdict": "bad",
    }
    assert incumbent == dict.fromkeys(candidate) | {
        "rollout": "ro_1",
        "route": "triage",
        "arm": "incumbent",
        "period": 1,
        "admitted_at": "2026-11-20T09:30:15.123456Z",
        "weight_bps": 100,
        "endpoint": "responses",
        "is_stream": False,
        "has_tools": True,
        "outcome": "answered",
        "cost_usd": 0.001,
        "later_turns": 0,
        "later_failures": 0,
        "feedback": "good",
    }
    unknown = ("endpoint", "is_stream", "has_tools", "outcome", "feedback", "verdict")
    assert (still_open["period"], *map(still_open.get, unknown)) == (2, *(None,) * 6)
    assert (first["rollout"], first["route"]) == ("ro_1.first", "triage")


def test_the_page_describes_the_views_columns_and_its_query_runs(store: Store) -> None:
    fill_view(store)
    section = PAGE.read_text(encoding="utf-8").partition("## The callers of canaries\n")[2]
    section = section.partition("\n## ")[0]
    described = [
        name
        for names in re.findall(r"^\| (`.*?) \| ", section, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", names)
    ]
    columns = [column.name for column in views.select_canary_exposures().selected_columns]
    assert sorted(described) == sorted(columns)
    assert all(f"`{kind.value}`" in section for kind in OutcomeKind)

    (query,) = re.findall(r"```sql\n(.*?)```", section, re.DOTALL)
    rows = analysed(store, query.replace("'r_1'", "'ro_1'"))
    shown = [
        {name: float(n) if name == "failing" else n for name, n in row.items()} for row in rows
    ]
    assert shown == [
        {"arm": "candidate", "callers": 2, "failing": 1.0, "usd": 0.002},
        {"arm": "incumbent", "callers": 1, "failing": 0.0, "usd": 0.001},
    ]


@pytest.mark.parametrize(
    ("new", "named"),
    [
        ("", "missing"),
        ("CREATE VIEW canary_exposures AS SELECT 'candidate' AS arm", "not this version's"),
    ],
)
def test_an_upgrade_restores_the_view(database_url: str, new: str, named: str) -> None:
    database = raw_rows.Database(database_url)
    database.run("DROP VIEW canary_exposures")
    if new:
        database.run(new)
    database.engine.dispose()
    assert migrate.list_differences(database_url) == [f"the view canary_exposures is {named}"]

    migrate.upgrade(database_url)
    assert migrate.list_differences(database_url) == []
