import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psycopg
import pytest

from evals.sim import server as sim
from harness.control.operations import keys
from harness.domain.errors import StoreUnavailable
from harness.domain.operations.access import SYSTEM
from tests.support.providers import simulator_thread
from tests.support.router.router_fleet import RoundRobin, RouterFleet, router_fleet
from tests.support.router.router_process import eventually
from tests.support.site.small_disk import full, small_disk
from tests.support.store.postgres_cluster import PostgresNode, postgres_node

pytestmark = [pytest.mark.verify, pytest.mark.slow, pytest.mark.timeout(900)]


@contextmanager
def database_on_a_small_disk(kind: str) -> Iterator[tuple[str, Path]]:
    """Its address, and the disk."""
    # pytest's own folder is closed to the account that PostgreSQL runs as.
    with tempfile.TemporaryDirectory(prefix="swapgate-disk-") as name:
        Path(name).chmod(0o755)
        if kind == "sqlite":
            with small_disk(Path(name)) as disk:
                yield f"sqlite:///{disk / 'swapgate.db'}", disk
            return
        with (
            small_disk(Path(name), size="160m") as disk,
            postgres_node(
                folder=disk / "database", max_wal_size="48MB", min_wal_size="32MB"
            ) as node,
        ):
            yield node.dsn, disk


def failed_flushes(fleet: RouterFleet) -> list[float]:
    name = "swapgate_router_flushes_failed_total"
    return [sum(fleet.metric(router, name)) for router in fleet.names]


@pytest.mark.req("G5", "G6")
@pytest.mark.parametrize(
    "kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)]
)
def test_with_the_databases_disk_full_requests_are_served_and_recorded_later(
    kind: str, tmp_path: Path
) -> None:
    with (
        database_on_a_small_disk(kind) as (url, disk),
        simulator_thread.serve_in_thread(sim.simulator(time_scale=0.0)) as provider,
        router_fleet(
            tmp_path, provider, url, routers=2, control={"reconcile_interval_s": 0.3}
        ) as fleet,
    ):
        world = fleet.world
        fleet.start()
        world.place.start("control", "serve", "control", wait_for="/readyz")
        with world.load(
            3, url=fleet.urls[0], http=lambda: httpx.Client(transport=RoundRobin(fleet.urls))
        ) as load:
            load.more(40)
            with full(disk):
                with pytest.raises(StoreUnavailable):
                    add_keys(fleet)
                if kind == "sqlite":
                    # PostgreSQL goes on in the pages that its tables have.
                    eventually(lambda: min(failed_flushes(fleet)) > 0)
                load.more(100)
                # It reads, or says in a line why it cannot.
                status = world.place.run("status", expect=None)
                assert "Traceback" not in status.stderr + status.stdout
            load.more(40)
        assert load.errors == []
        eventually(lambda: recorded(fleet) >= load.answered)
        for name in fleet.names:
            assert fleet.metric(name, "swapgate_observations_dropped_total") == [0.0]
        # A control plane that was refused goes on by itself.
        world.place.answers("control", "/readyz")
        keys.create_key(
            world.installation.context, SYSTEM, "after", secret=world.installation.secret
        )
        assert fleet.stop() == [0, 0]
        with world.installation.store.read() as tx:
            assert tx.audit.first_break() is None


@pytest.mark.req("G5", "G6")
@pytest.mark.postgres
def test_a_server_that_ends_since_its_log_cannot_grow_is_waited_for_and_loses_nothing(
    tmp_path: Path,
) -> None:
    with (
        log_on_a_small_disk() as (node, disk),
        simulator_thread.serve_in_thread(sim.simulator(time_scale=0.0)) as provider,
        router_fleet(
            tmp_path, provider, node.dsn, routers=2, control={"reconcile_interval_s": 0.3}
        ) as fleet,
    ):
        world = fleet.world
        fleet.start()
        world.place.start("control", "serve", "control", wait_for="/readyz")
        with world.load(
            3, url=fleet.urls[0], http=lambda: httpx.Client(transport=RoundRobin(fleet.urls))
        ) as load:
            load.more(40)
            with full(disk):
                end_by_its_log(node)
                load.more(100)
            node.start()
            load.more(40)
        assert load.errors == []
        eventually(lambda: recorded(fleet) >= load.answered)
        for name in fleet.names:
            assert fleet.metric(name, "swapgate_observations_dropped_total") == [0.0]
        world.place.answers("control", "/readyz")
        assert fleet.stop() == [0, 0]
        with world.installation.store.read() as tx:
            assert tx.audit.first_break() is None


@contextmanager
def log_on_a_small_disk() -> Iterator[tuple[PostgresNode, Path]]:
    """A server whose write-ahead log has a disk of its own, and the disk."""
    with tempfile.TemporaryDirectory(prefix="swapgate-disk-") as name:
        Path(name).chmod(0o755)
        with (
            small_disk(Path(name), size="128m") as disk,
            postgres_node(fsync="on", max_wal_size="1GB") as node,
        ):
            node.stop()
            wal = node.folder / "pg_wal"
            command = ["cp", "-a", str(wal), str(disk / "wal")]  # with its owner
            subprocess.run(command, check=True)  # noqa: S603 - our own command
            shutil.rmtree(wal)
            wal.symlink_to(disk / "wal")
            disk.chmod(0o755)
            node.start()
            yield node, disk


def end_by_its_log(node: PostgresNode) -> None:
    """Writes until the log takes no more, and PostgreSQL ends."""
    server = node.process
    assert server is not None
    until = time.monotonic() + 120.0
    while server.poll() is None and time.monotonic() < until:
        with suppress(psycopg.Error):
            node.query("SELECT pg_logical_emit_message(false, 'full', repeat('x', 4000000))")
    assert server.poll() is not None


def recorded(fleet: RouterFleet) -> int:
    try:
        return fleet.world.recorded()
    except StoreUnavailable:
        return 0


def add_keys(fleet: RouterFleet) -> None:
    """Until the disk takes no more: a page that has room takes a few."""
    installation = fleet.world.installation
    for number in range(1000):
        keys.create_key(
            installation.context, SYSTEM, f"key-{number}", secret=installation.secret
        )
