"""Times the management API's reads on a large database:
`python -m benchmarks.scale.run [--size 0.01] [--database sqlite]`.

Fills a part of GOAL (100 M observations, 1,000 routes, 10,000 keys, 1 M failovers, 100,000
captures), then times every GET that needs no search terms.
"""

# ruff: noqa: S608 - numbers of ours and names of our tables

import argparse
import asyncio
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

import httpx
import sqlalchemy as sa

from benchmarks.print_rows import print_cells
from harness.app.installation import Installation, open_installation
from harness.app.store.migrate import upgrade
from harness.app.store.store import Store
from harness.frame.people.access import SYSTEM, Role
from harness.interfaces.api.app import PREFIX, build_app
from harness.operations import keys
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.known_secrets import SECRET
from tests.support.control.manual_clock import ManualClock
from tests.support.site.command_line import FILE
from tests.support.site.signing_keys import CONTROL, ENVIRONMENT
from tests.support.store.query_plans import recorded

# Rows by table. A row of `traffic` counts 50 requests of a route and minute, so these are 100 M
# observations.
GOAL: Final = {
    "routes": 1_000,
    "keys": 10_000,
    "traffic": 2_000_000,
    "failovers": 1_000_000,
    "captures": 100_000,
}
OBSERVATIONS_OF_ROW = 50
DAYS_OF_TRAFFIC = 30
DAYS_OF_SPEND = 31


@dataclass(frozen=True)
class BenchmarkSite:
    """The installation's folder and database. promoted, rejected: ids of its two proposals."""

    folder: Path
    url: str
    promoted: str
    rejected: str

    @property
    def config(self) -> Path:
        return self.folder / "swapproof.yaml"


def build(folder: Path, url: str) -> BenchmarkSite:
    """Builds the installation with a promoted and a rejected proposal.

    Args:
        url: an empty database, or "" for a SQLite file in the folder.
    """
    home = folder / ".swapproof"
    home.mkdir(parents=True, exist_ok=True)
    url = url or f"sqlite:///{home / 'swapproof.db'}"
    text = FILE.replace("home: .swapproof", f"home: {home}\ndatabase_url: {url}")
    (folder / "swapproof.yaml").write_text(text, encoding="utf-8")
    os.environ.update({"SWAPPROOF_SECRET": SECRET.decode(), **ENVIRONMENT})
    upgrade(url)
    clock = ManualClock()
    store = Store(
        url,
        secret=SECRET,
        clock=clock,
        signatures=CONTROL,
    )
    try:
        world = SmallInstallation(folder, store, clock=clock)
        world.set_up()
        rejected = world.until_decided(world.propose("sim/worse").id, turns=40)
        promoted = world.until_decided(world.propose("sim/better").id, turns=40)
        for _ in range(12):
            world.feed()
            world.run_once()
    finally:
        store.close()
    return BenchmarkSite(folder, url, promoted.id, rejected.id)


def request_rows(size: Mapping[str, int], *, postgres: bool) -> list[str]:
    """Returns an INSERT for each table. Its parameters are at (µs), routes, one, other, no and
    rules.
    """
    if postgres:
        route = "'route-' || lpad((n.i % :routes)\\:\\:text, 4, '0')"
        key = "'k_' || lpad(n.i\\:\\:text, 8, '0')"
        day = (
            "to_char(to_timestamp(:at / 1000000) - make_interval(days => days.d), 'YYYY-MM-DD')"
        )
    else:
        route = "'route-' || substr('000' || (n.i % :routes), -4)"
        key = "'k_' || substr('0000000' || n.i, -8)"
        day = "date(:at / 1000000, 'unixepoch', '-' || days.d || ' days')"
    days = " UNION ALL ".join(f"SELECT {number} AS d" for number in range(DAYS_OF_SPEND))
    minutes = DAYS_OF_TRAFFIC * 1440
    each = max(1, size["traffic"] // size["routes"])
    return [
        # Distributes the rows evenly over the routes and minutes.
        (
            "INSERT INTO traffic (route, minute, worker, arm, target, revision, requests,"
            " failed, charged, streams, input_tokens, output_tokens, cost_usd, latency_ms)"
            f" SELECT {route}, :at - ((n.i / :routes) * {minutes} / {each}) * 60000000,"
            f" 'router-1/' || (n.i % 2), 'incumbent', :one, 1, {OBSERVATIONS_OF_ROW}, n.i % 3,"
            ' 0, 10, 20000, 5000, 0.02, \'{"250"\\:30,"500"\\:20}\''
            f" FROM {_numbers(size['traffic'], postgres=postgres)}"
        ),
        (
            "INSERT INTO key_spend (key, day, worker, requests, tokens, cost_usd, unpriced)"
            f" SELECT {key}, {day}, 'router-1', 320, 160000, 0.2, 0"
            f" FROM {_numbers(size['keys'], postgres=postgres)} CROSS JOIN ({days}) AS days"
        ),
        (
            "INSERT INTO failover (worker, number, at, request, route, arm, target, provider,"
            " failure, status, code, place, sentence, attempts, latency_ms, endpoint, stream,"
            " body_bytes, messages, tools, user_hash, next_target)"
            f" SELECT 'router-1/0', n.i + 1, :at - n.i * ({DAYS_OF_TRAFFIC} * 86400000000"
            f" / {size['failovers']}), 'req_' || n.i,"
            f" {route}, 'incumbent', :one, 'sim', 'timeout', 504, '', '', '', 1, 900.0, 'chat',"
            " :no, 900, 4, 0, 'user' || (n.i % 5000), :other"
            f" FROM {_numbers(size['failovers'], postgres=postgres)}"
        ),
        (
            "INSERT INTO captured (id, at, expires_at, route, request, endpoint, stream, arm,"
            " target, revision, data_class, user_hash, share_bps, rules, redactions, content,"
            " seen) SELECT 'c_' || n.i, :at - n.i * 1000000, :at + 864000000000,"
            f" {route}, 'req_' || n.i, 'chat', :no, 'incumbent', :one, 1, '',"
            " 'user' || (n.i % 5000), 100, :rules, '{}',"
            ' \'{"request"\\:{"messages"\\:[]},"answer"\\:"yes"}\', 1'
            f" FROM {_numbers(size['captures'], postgres=postgres)}"
        ),
    ]


def _numbers(count: int, *, postgres: bool) -> str:
    """Returns a table `n` with the numbers `i` from 0 to `count - 1`, in SQL."""
    if postgres:
        return f"generate_series(CAST(0 AS bigint), {count - 1}) AS n(i)"
    return (
        "(WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n"
        f" WHERE i < {count - 1}) SELECT i FROM n) AS n"
    )


LIMIT_MS: Final = 200.0
REPEAT: Final = 20
ROUTE: Final = "route-0000"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument(
        "--size",
        type=float,
        action="append",
        help="part of the goal",
    )
    options.add_argument("--database", choices=("sqlite", "postgresql"), action="append")
    chosen = options.parse_args()
    for part in chosen.size or [0.01]:
        for kind in chosen.database or ["sqlite", "postgresql"]:
            with (
                tempfile.TemporaryDirectory() as folder,
                database(kind) as url,
            ):
                site = build(Path(folder), url)
                fill(
                    site,
                    {table: max(1, round(rows * part)) for table, rows in GOAL.items()},
                )
                installation = open_installation(site.config)
                print_times(f"{kind}, {part:.0%} of the goal", installation, site)
                installation.close()


@contextmanager
def database(kind: str) -> Iterator[str]:
    """Yields the address of an empty database, "" for a SQLite file."""
    if kind == "sqlite":
        yield ""
        return
    from tests.support.store.postgres import started, stop_server  # noqa: PLC0415

    place = Path(tempfile.mkdtemp(prefix="swapproof-scale-pg-"))
    try:
        yield started(place).get_uri(database="postgres", driver="psycopg")
    finally:
        stop_server(place)
        shutil.rmtree(place, ignore_errors=True)


def fill(site: BenchmarkSite, size: Mapping[str, int]) -> None:
    engine = sa.create_engine(site.url)
    postgres = engine.dialect.name == "postgresql"
    with engine.begin() as db:
        one, other = db.execute(sa.text("SELECT id FROM target ORDER BY id LIMIT 2")).scalars()
        at = int(time.time() // 60) * 60 * 1_000_000  # noqa: TID251 - the newest row's minute
        values = {
            "at": at,
            "routes": size["routes"],
            "one": one,
            "other": other,
        }
        for statement in request_rows(size, postgres=postgres):
            db.execute(
                sa.text(statement),
                {
                    **values,
                    "no": False,
                    "rules": "0" * 64,
                },
            )
    engine.dispose()


def print_times(
    title: str,
    installation: Installation,
    site: BenchmarkSite,
) -> None:
    app = build_app(installation)
    _, key = keys.create_key(
        installation.context,
        SYSTEM,
        f"benchmark {uuid4()}",
        secret=installation.secret,
        role=Role.ADMIN,
    )
    known = {
        "route": ROUTE,
        "proposal": site.promoted,
        "provider": "sim",
    }
    found = []
    for path, operations in app.openapi()["paths"].items():
        for name, value in known.items():
            path = path.replace(f"{{{name}}}", value)  # noqa: PLW2901
        if "get" in operations and path.startswith(PREFIX) and "{" not in path:
            found.append(
                (
                    *asyncio.run(measured(app, path, key)),
                    path.removeprefix(PREFIX),
                )
            )
    rows = sorted(found, key=lambda row: -row[1])
    limit = [(*row, "over the limit" if row[1] > LIMIT_MS else "") for row in rows]
    print_cells(title, [("p50 ms", "p95 ms", "queries", "read", ""), *limit])


async def measured(
    app: object,
    path: str,
    key: str,
) -> tuple[float, float, int]:
    headers = {"authorization": f"Bearer {key}"}
    times = []
    transport = httpx.ASGITransport(app)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as http:
        with recorded() as statements:
            await http.get(path, headers=headers, timeout=900)
        for _ in range(REPEAT):
            began = time.perf_counter()
            await http.get(path, headers=headers, timeout=900)
            times.append((time.perf_counter() - began) * 1_000)
    return (
        statistics.median(times),
        statistics.quantiles(times, n=20)[-1],
        len(statements),
    )


if __name__ == "__main__":
    main()
