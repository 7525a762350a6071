import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from evals.sim import server as sim
from harness.app.control_schedule import control_schedule
from harness.app.database import upgrade_database
from harness.app.installation import Installation, open_installation
from harness.frame.database.leader import PostgresLeadership
from harness.frame.people.access import SYSTEM, Role
from harness.frame.signing.audit_log import AuditLog
from harness.operations import keys
from harness.routing.records.proposals import Proposals
from tests.support.providers import simulator_thread
from tests.support.router.router_process import eventually
from tests.support.site.processes import Site, free_port, site

pytestmark = [pytest.mark.slow, pytest.mark.req("G6")]

SETTINGS: dict[str, object] = {"control": {"reconcile_interval_s": 0.3}}
TAKEOVER_GOAL_S = 10.0
END_S = 240.0


def start(
    place: Site,
    name: str,
    database: str,
) -> None:
    place.ports[name] = free_port()
    place.environment[name] = {
        "SWAPPROOF__CONTROL__PORT": str(place.ports[name]),
        "SWAPPROOF__DATABASE_URL": database,
    }
    place.start(name, "serve", "control", wait_for="/healthz")


class Leaders:
    def __init__(self, installation: Installation) -> None:
        self.installation = installation

    def current(self) -> str:
        return self.installation.store.leader().rpartition("-")[2]

    def close(self) -> None:
        self.installation.close()


def with_route(provider: str) -> dict[str, object]:
    """The sections of a file with one route, whose swaps are quick."""
    return {
        "control": {"reconcile_interval_s": 0.3, "eval_connections": 2},
        "providers": {"sim": {"kind": "sim", "api_base": f"{provider}/v1"}},
        "routes": {
            "support": {
                "incumbent": "sim/sim-base",
                "policy": "demo",
                "suites": ["tickets"],
            }
        },
    }


@contextmanager
def two_controls(
    folder: Path,
    database: str,
    **sections: object,
) -> Iterator[tuple[Site, Leaders]]:
    with site(
        folder,
        {
            **SETTINGS,
            **sections,
            "database_url": database,
        },
    ) as place:
        installation = open_installation(place.config, create_secret=True)
        upgrade_database(installation.settings)
        with closing(Leaders(installation)) as leaders:
            start(place, "first", database)
            eventually(lambda: leaders.current() == str(place.pid("first")))
            start(place, "second", database)
            try:
                yield place, leaders
                logs = place.log("first") + place.log("second")
                assert "reconcile_failed" not in logs
            finally:
                place.children["first"].send_signal(signal.SIGCONT)


@pytest.mark.parametrize("interval_s", [0.3, 1.0, 86_400.0])
def test_by_its_bounds_another_process_leads_within_ten_seconds(
    interval_s: float,
    postgres_url: str,
    tmp_path: Path,
) -> None:
    settings: dict[str, object] = {
        "database_url": postgres_url,
        "control": {"reconcile_interval_s": interval_s},
        "alerts": {"deliver_interval_s": interval_s},
    }
    with site(tmp_path, settings) as place:
        installation = open_installation(place.config, create_secret=True)
        upgrade_database(installation.settings)
        store = installation.store
        schedule = control_schedule(installation)
        assert store.try_lead("control")
        # The server's patience with a leader that says nothing: on the connection that holds
        # the lock, and within a unit of work, which a new term waits for.
        assert isinstance(store._leadership, PostgresLeadership)
        held = store._leadership._db
        assert held is not None
        patience_s = [seconds(held, "idle_session_timeout")]
        with store.write() as tx:
            unit = tx.db
            patience_s.append(seconds(unit, "idle_in_transaction_session_timeout"))
            assert seconds(unit, "lock_timeout") > max(patience_s)
        asks = [job.every_s for job in schedule._jobs]
        installation.close()

    assert all(0 < patience < TAKEOVER_GOAL_S for patience in patience_s)
    asks_every_s = min(every for every in asks if every is not None)
    assert max(patience_s) + asks_every_s <= TAKEOVER_GOAL_S


def seconds(db: sa.Connection, setting: str) -> float:
    """What the server has for this connection; 0 for no limit."""
    query = sa.text("SELECT setting FROM pg_settings WHERE name = :name")
    return int(db.execute(query, {"name": setting}).scalar_one()) / 1000


def test_whoever_leads_and_is_stopped_or_killed_is_replaced(
    postgres_url: str, tmp_path: Path
) -> None:
    with two_controls(tmp_path, postgres_url) as (place, leaders):
        first = str(place.pid("first"))
        second = str(place.pid("second"))

        place.children["first"].send_signal(signal.SIGSTOP)
        eventually(lambda: leaders.current() == second)
        place.children["first"].send_signal(signal.SIGCONT)
        place.answers("first", "/readyz")

        place.kill("second")
        eventually(lambda: leaders.current() == first)
        with leaders.installation.store.read() as tx:
            assert AuditLog(tx).first_break() is None


@pytest.mark.verify
def test_a_leader_of_a_sqlite_file_is_replaced_when_it_is_killed(
    sqlite_url: str, tmp_path: Path
) -> None:
    with two_controls(tmp_path, sqlite_url) as (place, leaders):
        place.kill("first")
        eventually(lambda: leaders.current() == str(place.pid("second")))


@contextmanager
def locked(database: str, table: str) -> Iterator[sa.Connection]:
    """Nobody writes to the table until the block ends or the connection commits."""
    engine = sa.create_engine(database)
    with engine.connect() as db:
        db.exec_driver_sql(f"LOCK TABLE {table} IN SHARE MODE")
        yield db
    engine.dispose()


def is_waited_for(db: sa.Connection, table: str) -> bool:
    query = sa.text(
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = cast(:name AS regclass)"
    )
    return bool(db.execute(query, {"name": table}).scalar_one())


@pytest.mark.verify
@pytest.mark.req("F1")
def test_a_request_that_freezes_with_its_leader_in_a_unit_of_work_has_one_effect(
    postgres_url: str, tmp_path: Path
) -> None:
    """The database ends its unit of work; whoever asks elsewhere meanwhile is served there."""
    body = {
        "route": "support",
        "candidate": "sim/sim-better",
        "reason": "a test",
    }
    with (
        simulator_thread.serve_in_thread(sim.simulator(time_scale=0.0)) as provider,
        two_controls(tmp_path, postgres_url, **with_route(provider)) as (place, leaders),
        ThreadPoolExecutor(1) as clients,
    ):
        installation = leaders.installation
        _, key = keys.create_key(
            installation.context,
            SYSTEM,
            "ann",
            secret=installation.secret,
            role=Role.PROPOSER,
        )

        def propose(at: str) -> httpx.Response:
            return httpx.post(
                f"{place.url(at)}/api/v1/proposals",
                json=body,
                headers={
                    "authorization": f"Bearer {key}",
                    "idempotency-key": "once",
                },
                timeout=END_S,
            )

        with locked(postgres_url, "proposal") as db:
            asked = clients.submit(propose, "first")
            eventually(lambda: is_waited_for(db, "proposal"))
            place.children["first"].send_signal(signal.SIGSTOP)
            db.commit()
            eventually(lambda: leaders.current() == str(place.pid("second")))
        eventually(lambda: (answer := propose("second")).is_success or answer.status_code < 500)
        made = propose("second")
        place.children["first"].send_signal(signal.SIGCONT)
        late = asked.result()

        assert made.status_code == httpx.codes.CREATED
        assert late.status_code == httpx.codes.SERVICE_UNAVAILABLE, late.text
        again = propose("first")
        assert (again.status_code, again.json()["id"]) == (
            made.status_code,
            made.json()["id"],
        )
        with installation.store.read() as tx:
            assert [proposal.id for proposal in Proposals(tx).open()] == [made.json()["id"]]
            actions = [event.action for event in AuditLog(tx).all()]
            assert actions.count("proposal.create") == 1
            assert AuditLog(tx).first_break() is None
