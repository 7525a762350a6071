"""The control plane's world over every store."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.ports import Store
from harness.runtime.clock import ManualClock
from harness.store.memory import MemoryStore
from harness.store.sql import SqlStore
from tests.support.control.control_plane import SECRET, SmallInstallation
from tests.support.site.signing_keys import CONTROL


def prepared(folder: Path, store: Store, clock: ManualClock) -> Iterator[SmallInstallation]:
    made = SmallInstallation(folder, store, clock=clock)
    made.set_up()
    yield made
    store.close()


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SmallInstallation]:
    """One route, one suite, nothing proposed: in memory, on SQLite, on PostgreSQL."""
    clock = ManualClock()
    if request.param == "memory":
        yield from prepared(tmp_path, MemoryStore(secret=SECRET, clock=clock), clock)
    else:
        name = {"sqlite": "sqlite_url", "postgresql": "postgres_url"}[request.param]
        url = request.getfixturevalue(name)
        yield from prepared(
            tmp_path, SqlStore(url, secret=SECRET, clock=clock, signatures=CONTROL), clock
        )


@pytest.fixture
def sql_world(database_url: str, tmp_path: Path) -> Iterator[SmallInstallation]:
    """The same, on the databases alone."""
    clock = ManualClock()
    store = SqlStore(database_url, secret=SECRET, clock=clock, signatures=CONTROL)
    yield from prepared(tmp_path, store, clock)
