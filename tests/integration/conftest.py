"""The control plane's world over every store, and what several files of tests share."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from evals.sim import server
from evals.sim.simulator import Simulator
from harness.app.store.store import Store
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.known_secrets import SECRET
from tests.support.control.manual_clock import ManualClock
from tests.support.control.short_policies import approved
from tests.support.providers import simulator_thread
from tests.support.providers.scripted_upstream import (
    Upstream,
    running_upstream,
)
from tests.support.router.simulated_router import SimScene, before_sim
from tests.support.site.command_line import CommandLine, installed
from tests.support.site.management_api import Door
from tests.support.site.signing_keys import CONTROL
from tests.support.store import raw_rows
from tests.support.store.raw_rows import Database


def prepared(
    folder: Path,
    store: Store,
    clock: ManualClock,
) -> Iterator[SmallInstallation]:
    made = SmallInstallation(folder, store, clock=clock)
    made.set_up()
    yield made
    store.close()


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[SmallInstallation]:
    """One route, one suite, nothing proposed: on SQLite, on PostgreSQL."""
    clock = ManualClock()
    store = Store(
        database_url,
        secret=SECRET,
        clock=clock,
        signatures=CONTROL,
    )
    yield from prepared(tmp_path, store, clock)


@pytest.fixture
def door(world: SmallInstallation) -> Door:
    return Door(world)


@pytest.fixture
def careful(world: SmallInstallation) -> Door:
    """The same where a person approves before the canary."""
    world.policy = approved()
    return Door(world)


@pytest.fixture
def elsewhere(database_url: str, world: SmallInstallation) -> Iterator[Store]:
    """The store of another control process on the world's database."""
    store = Store(
        database_url,
        secret=SECRET,
        clock=world.clock,
        signatures=CONTROL,
    )
    with closing(store):
        yield store


@pytest.fixture
def plain_world(tmp_path: Path) -> SmallInstallation:
    """The same on one store: what is asked there is not the store's business."""
    made = SmallInstallation(tmp_path, clock=ManualClock())
    made.set_up()
    return made


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """Routes with rows of each signed table, to be written to by raw SQL."""
    with raw_rows.prepared(database_url) as db:
        yield db


@pytest.fixture
def cli(
    tmp_path: Path,
    sqlite_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[CommandLine]:
    with installed(tmp_path, sqlite_url, monkeypatch) as made:
        yield made


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    with simulator_thread.serve_in_thread(server.simulator(time_scale=0.0)) as url:
        yield url


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with running_upstream() as made:
        yield made


@pytest.fixture(scope="module")
def sim() -> Simulator:
    return server.simulator(time_scale=0)


@pytest.fixture(scope="module")
def sim_url(sim: Simulator) -> Iterator[str]:
    with simulator_thread.serve_in_thread(sim) as url:
        yield url


@pytest.fixture
def scene(
    sim: Simulator,
    sim_url: str,
    tmp_path: Path,
) -> Iterator[SimScene]:
    with before_sim(sim, sim_url, tmp_path) as made:
        yield made
