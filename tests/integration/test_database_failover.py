import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import psycopg
import pytest

from evals.sim import server as sim
from harness.app.installation import Installation
from harness.frame.alerts.records import Alerts
from harness.frame.errors import StoreUnavailable
from harness.frame.people.access import SYSTEM
from harness.frame.signing.audit_log import AuditLog
from harness.operations import integrity, keys
from harness.routing.control import routes
from harness.routing.records.observations import Observations
from harness.routing.records.proposals import Rollouts
from tests.support.providers import simulator_thread
from tests.support.router.router_fleet import (
    RoundRobin,
    RouterFleet,
    router_fleet,
)
from tests.support.router.router_process import (
    ROUTE,
    Load,
    Routed,
    eventually,
    start_canary,
)
from tests.support.site.processes import free_port
from tests.support.site.small_disk import full, small_disk
from tests.support.store.postgres_cluster import (
    PostgresCluster,
    postgres_cluster,
    postgres_node,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CONTROLS = ("control-1", "control-2")
LEADER = (
    "SELECT max(a.application_name) FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
    " WHERE l.locktype = 'advisory' AND l.granted AND a.application_name LIKE 'control-%'"
)


@dataclass
class Operation:
    """Two routers, and controls where started, on a primary with its standby."""

    cluster: PostgresCluster
    fleet: RouterFleet
    rollout: str = ""

    def start_controls(self) -> None:
        place = self.fleet.world.place
        for name in CONTROLS:
            place.ports[name] = free_port()
            place.environment[name] = {"SWAPPROOF__CONTROL__PORT": str(place.ports[name])}
            place.start(name, "serve", "control")
        for name in CONTROLS:
            place.answers(name, "/readyz")

    @contextmanager
    def load(self) -> Iterator[Load]:
        urls = self.fleet.urls
        with self.fleet.world.load(
            3,
            url=urls[0],
            http=lambda: httpx.Client(transport=RoundRobin(urls)),
            users_each=40,
        ) as load:
            yield load

    def states(self) -> set[str]:
        return {
            httpx.get(f"{url}/readyz", timeout=60).json()["status"] for url in self.fleet.urls
        }

    def leader(self) -> str:
        """Names the process that leads, as the server that takes writes knows it."""
        try:
            return str(self.cluster.primary.query(LEADER) or "")
        except psycopg.OperationalError:
            return ""

    def add_key(self, name: str) -> str:
        installation = self.fleet.world.installation
        made = keys.create_key(installation.context, SYSTEM, name, secret=installation.secret)
        return made[1]

    def knows(self, key: str) -> bool:
        return all(
            httpx.get(
                f"{url}/v1/models",
                headers={"authorization": f"Bearer {key}"},
                timeout=60,
            ).is_success
            for url in self.fleet.urls
        )

    def check_books(self, load: Load, *, lost: int = 0) -> None:
        """Every request is there. A batch whose commit was not acknowledged may be there twice,
        one of each router; callers of the canary never are.
        """
        world = self.fleet.world
        eventually(lambda: world.recorded() >= load.answered - lost)
        assert self.fleet.stop() == [0, 0]
        with world.installation.store.read() as tx:
            blocks = Observations(tx).blocks(self.rollout)
            assert AuditLog(tx).first_break() is None
        assert sum(block.units for block in blocks) == len(load.users)
        assert sum(block.failures + block.missing for block in blocks) == 0


@contextmanager
def operation(folder: Path, cluster: PostgresCluster) -> Iterator[Operation]:
    """Routers that serve, with a canary open."""
    with (
        simulator_thread.serve_in_thread(sim.simulator(time_scale=0.0)) as provider,
        router_fleet(
            folder,
            provider,
            cluster.url(),
            routers=2,
            control={"reconcile_interval_s": 0.3},
        ) as fleet,
    ):
        fleet.start()
        start_canary(fleet.world, folder)
        eventually(fleet.in_force)
        with fleet.world.installation.store.read() as tx:
            (rollout,) = Rollouts(tx).live()
        yield Operation(cluster, fleet, rollout.id)


@pytest.mark.postgres
@pytest.mark.req("G5", "G6")
@pytest.mark.verify
@pytest.mark.parametrize("fault", ["killed", "frozen"])
def test_a_standby_takes_over_from_a_primary_and_nobody_notices(
    fault: str, tmp_path: Path
) -> None:
    with (
        postgres_cluster(synchronous=True) as cluster,
        operation(tmp_path, cluster) as site,
    ):
        site.start_controls()
        eventually(lambda: bool(site.leader()))
        with site.load() as load:
            load.more(40)
            key = site.add_key("before")
            if fault == "frozen":
                cluster.primary.freeze()
                load.more(40)
                # As a cluster manager fences it, before it promotes.
                cluster.primary.kill()
            else:
                cluster.primary.kill()
                eventually(lambda: site.states() == {"degraded"})
            load.more(40)
            cluster.promote()
            eventually(lambda: site.states() == {"ok"})
            eventually(lambda: bool(site.leader()))
            after = site.add_key("after")
            eventually(lambda: site.knows(after))
            load.more(40)
        assert load.errors == []
        assert site.knows(key)
        site.check_books(load)
        for name in CONTROLS:
            assert "Traceback" not in site.fleet.world.place.log(name)


@pytest.mark.postgres
@pytest.mark.verify
@pytest.mark.req("G5", "G6")
def test_what_an_asynchronous_standby_lacks_is_named_and_given_up_by_a_person(
    tmp_path: Path,
) -> None:
    with postgres_cluster() as cluster, operation(tmp_path, cluster) as site:
        world = site.fleet.world
        with site.load() as load:
            load.more(40)
        eventually(lambda: world.recorded() == load.answered)
        cluster.wait_until_caught_up()
        cluster.detach()
        key = site.add_key("in the lost tail")
        change_route(world, "in the lost tail")
        eventually(lambda: site.knows(key) and site.fleet.in_force())
        with site.load() as tail:
            tail.more(40)
        eventually(lambda: world.recorded() == load.answered + tail.answered)
        highest = world.revision()

        cluster.primary.kill()
        cluster.promote()
        eventually(lambda: site.states() == {"degraded"})
        with site.load() as meanwhile:
            meanwhile.more(40)
            assert site.knows(key)  # what was served is served on
            ctx = world.installation.context
            eventually(lambda: alert_names(world.installation) == {"database_restored"})
            integrity.accept_restore(
                ctx,
                SYSTEM,
                reason="the primary is lost",
                above=highest,
            )
            eventually(lambda: site.states() == {"ok"})
            change_route(world, "after it")
            assert world.revision() > highest
            eventually(site.fleet.in_force)
            assert not site.knows(key)
            meanwhile.more(40)
        errors = load.errors + tail.errors + meanwhile.errors
        assert errors == []
        # The books of the tail are lost with it, and nothing else.
        eventually(lambda: world.recorded() == load.answered + meanwhile.answered)
        with world.installation.store.read() as tx:
            assert AuditLog(tx).first_break() is None


def change_route(world: Routed, description: str) -> None:
    routes.change_settings(
        world.installation.context,
        SYSTEM,
        ROUTE,
        lambda now: replace(now, description=description),
    )


def alert_names(installation: Installation) -> set[str]:
    with installation.store.read() as tx:
        return {alert.kind.value for alert in Alerts(tx).list() if alert.open}


@contextmanager
def database_on_a_small_disk(kind: str) -> Iterator[tuple[str, Path]]:
    """Its address, and the disk."""
    # pytest's own folder is closed to the account that PostgreSQL runs as.
    with tempfile.TemporaryDirectory(prefix="swapproof-disk-") as name:
        Path(name).chmod(0o755)
        if kind == "sqlite":
            with small_disk(Path(name)) as disk:
                yield f"sqlite:///{disk / 'swapproof.db'}", disk
            return
        with (
            small_disk(Path(name), size="160m") as disk,
            postgres_node(
                folder=disk / "database",
                max_wal_size="48MB",
                min_wal_size="32MB",
            ) as node,
        ):
            yield node.dsn, disk


def failed_flushes(fleet: RouterFleet) -> list[float]:
    name = "swapproof_router_flushes_failed_total"
    return [sum(fleet.metric(router, name)) for router in fleet.names]


@pytest.mark.verify
@pytest.mark.req("G5", "G6")
@pytest.mark.parametrize(
    "kind",
    ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)],
)
def test_with_the_databases_disk_full_requests_are_served_and_recorded_later(
    kind: str, tmp_path: Path
) -> None:
    with (
        database_on_a_small_disk(kind) as (url, disk),
        simulator_thread.serve_in_thread(sim.simulator(time_scale=0.0)) as provider,
        router_fleet(
            tmp_path,
            provider,
            url,
            routers=2,
            control={"reconcile_interval_s": 0.3},
        ) as fleet,
    ):
        world = fleet.world
        fleet.start()
        world.place.start("control", "serve", "control", wait_for="/readyz")
        with world.load(
            3,
            url=fleet.urls[0],
            http=lambda: httpx.Client(transport=RoundRobin(fleet.urls)),
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
            assert fleet.metric(name, "swapproof_observations_dropped_total") == [0.0]
        # A control plane that was refused goes on by itself.
        world.place.answers("control", "/readyz")
        keys.create_key(
            world.installation.context,
            SYSTEM,
            "after",
            secret=world.installation.secret,
        )
        assert fleet.stop() == [0, 0]
        with world.installation.store.read() as tx:
            assert AuditLog(tx).first_break() is None


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
            installation.context,
            SYSTEM,
            f"key-{number}",
            secret=installation.secret,
        )
