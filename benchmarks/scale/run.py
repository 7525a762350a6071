"""What reads take as the database grows: `python benchmarks/scale/run.py [--size 0.01]`.

Fills databases of parts of the goal (10 M samples, 100 M observations, 1,000 routes, 10,000
keys, 100,000 proposals), on SQLite and PostgreSQL, and times every read of dashboard, API and
command line on each. `--csv` adds the figures to a file, from which the curves are read.
"""

import argparse
import csv
import gc
import itertools
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import _lru_cache_wrapper
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks.scale import house as houses
from benchmarks.scale.fill import fill
from benchmarks.scale.house import House
from benchmarks.scale.reads import WHOLE, Read, list_reads
from benchmarks.scale.sizes import Size
from harness.imports import leave_alone_what_serves, put_off_collection
from tests.support.store.query_plans import recorded

COLUMNS = (
    "database,part of the goal,door,read,p50 ms,p95 ms,statements,slowest statement ms,times,"
    "CPU p50 ms,CPU p95 ms"
)
LIMIT_MS = 200.0
SLOW_MS = 3_000.0  # a read that takes longer is measured twice, and no more
OURS = ("harness.", "dashboard.", "evals.")
ENOUGH_MS = 6_000.0  # no read is measured for longer, however often it was


@dataclass(frozen=True)
class Measured:
    """A read's times in ms. cpu_p50, cpu_p95: of this process's CPU, which others lengthen
    less.
    """

    read: Read
    p50: float
    p95: float
    cpu_p50: float
    cpu_p95: float
    times: int
    statements: int
    slowest_ms: float
    slowest: str  # the statement that took longest


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--size", type=float, action="append", help="part of the goal")
    options.add_argument("--database", choices=("sqlite", "postgresql"), action="append")
    options.add_argument("--repeat", type=int, default=40, help="at most so often each")
    options.add_argument("--text-chars", type=int, default=300, help="of each question, answer")
    options.add_argument("--only", default="", help="reads whose name has this part")
    options.add_argument("--keep", type=Path, help="folder of SQLite that stays and is reused")
    options.add_argument("--csv", type=Path)
    chosen = options.parse_args()
    for part in chosen.size or [0.01, 0.1]:
        for kind in chosen.database or ["sqlite", "postgresql"]:
            with tempfile.TemporaryDirectory(prefix="swapgate-scale-") as temporary:
                folder = chosen.keep / f"{kind}-{part:g}" if chosen.keep else Path(temporary)
                with database(kind) as url:
                    measure(kind, Size(part), folder, url, chosen)


@contextmanager
def database(kind: str) -> Iterator[str]:
    """Yields the address of an empty database, "" for a SQLite file."""
    if kind == "sqlite":
        yield ""
        return
    from tests.support.store.postgres import started, stop_server  # noqa: PLC0415

    place = Path(tempfile.mkdtemp(prefix="swapgate-scale-pg-"))
    try:
        started(place)
        yield started(place).get_uri(database="postgres", driver="psycopg")
    finally:
        stop_server(place)
        shutil.rmtree(place, ignore_errors=True)


def measure(kind: str, size: Size, folder: Path, url: str, chosen: Any) -> None:
    mark = folder / "house"
    if mark.exists():
        promoted, rejected = mark.read_text().split()
        house = House(
            folder, f"sqlite:///{folder / '.swapgate/swapgate.db'}", promoted, rejected
        )
    else:
        house = houses.build(folder, url)
        began = time.perf_counter()
        rows = fill(house, size, text_chars=chosen.text_chars)
        print(f"filled in {time.perf_counter() - began:.0f} s")
        mark.write_text(f"{house.promoted} {house.rejected}")
        _print_size(kind, size, house, rows)
    with houses.opened(house) as installation, committing(house) as commit:
        reads = [*list_reads(installation, house)]
        # As what serves does, once it is there.
        leave_alone_what_serves()
        found = [
            _measure(house, read, chosen.repeat, commit)
            for read in reads
            if chosen.only in f"{read.door} {read.name}"
        ]
    print_table(kind, size, found)
    if chosen.csv:
        _append(chosen.csv, kind, size, found)


@contextmanager
def committing(house: House) -> Iterator[Callable[[], None]]:
    """Yields what commits something from another connection, as a router does every second:
    what was read before is not what is there, for all that a process can know.
    """
    engine = sa.create_engine(house.url, isolation_level="AUTOCOMMIT")
    numbers = itertools.count(1)
    with engine.connect() as db:

        def commit() -> None:
            if db.dialect.name == "sqlite":
                db.exec_driver_sql(f"PRAGMA user_version = {next(numbers)}")
            else:
                db.exec_driver_sql("SELECT pg_current_xact_id()")

        yield commit
    engine.dispose()


def _measure(house: House, read: Read, repeat: int, commit: Callable[[], None]) -> Measured:
    with recorded() as statements:
        first = _time(read, commit)
    times = [first] if first[0] > SLOW_MS else []
    for _ in range(1 if first[0] > SLOW_MS else repeat):
        times.append(_time(read, commit))
        if sum(elapsed for elapsed, _ in times) > ENOUGH_MS:
            break
    slowest_ms, slowest = _slowest(house, statements)
    walls, cpus = [elapsed for elapsed, _ in times], [cpu for _, cpu in times]
    # At once: a database of full size takes an hour.
    print(f"  {read.door} {read.name}: {statistics.median(walls):.0f} ms", flush=True)
    return Measured(
        read,
        statistics.median(walls),
        _p95(walls),
        statistics.median(cpus),
        _p95(cpus),
        len(times),
        len(statements),
        slowest_ms,
        slowest,
    )


def _p95(times: Sequence[float]) -> float:
    return min(statistics.quantiles(times, n=20)[-1], max(times)) if times[1:] else times[0]


def _time(read: Read, commit: Callable[[], None]) -> tuple[float, float]:
    """Times one read: elapsed, and of this process's CPU, in ms."""
    commit()
    with collecting(read):
        began, cpu = time.perf_counter(), time.process_time()
        read.run()
        return (time.perf_counter() - began) * 1_000, (time.process_time() - cpu) * 1_000


@contextmanager
def collecting(read: Read) -> Iterator[None]:
    """Collects garbage and keeps results as the process does that reads: a command is one of
    its own, which began with none; what serves goes on from call to call.
    """
    if read.door != "cli":
        yield
        return
    usual = gc.get_threshold()
    _forget_results()
    gc.collect()
    put_off_collection()
    try:
        yield
    finally:
        gc.set_threshold(*usual)


def _forget_results() -> None:
    """Empties what our functions keep of calls before."""
    for name, module in [*sys.modules.items()]:
        if name.startswith(OURS):
            for kept in vars(module).values():
                # Not by the garbage collector, which does not name what it leaves alone.
                if isinstance(kept, _lru_cache_wrapper):
                    kept.cache_clear()


def _slowest(house: House, statements: dict[str, Any]) -> tuple[float, str]:
    """Runs each statement once more by itself, with all its rows."""
    engine, found = sa.create_engine(house.url), [(0.0, "")]
    with engine.connect() as db:
        for statement, parameters in statements.items():
            if not statement.startswith(("SELECT", "WITH")):
                continue
            cursor = db.connection.cursor()
            began = time.perf_counter()
            cursor.execute(statement, parameters or ())
            cursor.fetchall()
            found.append(((time.perf_counter() - began) * 1_000, statement))
            cursor.close()
    engine.dispose()
    return max(found, key=lambda pair: pair[0])


def print_table(kind: str, size: Size, found: Sequence[Measured]) -> None:
    print(f"\n{kind}, {size.part:.0%} of the goal; ms")
    print(
        f"{'read':58} {'p50':>8} {'p95':>8} {'CPU p50':>8} {'CPU p95':>8} {'queries':>8}"
        f" {'slowest':>8}"
    )
    for row in sorted(found, key=lambda row: -row.p95):
        over = (
            "  <-- over the limit" if row.p95 > LIMIT_MS and row.read.name not in WHOLE else ""
        )
        name = f"{row.read.door} {row.read.name}"
        print(
            f"{name:58.58} {row.p50:8.1f} {row.p95:8.1f} {row.cpu_p50:8.1f} {row.cpu_p95:8.1f}"
            f" {row.statements:8} {row.slowest_ms:8.1f}{over}"
        )
        if row.slowest_ms > LIMIT_MS / 4:
            print(f"    {' '.join(row.slowest.split())[-420:]}")


def _print_size(kind: str, size: Size, house: House, rows: dict[str, int]) -> None:
    bytes_ = _bytes(house)
    print(f"{kind}, {size.part:.0%}: {bytes_ / 1e6:,.0f} MB")
    print("  " + ", ".join(f"{name} {n:,}" for name, n in sorted(rows.items()) if n > 99))


def _bytes(house: House) -> int:
    if house.url.startswith("sqlite"):
        return (house.folder / ".swapgate/swapgate.db").stat().st_size
    engine = sa.create_engine(house.url)
    with engine.connect() as db:
        found = db.execute(sa.text("SELECT pg_database_size(current_database())")).scalar_one()
    engine.dispose()
    return int(found)


def _append(file: Path, kind: str, size: Size, found: Sequence[Measured]) -> None:
    is_new = not file.exists()
    with file.open("a", newline="") as out:
        writer = csv.writer(out)
        if is_new:
            writer.writerow(COLUMNS.split(","))
        for row in found:
            writer.writerow(
                [
                    kind,
                    size.part,
                    row.read.door,
                    row.read.name,
                    f"{row.p50:.1f}",
                    f"{row.p95:.1f}",
                    row.statements,
                    f"{row.slowest_ms:.1f}",
                    row.times,
                    f"{row.cpu_p50:.1f}",
                    f"{row.cpu_p95:.1f}",
                ]
            )


if __name__ == "__main__":
    main()
