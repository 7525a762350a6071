"""How long writers wait while `swapgate db upgrade` of the next version runs beside them.

`python -m benchmarks.scale.upgrade_waits [--rows 500000] [--writers 4]`: on SQLite and on
PostgreSQL, processes of this version add to `traffic`, which holds that many rows, while a step
adds a table and a column, and then one that builds an index on it. Prints one line for each.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from harness.domain.errors import StoreUnavailable
from harness.runtime.clock import SystemClock
from harness.store import migrate
from harness.store.sql import SqlStore
from tests.support.site.signing_keys import CONTROL
from tests.support.store.next_version import ADDITIVE, make_next_version
from tests.support.store.postgres import started, stop_server
from tests.support.store.records import TRAFFIC

SECRET: Final = b"a secret of the benchmark"
AROUND_S: Final = 3.0
PAUSE_S: Final = 0.01
WITH_INDEX: Final = f"""{ADDITIVE}
    op.create_index("ix_traffic_next", "traffic", ["target", "minute", "route"])
"""
STEPS: Final = {"a table and a column": ADDITIVE, "an index on traffic too": WITH_INDEX}
UPGRADE: Final = "import sys; from harness.store import migrate; migrate.upgrade(sys.argv[1])"


@dataclass(frozen=True, slots=True)
class Write:
    """One write of one writer."""

    began_s: float
    took_s: float
    failed: bool


def run_step(url: str, code: Path, writers: int) -> str:
    """Upgrades while writers go on; what they met, in words."""
    writes: list[Write] = []
    over = threading.Event()
    threads = [
        threading.Thread(target=_write_on, args=(url, number, over, writes))
        for number in range(writers)
    ]
    for thread in threads:
        thread.start()
    time.sleep(AROUND_S)
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", UPGRADE, url], cwd=code, check=True)  # noqa: S603 - our own command
    ended = time.monotonic()
    time.sleep(AROUND_S)
    over.set()
    for thread in threads:
        thread.join()
    before = [write for write in writes if write.began_s + write.took_s < began]
    meanwhile = [
        write
        for write in writes
        if write.began_s < ended and write.began_s + write.took_s > began
    ]
    return (
        f"db upgrade took {ended - began:.1f} s; longest write {_longest_ms(before):.0f} ms "
        f"before, {_longest_ms(meanwhile):.0f} ms meanwhile ({len(meanwhile)} writes, "
        f"{sum(write.failed for write in writes)} failed)"
    )


def _longest_ms(writes: Sequence[Write]) -> float:
    return max((write.took_s for write in writes), default=0.0) * 1_000


def _write_on(url: str, number: int, over: threading.Event, writes: list[Write]) -> None:
    more = replace(TRAFFIC, worker=f"writer-{number}")
    with closing(
        SqlStore(url, secret=SECRET, clock=SystemClock(), signatures=CONTROL)
    ) as store:
        while not over.wait(PAUSE_S):
            began, failed = time.monotonic(), False
            try:
                with store.write() as tx:
                    tx.observations.append([], [more])
            except StoreUnavailable:
                failed = True
            writes.append(Write(began, time.monotonic() - began, failed))


def fill(url: str, rows: int) -> None:
    """Adds rows to `traffic`, as many routers would in months."""
    made = sa.create_engine(url)
    values = {
        "route": "'r' || (n % 100)",
        "minute": "1700000000000000 + CAST(n AS BIGINT) * 60000000",
        "worker": "'w'",
        "arm": "'incumbent'",
        "target": "'t_' || (n % 7)",
        "latency_ms": "'{\"50\": 1}'",
    }
    with made.begin() as db:
        columns = [column["name"] for column in sa.inspect(db).get_columns("traffic")]
        picked = ", ".join(values.get(name, "1") for name in columns)
        numbers = (
            f"WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {rows})"  # noqa: S608 - constants
        )
        insert = f"INSERT INTO traffic ({', '.join(columns)}) {numbers} SELECT {picked} FROM c"  # noqa: S608 - as above
        db.execute(sa.text(insert.replace(":", r"\:")))
    made.dispose()


@contextmanager
def databases() -> Iterator[dict[str, str]]:
    """A fresh database of each kind, by its name."""
    # PostgreSQL runs as a user of its own, to whom the other folder may be closed.
    place = Path(tempfile.mkdtemp(prefix="swapgate-upgrade-pg-"))
    with tempfile.TemporaryDirectory(prefix="swapgate-upgrade-") as folder:
        try:
            server = started(place)
            yield {
                "SQLite": f"sqlite:///{folder}/swapgate.db",
                "PostgreSQL": server.get_uri(database="postgres", driver="psycopg"),
            }
        finally:
            stop_server(place)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=500_000)
    options.add_argument("--writers", type=int, default=4)
    chosen = options.parse_args()
    with databases() as urls, tempfile.TemporaryDirectory() as folder:
        for kind, url in urls.items():
            migrate.upgrade(url)
            fill(url, chosen.rows)
            for number, (step, body) in enumerate(STEPS.items()):
                place = Path(folder) / f"{kind}-{number}"
                place.mkdir()
                code = make_next_version(place, upgrade=body)
                said = run_step(url, code, chosen.writers)
                print(f"{kind}, {chosen.rows:,} rows, {step}: {said}", flush=True)
                _go_back(url, code)
    return 0


def _go_back(url: str, code: Path) -> None:
    back = "import sys; from harness.store import migrate; migrate.downgrade(sys.argv[1])"
    made = sa.create_engine(url)
    with made.begin() as db:
        db.execute(sa.text("DROP INDEX IF EXISTS ix_traffic_next"))
    made.dispose()
    subprocess.run([sys.executable, "-c", back, url], cwd=code, check=True)  # noqa: S603 - our own command


if __name__ == "__main__":
    sys.exit(main())
