import json
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.app.store.router_store import RouterStore
from harness.app.store.store import Store
from harness.frame.alerts.alert import Alert, AlertEvent, AlertKind
from harness.frame.alerts.records import Alerts
from harness.frame.errors import StoreUnavailable
from harness.frame.people.limits import KeySpend
from harness.gate.online.guardrails import ExposureRule
from harness.gate.online.observation import (
    KeyClaim,
    ObservationBlock,
    TrafficMinute,
)
from harness.gate.online.reading.scored_exposures import OpenBlock
from harness.gate.pins import ServedModel, Sighting
from harness.routing.records.observations import Observations
from harness.routing.records.router_reports import REPORT_EVERY_S, RouterReport
from harness.routing.reliability.failover import Failover
from harness.routing.shadow import ShadowTally
from harness.routing.table import Arm, Canary
from router.recording.ledger import Ledger
from router.recording.recorder import MAX_BATCHES_TOGETHER, Recorder
from router.recording.spool import (
    Batch,
    Spool,
    batch_from_json,
    batch_to_json,
)
from router.recording.sums import (
    CompletedRequest,
    Sums,
    minute_rows,
    sum_rows,
)
from tests.support.canary.outcomes import outcome_of
from tests.support.control.manual_clock import ManualClock
from tests.support.router.live_router import SwitchableStore, snapshot
from tests.support.site.signing_keys import CONTROL

DAY = date(2026, 3, 31)
CANARY = Canary("t", 100, "s", "r-1", ExposureRule(block_size=2))
KEYED = ExposureRule(block_size=2, missing_s=100.0, ledger_salt="ledger_a")
CARRIED = replace(CANARY, unit_rule=KEYED)
DONE = CompletedRequest(
    route="support",
    arm="canary",
    target="t",
    revision=3,
    stream=False,
    failed=False,
    charged=False,
    latency_ms=40.0,
    input_tokens=7,
    output_tokens=5,
    cost_usd=0.5,
)
moments = st.datetimes(min_value=datetime(2000, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
counts = st.integers(0, 1000)
blocks = st.builds(
    ObservationBlock,
    st.text(),
    st.text(),
    counts,
    counts,
    counts,
    counts,
    counts,
    counts,
    counts,
    moments,
    moments,
)
traffic = st.builds(
    TrafficMinute,
    st.text(),
    moments,
    st.text(),
    st.text(),
    st.text(),
    counts,
    counts,
    counts,
    counts,
    counts,
    counts,
    counts,
    st.floats(0, 1e6),
    st.dictionaries(st.integers(-1, 10_000), counts),
)


class Bench:
    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int = 8_000_000,
        queue_rows: int = 4,
        worker: str = "w",
        store: SwitchableStore | None = None,
    ) -> None:
        self.callers = 0
        self.store = store or SwitchableStore(snapshot("http://127.0.0.1:1/v1"))
        self.clock = ManualClock()
        self.live = frozenset({"r-1"})
        self.spool = Spool(folder / "spool.jsonl", max_bytes=max_bytes)
        self.recorder = Recorder(
            cast("RouterStore", self.store),
            self.spool,
            worker=worker,
            clock=self.clock,
            live_rollouts=lambda: self.live,
            queue_rows=queue_rows,
        )

    def request(
        self,
        *,
        failed: bool = False,
        key: str = "",
        canary: Canary = CANARY,
    ) -> None:
        """Records a request of the canary.

        Args:
            key: of a caller who was not here before, unless it is given.
        """
        self.callers += 1
        key = key or f"caller {self.callers}"
        ticket = self.recorder.admit(canary, Arm.CANARY, key)
        outcome = outcome_of(failed=failed)
        self.recorder.finish(ticket, DONE._replace(charged=failed), outcome=outcome)

    @property
    def stored(self) -> tuple[int, int]:
        units = sum(block.units for block in self.store.blocks.values())
        return units, sum(row.requests for row in self.store.traffic)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.mark.req("F5")
def test_a_router_reports_that_it_serves_until_it_ends(bench: Bench) -> None:
    reports = bench.store.router_reports
    bench.recorder.serves = lambda: False
    bench.recorder.flush()
    assert reports == {}

    bench.recorder.serves = lambda: True
    began_at = bench.clock.now()
    for passed_s in (0, 1, REPORT_EVERY_S):
        bench.clock.advance(passed_s)
        bench.recorder.flush()
    last_at = began_at + timedelta(seconds=1 + REPORT_EVERY_S)
    assert reports == {"w": RouterReport("w", began_at, last_at)}

    bench.store.away = True
    bench.clock.advance(REPORT_EVERY_S)
    bench.recorder.flush()
    bench.store.away = False
    bench.recorder.flush(final=True)
    assert reports == {}


def test_blocks_and_minutes_are_stored_when_they_are_complete(bench: Bench) -> None:
    for failed in (False, True, False):
        bench.request(failed=failed)

    bench.recorder.flush()

    assert bench.stored == (2, 3)
    (block,) = bench.store.blocks.values()
    assert (block.failures, block.canary_failures, block.worker) == (
        1,
        1,
        "w",
    )
    (row,) = bench.store.traffic
    assert (row.charged, row.input_tokens, row.output_tokens) == (1, 21, 15)
    assert (row.cost_usd, row.latency_ms) == (1.5, {50: 3})
    ended = [DONE, DONE._replace(priced=False)]
    (row,) = minute_rows(
        ended,
        bench.clock.now(),
        "w",
    )
    assert (row.requests, row.unpriced) == (2, 1)


def spooled(
    bench: Bench,
    batches: int,
    *,
    requests: int = 2,
) -> None:
    bench.store.away = True
    for _ in range(batches):
        for _ in range(requests):
            bench.request()
        bench.recorder.flush()
    assert bench.stored == (0, 0)
    bench.store.away = False


@pytest.mark.req("F3")
def test_with_the_database_away_nothing_is_lost_or_counts_twice_and_few_transactions_follow(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = 0
    write = bench.store.write

    def counted() -> AbstractContextManager[SimpleNamespace]:
        nonlocal begun
        begun += 1
        return write()

    batches = MAX_BATCHES_TOGETHER * 2 + 1
    spooled(bench, batches)
    bench.request()
    monkeypatch.setattr(bench.store, "write", counted)
    bench.recorder.flush()
    assert begun <= 5  # the last one reports that the router serves
    bench.recorder.flush()

    assert bench.stored == (batches * 2, batches * 2 + 1)
    assert bench.spool.empty
    sequences = [block.sequence for block in bench.store.blocks.values()]
    assert sequences == [*range(1, batches + 1)]


def test_of_a_spool_only_the_batch_that_is_refused_is_set_aside(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    spooled(bench, 5)
    append = bench.store._append
    interruptions = iter([True])

    def picky(blocks: Sequence[ObservationBlock], *rest: Any) -> None:
        if any(block.sequence == 3 for block in blocks):
            raise ValueError("no such rollout (test)")
        if any(block.sequence == 4 for block in blocks) and next(interruptions, False):
            raise StoreUnavailable("away after the refused batch (test)")
        append(blocks, *rest)

    monkeypatch.setattr(bench.store, "_append", picky)
    bench.recorder.flush()
    bench.recorder.flush()

    assert [block.sequence for block in bench.store.blocks.values()] == [1, 2, 4, 5]
    assert bench.recorder.counters["rows_refused"] == 2  # the block, and its minute
    (refused,) = Spool(bench.spool.file.with_suffix(".refused")).batches()
    assert [block.sequence for block in refused.blocks] == [3]
    assert bench.spool.empty


def test_money_is_never_dropped(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "full", max_bytes=0)
    bench.store.away = True
    for _ in range(50):
        bench.recorder.finish(None, DONE._replace(key="k"))
        bench.recorder.flush()
    assert bench.recorder.counters["rows_dropped"] > 0

    bench.store.away = False
    bench.recorder.flush()

    assert {row.key for row in bench.store.spends} == {"k"}
    assert sum(row.requests for row in bench.store.spends) == 50
    assert sum(row.cost_usd for row in bench.store.spends) == 25.0


@pytest.mark.req("B5", "B9", "F6")
def test_all_else_waits_for_the_database_and_is_written_with_what_other_processes_tell(
    bench: Bench,
) -> None:
    at = bench.clock.now()
    alert = Alert(AlertKind.BREAKER_OPEN, "s", "k", "t", "x", at, "w")
    row = Failover(
        "w",
        1,
        at,
        "req",
        "support",
        "incumbent",
        "up/m",
        "up",
        "timeout",
        None,
        1,
        5.0,
        "chat",
        stream=False,
        body_bytes=2,
        messages=1,
        tools=0,
        user_hash="h",
        next_target=None,
    )
    bench.store.away = True
    bench.recorder.notify(alert)
    bench.recorder.failed_over([row])
    bench.recorder.finish(None, DONE._replace(key="k"))
    for model in ("new", "newer"):
        bench.recorder.served_names.note("t", model)
        bench.recorder.flush()
    assert not bench.spool.empty

    bench.store.away = False
    spent = KeySpend("k", DAY, "another", 3, 30, 1.5, 0)
    seen = Sighting("t", ServedModel("newest"), at, at)
    bench.recorder.absorb(Batch((), (), spends=[spent]))
    bench.recorder.absorb(
        Batch(
            (),
            (),
            spends=[spent],
            sightings=[seen],
        )
    )
    bench.recorder.flush()

    assert (bench.store.alerts, bench.store.failovers) == ([alert], [row])
    assert sorted((row.worker, row.cost_usd) for row in bench.store.spends) == [
        ("another", 3.0),
        ("w", 0.5),
    ]
    models = [sighting.served.model for sighting in bench.store.sightings]
    assert models == ["new", "newer", "newest"]


class Killed(BaseException):
    """The process dies here."""


@given(st.lists(traffic, max_size=6))
def test_summed_minutes_count_what_their_rows_count_whatever_the_buckets(
    rows: list[TrafficMinute],
) -> None:
    again = [replace(row, requests=1, latency_ms={7: 1}) for row in rows]
    summed = sum_rows(
        "traffic",
        [
            *rows,
            *again,
            *rows,
        ],
    )

    keys = ("route", "minute", "worker", "arm", "target", "revision")
    assert len(summed) == len({tuple(getattr(row, key) for key in keys) for row in rows})
    for name in (
        "requests",
        "failed",
        "charged",
        "streams",
        "input_tokens",
        "unpriced",
    ):
        everything = sum(
            getattr(row, name)
            for row in [
                *rows,
                *again,
                *rows,
            ]
        )
        assert sum(getattr(row, name) for row in summed) == everything
    counted = sum(sum(row.latency_ms.values()) for row in summed)
    assert counted == sum(2 * sum(row.latency_ms.values()) + 1 for row in rows)


@pytest.mark.req("F3")
def test_a_kill_in_mid_replay_counts_nothing_twice(
    bench: Bench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spooled(bench, 5, requests=1)
    write = bench.recorder._write

    def die_after_the_second(*batches: Batch) -> None:
        if bench.stored[1] == 4:
            raise Killed
        write(*batches)

    monkeypatch.setattr("router.recording.recorder.MAX_BATCHES_TOGETHER", 2)
    with monkeypatch.context() as patched:
        patched.setattr(bench.recorder, "_write", die_after_the_second)
        with pytest.raises(Killed):
            bench.recorder.flush()
    assert bench.stored[1] == 4
    # All come again, and the database knows those that it has.
    restarted = Bench(tmp_path, store=bench.store)
    restarted.recorder.flush()

    assert bench.stored[1] == 5
    assert restarted.spool.empty


def test_a_spool_that_another_process_replays_waits_and_loses_nothing(
    bench: Bench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("router.recording.spool.LOCK_S", 0.05)
    bench.store.away = True
    bench.request()
    with Spool(tmp_path / "spool.jsonl").lock():
        bench.recorder.flush()
    assert bench.spool.empty

    bench.store.away = False
    bench.recorder.flush()

    assert bench.stored[1] == 1


def test_a_spool_that_the_disk_keeps_is_written_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    spooled(bench, 3, requests=1)

    def read_only(path: Path) -> None:
        raise OSError(30, "Read-only file system", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", read_only)
        for _ in range(5):
            bench.recorder.flush()
    assert not bench.spool.empty
    bench.recorder.flush()

    assert bench.stored[1] == 3
    assert bench.spool.empty


def test_past_the_spools_cap_the_oldest_rows_are_dropped_and_counted(tmp_path: Path) -> None:
    bench = Bench(tmp_path, max_bytes=10, queue_rows=4)
    bench.store.away = True
    for _ in range(6):
        bench.clock.advance(60)
        bench.request()
        bench.request()
        bench.recorder.flush()

    bench.store.away = False
    bench.recorder.flush()

    dropped = bench.recorder.counters["rows_dropped"]
    assert dropped == 8
    assert len(bench.store.blocks) + len(bench.store.traffic) == 12 - dropped


def test_a_database_that_never_answers_does_not_hold_the_end_up_nor_lose_a_row(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.recording.recorder.STOP_S", 0.1)
    begun = threading.Event()
    answer = threading.Event()

    def hang(*_: object) -> None:
        begun.set()
        answer.wait()

    bench.recorder._flush_interval_s = 0.01
    bench.request()
    with monkeypatch.context() as patched:
        patched.setattr(bench.store, "_append", hang)
        bench.recorder.start()
        assert begun.wait(60)
        bench.request()
        bench.recorder.stop()
        rows = list(bench.spool.batches())
        answer.set()
        bench.recorder._thread.join()

    assert sum(row.requests for batch in rows for row in batch.traffic) == 2


def test_what_neither_database_nor_disk_took_is_told_at_the_end(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.spool.file.mkdir()
    bench.store.away = True
    bench.request()

    bench.recorder.stop()

    assert "2 rows of observations are lost" in caplog.text


def test_a_rollout_that_is_over_is_forgotten_once_its_blocks_are_out(bench: Bench) -> None:
    bench.request()
    bench.live = frozenset()
    bench.recorder.flush()
    assert bench.recorder._ledgers

    bench.clock.advance(61)
    bench.recorder.flush()

    assert not bench.recorder._ledgers
    assert bench.stored == (1, 1)


@given(
    st.builds(
        Batch,
        st.lists(blocks, max_size=3),
        st.lists(traffic, max_size=3),
        st.lists(
            st.builds(Failover, at=moments, latency_ms=st.floats(0, 1e6)),
            max_size=2,
        ),
        st.lists(st.builds(Alert, at=moments), max_size=2),
        st.lists(st.builds(KeySpend, cost_usd=st.floats(0, 1e6)), max_size=2),
        st.lists(
            st.builds(Sighting, first_at=moments, last_at=moments),
            max_size=2,
        ),
        st.lists(
            st.builds(
                ShadowTally,
                counts=st.dictionaries(st.text(), st.integers(0, 10**9)),
                sums=st.dictionaries(st.text(), st.floats(0, 1e9)),
            ),
            max_size=2,
        ),
    )
)
def test_a_batch_comes_back_from_the_spool_as_it_was(batch: Batch) -> None:
    assert batch_from_json(json.loads(json.dumps(batch_to_json(batch)))) == batch


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),
            st.sampled_from(["support", "other"]),
            st.floats(0.0, 100_000.0),
            st.booleans(),
        )
    )
)
def test_minutes_that_several_processes_added_up_merge_to_those_of_one(
    ended: list[tuple[int, str, float, bool]],
) -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    merged, alone = (Sums[TrafficMinute]("traffic") for _ in range(2))
    for _, route, ms, failed in ended:
        alone.add(
            minute_rows(
                [DONE._replace(route=route, latency_ms=ms, failed=failed)],
                at,
                "w",
            )
        )
    for worker in range(3):
        own = [
            DONE._replace(route=route, latency_ms=ms, failed=failed)
            for number, route, ms, failed in ended
            if number == worker
        ]
        merged.add(minute_rows(own, at, "w"))

    def by_route(rows: list[TrafficMinute]) -> list[TrafficMinute]:
        return sorted(rows, key=lambda row: row.route)

    assert by_route(merged.take()) == by_route(alone.take())


@pytest.mark.req("B9")
def test_a_full_spool_is_told_of_once_and_its_end_too(tmp_path: Path) -> None:
    bench = Bench(tmp_path, max_bytes=10)
    spooled(bench, 6, requests=1)
    bench.recorder.flush()
    bench.recorder.flush()

    told = {(alert.kind, alert.news) for alert in bench.store.alerts}
    kinds = (AlertKind.SPOOL_FULL, AlertKind.OBSERVATIONS_DROPPED)
    assert told == {
        (kind, news) for kind in kinds for news in (AlertEvent.RAISED, AlertEvent.ENDED)
    }
    assert len(bench.store.alerts) == 4


def test_an_alert_that_is_refused_takes_no_observation_with_it(
    tmp_path: Path, sqlite_url: str
) -> None:
    clock = ManualClock()
    store = Store(
        sqlite_url,
        secret=b"s",
        clock=clock,
        signatures=CONTROL,
    )
    recorder = Recorder(
        RouterStore(store),
        Spool(tmp_path / "spool"),
        worker="w",
        clock=clock,
    )
    recorder.finish(None, DONE)
    without_zone = clock.now().replace(tzinfo=None)
    recorder.notify(Alert(AlertKind.TEST, "s", "k", "t", "x", without_zone, "w"))

    recorder.flush()

    with store.read() as tx:
        (row,) = Observations(tx).traffic(since=clock.now() - timedelta(days=1))
        assert Alerts(tx).list() == []
    store.close()
    assert row.requests == 1
    assert recorder.counters["rows_refused"] == 1


@pytest.mark.req("F3")
def test_a_caller_counts_once_for_two_routers_and_after_a_restart(tmp_path: Path) -> None:
    first = Bench(tmp_path / "first", worker="w1")
    second = Bench(tmp_path / "second", worker="w2", store=first.store)
    for key in "ab":
        first.request(key=key, canary=CARRIED)
    first.recorder.flush()
    for key in "bc":
        second.request(key=key, canary=CARRIED, failed=True)
    second.recorder.flush()
    again = Bench(tmp_path / "again", worker="w3", store=first.store)
    for key in "ac":
        again.request(key=key, canary=CARRIED, failed=True)
    again.recorder.flush(final=True)

    blocks = list(first.store.blocks.values())
    assert [(block.worker, block.units, block.failures) for block in blocks] == [
        ("w1", 2, 0),
        ("w2", 1, 1),
    ]
    assert all(block.of_new_keys == block for block in blocks)
    assert again.recorder.counters["units_counted_elsewhere"] == 2


@pytest.mark.req("F3")
def test_a_flush_without_a_database_computes_no_more_than_one_transaction_would_ask(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = list[OpenBlock]()

    class Counting(Ledger):
        def claim_of(self, block: OpenBlock) -> KeyClaim:
            computed.append(block)
            return super().claim_of(block)

    monkeypatch.setattr("router.recording.recorder.Ledger", Counting)
    bench.store.away = True
    for number in range(400):
        bench.request(key=f"caller {number}", canary=CARRIED)
    bench.recorder.flush()
    assert 0 < len(computed) <= 50
    assert bench.recorder.counters["claims_failed"] == 1

    bench.store.away = False
    bench.recorder.flush()
    assert sum(block.units for block in bench.store.blocks.values()) == 400
    assert all(block.of_new_keys == block for block in bench.store.blocks.values())


@pytest.mark.req("F3")
def test_callers_counted_while_the_database_was_away_are_not_new_on_a_later_day(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path / "first")
    began_s = bench.clock.now().timestamp()
    canary = replace(CARRIED, unit_rule=replace(KEYED, began_s=began_s))
    bench.store.away = True
    for key in "ab":
        bench.request(key=key, canary=canary)
    bench.clock.advance(100)
    bench.recorder.flush()  # longer than a block waits: it counts without the ledger
    bench.store.away = False
    bench.recorder.flush()
    again = Bench(tmp_path / "again", worker="w2", store=bench.store)
    again.clock.advance(86_400)
    for key in "ab":
        again.request(key=key, canary=canary)
    again.recorder.flush()

    without, back = bench.store.blocks.values()
    assert (without.period, without.units, without.never_seen) == (1, 2, None)
    assert (back.period, back.units, back.of_new_keys) == (2, 2, None)
    assert bench.recorder.counters["units_counted_elsewhere"] == 0


@pytest.mark.req("F3")
def test_claims_of_one_rollout_that_are_refused_do_not_hold_up_anothers(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    claim_keys = bench.store._claim_keys

    def refuse(claim: KeyClaim) -> object:
        if claim.rollout == "r-0":
            raise ValueError("a page of r-0 is broken")
        return claim_keys(claim)

    monkeypatch.setattr(bench.store, "_claim_keys", refuse)
    for key in "abcd":
        bench.request(key=key, canary=replace(CARRIED, rollout="r-0"))
        bench.request(key=key, canary=CARRIED)
    bench.recorder.flush()
    assert [block.rollout for block in bench.store.blocks.values()] == [
        "r-1",
        "r-1",
    ]
    assert bench.recorder.counters["claims_failed"] == 1

    bench.recorder.flush()
    assert bench.recorder.counters["claims_failed"] == 2
    assert caplog.text.count("the store refused the claims") == 1

    monkeypatch.undo()
    bench.recorder.flush()
    (*_, late) = bench.store.blocks.values()
    assert (late.rollout, late.units, late.of_new_keys) == ("r-0", 2, late)
