"""Two real control processes on one database: one leads; stopped, cut off or killed, another
takes its place, and what the first comes back with is not written.
"""

import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from harness.app.database import upgrade_database
from harness.app.installation import Installation, open_installation
from harness.control.operations.alerts import is_open
from harness.domain.operations.alerts import AlertKind
from harness.store.schema.operations import leadership
from tests.support.router.router_process import eventually
from tests.support.site.processes import Site, free_port, site
from tests.support.site.tcp_link import TcpLink

pytestmark = [pytest.mark.slow, pytest.mark.req("G6")]

SETTINGS = {"control": {"reconcile_interval_s": 0.3}}


def start(place: Site, name: str, database: str) -> None:
    """Starts a control process of `place` under a name and on a port of its own."""
    place.ports[name] = free_port()
    place.environment[name] = {
        "SWAPGATE__CONTROL__PORT": str(place.ports[name]),
        "SWAPGATE__DATABASE_URL": database,
    }
    place.start(name, "serve", "control", wait_for="/healthz")


class Leaders:
    """Reads who leads."""

    def __init__(self, installation: Installation, database: str) -> None:
        self.installation = installation
        self._engine = sa.create_engine(database)

    def current(self) -> tuple[int, str]:
        """The term, and the leader's process id."""
        with self._engine.connect() as db:
            row = db.execute(sa.select(leadership.c.term, leadership.c.owner)).one()
        return row.term, row.owner.rpartition("-")[2]

    def close(self) -> None:
        self._engine.dispose()
        self.installation.close()


@contextmanager
def two_controls(folder: Path, database: str, first: str) -> Iterator[tuple[Site, Leaders]]:
    """first: the database's address for the process that leads first."""
    with site(folder, {**SETTINGS, "database_url": database}) as place:
        installation = open_installation(place.config, create_secret=True)
        upgrade_database(installation.settings)
        with closing(Leaders(installation, database)) as leaders:
            start(place, "first", first)
            eventually(lambda: leaders.current() == (1, str(place.pid("first"))))
            start(place, "second", database)
            try:
                yield place, leaders
                logs = place.log("first") + place.log("second")
                assert "reconcile_failed" not in logs
            finally:
                place.children["first"].send_signal(signal.SIGCONT)


def test_whoever_leads_and_is_cut_off_stopped_or_killed_is_replaced(
    postgres_url: str, tmp_path: Path
) -> None:
    url = sa.make_url(postgres_url)
    with closing(TcpLink(f"{url.query['host']}/.s.PGSQL.5432")) as link:
        linked = url.set(query={}, host="127.0.0.1", port=link.port)
        through = linked.render_as_string(hide_password=False)
        with two_controls(tmp_path, postgres_url, through) as (place, leaders):
            first, second = str(place.pid("first")), str(place.pid("second"))

            link.cut()
            eventually(lambda: leaders.current() == (2, second))
            link.mend()
            place.answers("first", "/readyz")

            place.children["second"].send_signal(signal.SIGSTOP)
            eventually(lambda: leaders.current() == (3, first))
            place.children["second"].send_signal(signal.SIGCONT)
            place.answers("second", "/readyz")

            place.kill("first")
            eventually(lambda: leaders.current() == (4, second))
            with leaders.installation.store.read() as tx:
                assert tx.audit.first_break() is None


def test_a_stopped_leader_of_a_sqlite_file_is_named_and_replaced_when_it_is_killed(
    sqlite_url: str, tmp_path: Path
) -> None:
    with two_controls(tmp_path, sqlite_url, sqlite_url) as (place, leaders):
        ctx = leaders.installation.context

        def is_named() -> bool:
            return is_open(ctx, AlertKind.LEADER_SILENT, "leader")

        place.children["first"].send_signal(signal.SIGSTOP)
        eventually(is_named)
        place.children["first"].send_signal(signal.SIGCONT)
        eventually(lambda: not is_named())
        assert leaders.current()[0] == 1

        place.kill("first")
        eventually(lambda: leaders.current() == (2, str(place.pid("second"))))
