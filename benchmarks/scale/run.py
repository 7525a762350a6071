"""What reads of the management API take as the database grows:
`python -m benchmarks.scale.run [--size 0.01] [--database sqlite]`.

Fills a part of the goal (100 M observations, 1,000 routes, 10,000 keys, 1 M failovers, 100,000
captures), then times every GET that needs no search terms.
"""

import argparse
import asyncio
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from uuid import uuid4

import httpx
import sqlalchemy as sa

from benchmarks.scale import house as houses
from benchmarks.scale.house import House
from benchmarks.scale.request_rows import request_rows
from benchmarks.scale.sizes import Size
from harness.api.app import PREFIX, build_app
from harness.app.installation import Installation
from harness.control.operations import keys
from harness.domain.operations.access import SYSTEM, Role
from tests.support.store.query_plans import recorded

LIMIT_MS: Final = 200.0
REPEAT: Final = 20
ROUTE: Final = "route-0000"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--size", type=float, action="append", help="part of the goal")
    options.add_argument("--database", choices=("sqlite", "postgresql"), action="append")
    chosen = options.parse_args()
    for part in chosen.size or [0.01]:
        for kind in chosen.database or ["sqlite", "postgresql"]:
            with tempfile.TemporaryDirectory() as folder, database(kind) as url:
                house = houses.build(Path(folder), url)
                fill(house, Size(part))
                with houses.opened(house) as installation:
                    print(f"\n{kind}, {part:.0%} of the goal")
                    print_times(installation, house)


@contextmanager
def database(kind: str) -> Iterator[str]:
    """Yields the address of an empty database, "" for a SQLite file."""
    if kind == "sqlite":
        yield ""
        return
    from tests.support.store.postgres import started, stop_server  # noqa: PLC0415

    place = Path(tempfile.mkdtemp(prefix="swapgate-scale-pg-"))
    try:
        yield started(place).get_uri(database="postgres", driver="psycopg")
    finally:
        stop_server(place)
        shutil.rmtree(place, ignore_errors=True)


def fill(house: House, size: Size) -> None:
    engine = sa.create_engine(house.url)
    postgres = engine.dialect.name == "postgresql"
    with engine.begin() as db:
        one, other = db.execute(sa.text("SELECT id FROM target ORDER BY id LIMIT 2")).scalars()
        at = int(time.time() // 60) * 60 * 1_000_000  # noqa: TID251 - the newest row's minute
        values = {"at": at, "routes": size.routes, "one": one, "other": other}
        for statement in request_rows(size, postgres=postgres):
            db.execute(sa.text(statement), {**values, "no": False, "rules": "0" * 64})
    engine.dispose()


def print_times(installation: Installation, house: House) -> None:
    app = build_app(installation)
    _, key = keys.create_key(
        installation.context,
        SYSTEM,
        f"benchmark {uuid4()}",
        secret=installation.secret,
        role=Role.ADMIN,
    )
    known = {"route": ROUTE, "proposal": house.promoted, "provider": "sim"}
    found = []
    for path, operations in app.openapi()["paths"].items():
        for name, value in known.items():
            path = path.replace(f"{{{name}}}", value)  # noqa: PLW2901
        if "get" in operations and path.startswith(PREFIX) and "{" not in path:
            found.append((*asyncio.run(measured(app, path, key)), path.removeprefix(PREFIX)))
    print(f"{'read':40} {'p50 ms':>8} {'p95 ms':>8} {'queries':>8}")
    for p50, p95, queries, path in sorted(found, key=lambda row: -row[1]):
        over = "  over the limit" if p95 > LIMIT_MS else ""
        print(f"{path:40.40} {p50:8.1f} {p95:8.1f} {queries:8}{over}")


async def measured(app: object, path: str, key: str) -> tuple[float, float, int]:
    headers, times = {"authorization": f"Bearer {key}"}, []
    transport = httpx.ASGITransport(app)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as http:
        with recorded() as statements:
            await http.get(path, headers=headers, timeout=900)
        for _ in range(REPEAT):
            began = time.perf_counter()
            await http.get(path, headers=headers, timeout=900)
            times.append((time.perf_counter() - began) * 1_000)
    return statistics.median(times), statistics.quantiles(times, n=20)[-1], len(statements)


if __name__ == "__main__":
    main()
