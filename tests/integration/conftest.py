"""The control plane's world over every store."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.ports import Store
from harness.store.sql import SqlStore
from tests.support.control.control_plane import SECRET, SmallInstallation
from tests.support.control.manual_clock import ManualClock
from tests.support.site.signing_keys import CONTROL


def prepared(folder: Path, store: Store, clock: ManualClock) -> Iterator[SmallInstallation]:
    made = SmallInstallation(folder, store, clock=clock)
    made.set_up()
    yield made
    store.close()


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[SmallInstallation]:
    """One route, one suite, nothing proposed: on SQLite, on PostgreSQL."""
    clock = ManualClock()
    store = SqlStore(database_url, secret=SECRET, clock=clock, signatures=CONTROL)
    yield from prepared(tmp_path, store, clock)
