"""Old traffic and spend go into Parquet files: nothing is lost or doubled, whenever the process
dies, and the log says what was written.
"""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.control.context import Context
from harness.control.operations.queries import find_audit_break
from harness.control.privacy.archive import archive_old_rows, read_archive, verify_archive
from harness.domain.canary.observation import TrafficMinute
from harness.domain.errors import InputError, NotFound, SignatureInvalid, StoreUnavailable
from harness.domain.operations.archive import ARCHIVED, LEAST_KEPT
from harness.domain.reliability.spend import KeySpend
from harness.ports import Store
from harness.runtime.parquet_archive import ParquetArchive
from harness.store.sql import SqlStore
from tests.support.control.control_plane import (
    SECRET,
    Crash,
    CrashingStore,
    SmallInstallation,
)
from tests.support.control.manual_clock import ManualClock
from tests.support.site.signing_keys import CONTROL

pytestmark = pytest.mark.req("G5")
NOW = datetime(2026, 6, 20, 12, tzinfo=UTC)
KEPT = timedelta(days=70)
TRAFFIC = {"arm": "incumbent", "target": "t", "revision": 1, "requests": 3, "failed": 1}


def minute(days: float, route: str = "chat") -> TrafficMinute:
    at = (NOW - timedelta(days=days)).replace(second=0, microsecond=0)
    zeros = dict.fromkeys(("charged", "streams", "input_tokens", "output_tokens"), 0)
    figures: dict[str, Any] = TRAFFIC | zeros | {"cost_usd": 0.25, "latency_ms": {250: 3}}
    return TrafficMinute(route=route, minute=at, worker="w", **figures)


def spend(days: float) -> KeySpend:
    day = (NOW - timedelta(days=days)).date()
    return KeySpend(
        key="k", day=day, worker="w", requests=3, tokens=9, cost_usd=0.5, unpriced=0
    )


@contextmanager
def world_of(url: str, folder: Path) -> Iterator[SmallInstallation]:
    clock = ManualClock(NOW)
    store = SqlStore(url, secret=SECRET, clock=clock, signatures=CONTROL)
    try:
        yield SmallInstallation(folder, store, clock=clock)
    finally:
        store.close()


def fill(store: Store, days: list[float]) -> None:
    with store.write() as tx:
        tx.observations.append([], [minute(age) for age in days], [spend(a) for a in days])


def everything(ctx: Context, files: ParquetArchive) -> Counter[str]:
    """The minutes of traffic that there are, in the database and in recorded files."""
    with ctx.store.read() as tx:
        live = [t.minute for t in tx.observations.traffic(since=NOW - timedelta(days=9000))]
    kept = [row["minute"] for row in read_archive(ctx, files, "traffic")]
    return Counter(at.isoformat() for at in [*live, *kept])


def test_old_rows_go_into_files_by_month_and_young_ones_stay(
    database_url: str, tmp_path: Path
) -> None:
    with world_of(database_url, tmp_path) as world:
        ctx, files = world.context(), ParquetArchive(tmp_path / "archive")
        fill(ctx.store, [1, 69, 71, 75, 120])

        written = archive_old_rows(ctx, files, KEPT)

        assert [(file.table, file.rows) for file in written] == [
            ("traffic", 1),
            ("traffic", 2),
            ("key_spend", 1),
            ("key_spend", 2),
        ]
        assert all(file.name.startswith(f"{file.table}/{file.first[:7]}/") for file in written)
        [old] = read_archive(ctx, files, "traffic", until="2026-03")
        assert (old["requests"], old["cost_usd"], json.loads(old["latency_ms"])) == (
            3,
            0.25,
            {"250": 3},
        )
        with ctx.store.read() as tx:
            left = tx.observations.traffic(since=NOW - timedelta(days=9000))
            assert [minute(69), minute(1)] == list(left)
        assert verify_archive(ctx, files) == []
        assert find_audit_break(ctx) is None
        assert archive_old_rows(ctx, files, KEPT) == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    days=st.lists(st.integers(60, 200), min_size=1, max_size=12, unique=True),
    dies_at=st.integers(1, 6),
    after_commit=st.booleans(),
)
def test_a_process_that_dies_loses_and_doubles_nothing(
    tmp_path_factory: pytest.TempPathFactory,
    days: list[int],
    dies_at: int,
    *,
    after_commit: bool,
) -> None:
    folder = tmp_path_factory.mktemp("archive")
    world = SmallInstallation(folder, clock=ManualClock(NOW))
    ctx, files = world.context(), ParquetArchive(folder / "archive")
    fill(ctx.store, [float(age) for age in days])
    before = everything(ctx, files)

    dying: Any = CrashingStore(ctx.store, at=dies_at, after_commit=after_commit)
    try:
        archive_old_rows(world.context(dying), files, KEPT, rows_per_file=3)
    except Crash:
        assert everything(ctx, files) == before
    archive_old_rows(ctx, files, KEPT, rows_per_file=3)

    assert everything(ctx, files) == before == Counter(dict.fromkeys(before, 1))
    assert {fault.text for fault in verify_archive(ctx, files)} <= {
        "the audit log does not name it: its rows were not removed"
    }


CHILD = """
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from harness.control.privacy.archive import archive_old_rows
from harness.runtime.parquet_archive import ParquetArchive
from tests.integration.test_archive import KEPT, world_of
with world_of(sys.argv[1], Path(sys.argv[2])) as world:
    print("begins", flush=True)
    archive_old_rows(
        world.context(), ParquetArchive(Path(sys.argv[2]) / "archive"), KEPT, rows_per_file=5
    )
"""


@pytest.mark.verify
def test_killed_processes_lose_and_double_nothing(sqlite_url: str, tmp_path: Path) -> None:
    with world_of(sqlite_url, tmp_path) as world:
        ctx, files = world.context(), ParquetArchive(tmp_path / "archive")
        fill(ctx.store, [60 + n / 4 for n in range(800)])
        before = everything(ctx, files)
        for turn in range(8):
            child = subprocess.Popen(  # noqa: S603 - this very interpreter
                [sys.executable, "-c", CHILD, sqlite_url, str(tmp_path)],
                stdout=subprocess.PIPE,
                env=os.environ | {"PYTHONPATH": str(Path.cwd())},
            )
            assert child.stdout is not None
            child.stdout.readline()
            try:
                child.wait(0.03 * turn)
            except subprocess.TimeoutExpired:
                child.send_signal(signal.SIGKILL)
            child.communicate()
            assert everything(ctx, files) == before
        archive_old_rows(ctx, files, KEPT)
        assert everything(ctx, files) == before


def test_a_changed_and_a_missing_file_are_found_and_not_read(
    sqlite_url: str, tmp_path: Path
) -> None:
    with world_of(sqlite_url, tmp_path) as world:
        ctx, files = world.context(), ParquetArchive(tmp_path / "archive")
        fill(ctx.store, [100.0, 150.0])
        first, second = archive_old_rows(ctx, files, KEPT)[:2]
        (files.folder / first.name).write_bytes(b"another")
        (files.folder / second.name).unlink()

        assert {fault.name for fault in verify_archive(ctx, files)} == {first.name, second.name}
        with pytest.raises(SignatureInvalid):
            list(read_archive(ctx, files, "traffic", until=first.last + "Z"))
        with pytest.raises(NotFound):
            list(read_archive(ctx, files, "traffic", since=second.first))


def test_a_folder_that_cannot_be_written_keeps_every_row(
    sqlite_url: str, tmp_path: Path
) -> None:
    with world_of(sqlite_url, tmp_path) as world:
        ctx = world.context()
        fill(ctx.store, [100.0])
        (tmp_path / "file").touch()
        files = ParquetArchive(tmp_path / "file" / "archive")

        with pytest.raises(StoreUnavailable, match="no row was removed"):
            archive_old_rows(ctx, files, KEPT)
        with ctx.store.read() as tx:
            assert len(tx.observations.traffic(since=NOW - timedelta(days=101))) == 1


def test_a_beginning_of_no_time_is_refused(sqlite_url: str, tmp_path: Path) -> None:
    with world_of(sqlite_url, tmp_path) as world:
        ctx, files = world.context(), ParquetArchive(tmp_path / "archive")
        fill(ctx.store, [100.0])
        archive_old_rows(ctx, files, KEPT)

        for begin in ("2026-13", "2026-1", "march", "2026-02-30", "20260314"):
            with pytest.raises(InputError, match="begins no time: write a month or a day"):
                list(read_archive(ctx, files, "traffic", since=begin))
        for begin in ("2020", "2020-02", "2020-02-29", "2020-02-29T12"):
            assert list(read_archive(ctx, files, "traffic", since=begin))


def test_what_reports_read_is_not_archived(sqlite_url: str, tmp_path: Path) -> None:
    with world_of(sqlite_url, tmp_path) as world, pytest.raises(InputError):
        archive_old_rows(
            world.context(), ParquetArchive(tmp_path), LEAST_KEPT - timedelta(days=1)
        )


def test_what_is_proof_is_never_archived() -> None:
    assert set(ARCHIVED) == {"traffic", "key_spend"}
