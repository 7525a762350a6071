"""Files of exposures on their way into the database."""

from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from harness.app.store.router_store import RouterStore
from harness.app.store.store import Store
from harness.frame.errors import StoreUnavailable
from harness.gate.online.exposures import Exposure
from harness.gate.online.guardrails import ExposureRule
from harness.gate.online.outcome import ANSWERED
from harness.gate.online.reading.scored_exposures import RequestTraits
from harness.routing.records.exposures import Exposures
from harness.routing.table import Canary
from router.frame.database import RouterDatabase
from router.recording import exposure_flusher
from router.recording.exposure_flusher import ExposureFlusher
from router.recording.exposure_writer import ExposureWriter
from tests.support.control.manual_clock import ManualClock

pytestmark = [pytest.mark.req("F2", "F3"), pytest.mark.both_databases]

CANARY = Canary("t_new", 5_000, "salt", "ro_1", ExposureRule(ledger_salt="s", window_s=60.0))


class FailingStore:
    """A router's store that can fail before a commit, or lose the answer after it."""

    def __init__(self, store: Store) -> None:
        self.fails = False
        self.is_deaf = False
        self._store = RouterStore(store)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    @contextmanager
    def write(self) -> Generator[Any]:
        if self.fails:
            raise StoreUnavailable("the database is away")
        with self._store.write() as tx:
            yield tx
        if self.is_deaf:
            raise StoreUnavailable("the connection was lost in the middle of a commit")


class Machine:
    """A machine with one process that serves, and processes that flush."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.folder = folder / "exposures"
        self.clock = ManualClock()
        self.kept = store
        self.store = FailingStore(store)
        self.counters: Counter[str] = Counter()
        self.writer = ExposureWriter(self.folder, "w", self.clock)
        self.tickets = 0

    def flusher(self, name: str = "router") -> ExposureFlusher:
        return ExposureFlusher(
            self.folder,
            cast("RouterDatabase", self.store),
            self.clock,
            name,
            self.counters,
        )

    def serve(self, key: str) -> None:
        self.tickets += 1
        self.writer.admit(
            self.tickets,
            CANARY,
            key,
            candidate=True,
            traits=RequestTraits.SERVED.value,
            client="",
        )
        self.writer.finish(self.tickets, ANSWERED)
        self.writer.write()

    def stored(self) -> list[Exposure]:
        with self.kept.read() as tx:
            return list(Exposures(tx).exposures("ro_1"))

    def tickets_of_events(self) -> list[int]:
        with self.kept.read() as tx:
            return [event.ticket for event in Exposures(tx).events("ro_1")]


@pytest.fixture
def machine(tmp_path: Path, store: Store) -> Machine:
    return Machine(tmp_path, store)


@pytest.fixture
def flusher(machine: Machine) -> Iterator[ExposureFlusher]:
    made = machine.flusher()
    yield made
    made.close()


def test_rows_are_stored_once_over_several_flushes(
    machine: Machine, flusher: ExposureFlusher
) -> None:
    for number in range(4):
        machine.serve(f"user:{number}")
        if number % 2:
            flusher.flush()
    flusher.flush()

    assert [row.ticket for row in machine.stored()] == [1, 2, 3, 4]
    assert machine.tickets_of_events() == [1, 2, 3, 4]
    assert machine.counters["exposure_rows_written"] == 8


def test_rows_wait_in_the_file_while_the_database_is_away(
    machine: Machine, flusher: ExposureFlusher
) -> None:
    machine.serve("ada")
    flusher.flush()
    machine.store.fails = True
    for number in range(20):
        machine.serve(f"user:{number}")
        with pytest.raises(StoreUnavailable):
            flusher.flush()
    machine.store.fails = False
    flusher.flush()

    assert [row.ticket for row in machine.stored()] == list(range(1, 22))


def test_a_commit_without_an_answer_stores_no_row_twice(machine: Machine) -> None:
    flusher = machine.flusher()
    machine.serve("ada")
    machine.store.is_deaf = True
    with pytest.raises(StoreUnavailable):
        flusher.flush()
    machine.store.is_deaf = False
    machine.serve("eve")
    flusher.flush()
    flusher.close()

    assert [row.ticket for row in machine.stored()] == [1, 2]
    assert machine.tickets_of_events() == [1, 2]


def test_the_next_process_goes_on_where_a_killed_one_stopped(machine: Machine) -> None:
    first = machine.flusher()
    machine.serve("ada")
    first.flush()
    machine.serve("eve")
    first.close()  # as the kernel does for a killed process
    second = machine.flusher("the next")
    second.flush()
    second.close()

    assert [row.ticket for row in machine.stored()] == [1, 2]


def test_only_one_process_of_a_machine_flushes_and_tells_the_others_how_far(
    machine: Machine, flusher: ExposureFlusher
) -> None:
    other = machine.flusher("other")
    machine.serve("ada")
    until = flusher.flush()

    assert other.flush() == until is not None
    assert len(machine.stored()) == 1
    flusher.close()
    machine.serve("eve")
    other.flush()
    other.close()
    assert len(machine.stored()) == 2


def test_a_complete_file_is_deleted_once_the_database_has_it(
    machine: Machine, flusher: ExposureFlusher
) -> None:
    machine.serve("ada")
    flusher.flush()
    assert len(list(machine.folder.glob("w.*"))) == 1
    machine.writer.close()
    machine.store.fails = True
    with pytest.raises(StoreUnavailable):
        flusher.flush()
    machine.store.fails = False
    flusher.flush()

    assert not list(machine.folder.glob("w.*"))
    assert len(machine.stored()) == 1
    with machine.kept.read() as tx:
        assert Exposures(tx).file_positions(["w.000001"]) == {}


def test_a_file_that_ends_in_half_a_line_keeps_its_other_rows(
    machine: Machine, flusher: ExposureFlusher
) -> None:
    machine.serve("ada")
    machine.writer.close()
    (path,) = machine.folder.glob("w.*")
    with path.open("ab") as file:
        file.write(b'["x",0,2')  # the machine lost its power
    flusher.flush()

    assert [row.ticket for row in machine.stored()] == [1]
    assert not path.exists()


def test_a_row_that_the_database_refuses_is_counted_and_delays_no_other(
    machine: Machine, flusher: ExposureFlusher
) -> None:
    machine.serve("ada")
    machine.writer.close()
    (path,) = machine.folder.glob("w.*")
    lines = path.read_bytes().splitlines(keepends=True)
    bad = next(line for line in lines if line.startswith(b'["x"'))
    refused = bad.replace(b",5000,", b",50000,")
    assert refused != bad
    path.write_bytes(b"".join([*lines[:-1], refused, b"no line\n", b'["?"]\n', lines[-1]]))
    flusher.flush()

    assert len(machine.stored()) == 1
    assert machine.tickets_of_events() == [1]
    assert machine.counters["exposure_rows_refused"] == 3


def test_everything_until_the_time_that_a_flush_returns_is_stored(
    machine: Machine, flusher: ExposureFlusher
) -> None:
    machine.serve("ada")
    machine.clock.advance(5.0)
    machine.writer.write()
    written_at = machine.clock.now()
    first = flusher.flush()
    ahead = database_is_ahead(machine)
    machine.clock.advance(9.0)  # the process hangs, and does not write its time
    second = flusher.flush()

    (row,) = machine.stored()
    for until in (first, second):
        assert until is not None
        assert row.admitted_at <= until <= written_at + ahead + timedelta(seconds=1)


def test_a_router_whose_clock_is_wrong_stores_the_times_of_the_database(
    machine: Machine, flusher: ExposureFlusher
) -> None:
    machine.serve("ada")
    ahead = database_is_ahead(machine)
    flusher.flush()

    (row,) = machine.stored()
    difference = row.admitted_at - (machine.clock.now() + ahead)
    assert abs(difference) < timedelta(seconds=30)
    assert (row.admitted_at == machine.clock.now()) is (ahead == timedelta(0))


def database_is_ahead(machine: Machine) -> timedelta:
    """By how much the clock of the database is ahead of the machine's, which a test turns."""
    with machine.kept.read() as tx:
        there: datetime | None = Exposures(tx).now()
    return timedelta(0) if there is None else there - machine.clock.now()


def test_a_long_outage_is_stored_in_bounded_transactions(
    machine: Machine, flusher: ExposureFlusher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exposure_flusher, "MAX_READ_BYTES", 400)
    monkeypatch.setattr(exposure_flusher, "MAX_TRANSACTIONS", 3)
    for number in range(20):
        machine.serve(f"user:{number}")
    first = flusher.flush()
    stored = len(machine.stored())
    while flusher.flush() is None:
        pass

    assert first is None  # nothing is claimed about rows that wait
    assert 0 < stored < 20
    assert len(machine.stored()) == 20
    assert Path(machine.folder / "w.000001").stat().st_size > 0


def test_a_line_that_no_writer_writes_costs_only_itself(
    machine: Machine, flusher: ExposureFlusher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exposure_flusher, "MAX_READ_BYTES", 512)
    machine.serve("ada")
    (path,) = machine.folder.glob("w.*")
    with path.open("ab") as file:
        file.write(b"x" * 2_000 + b"\n")
    machine.serve("bert")
    machine.writer.close()
    flusher.flush()

    assert [row.ticket for row in machine.stored()] == [1, 2]
    assert machine.tickets_of_events() == [1, 2]
    assert machine.counters["exposure_rows_refused"] >= 1


def test_a_file_that_cannot_be_read_delays_no_other(
    machine: Machine, flusher: ExposureFlusher
) -> None:
    machine.serve("ada")
    broken = machine.folder / "a.000001"
    broken.mkdir()
    foreign = machine.folder / "notes.txt"
    foreign.write_text("kept")

    complete_until = flusher.flush()

    assert [row.ticket for row in machine.stored()] == [1]
    assert complete_until is None, "the rows of one file are not known"
    assert foreign.exists()
