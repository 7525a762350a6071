"""Starts a PostgreSQL server for one test alone, which may stop and start it."""

import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import psycopg
from psycopg import sql

from harness.store.migrate import upgrade


class OwnPostgres:
    """A server of this test alone, which it may stop."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.start()

    def start(self, *, ask: bool = True, **settings: object) -> None:
        """settings: of the server, in place of those of an earlier start. ask: wait for an
        answer, which there may be none of where others take all connections.
        """
        from tests.support.store.postgres import started  # noqa: PLC0415 - the package is for Linux only

        if self._folder.joinpath("PG_VERSION").exists():
            lines = [f"{name} = {value}\n" for name, value in settings.items()]
            self._folder.joinpath("postgresql.auto.conf").write_text("".join(lines), "utf-8")
        if ask:
            self._server = started(self._folder)
            return
        with suppress(subprocess.SubprocessError, AssertionError, OSError):
            self._server.start()

    def stop(self) -> None:
        self._server.stop()
        # The package forgets a server whose start it did not see to the end.
        pid_file = self._folder / "postmaster.pid"
        if pid_file.exists():
            server = psutil.Process(int(pid_file.read_text("utf-8").splitlines()[0]))
            server.send_signal(signal.SIGINT)
            server.wait(60)

    def kill(self) -> None:
        """SIGKILL to the server's first process; the others end by themselves."""
        pid_file = self._folder / "postmaster.pid"
        server = psutil.Process(int(pid_file.read_text("utf-8").splitlines()[0]))
        children = server.children(recursive=True)
        server.kill()
        psutil.wait_procs([server, *children], timeout=60)

    def new_database(self) -> str:
        """The address of a new database with our tables, copied from the first one."""
        name = f"copy_{uuid.uuid4().hex}"
        with psycopg.connect(self._server.get_uri(database="template1"), autocommit=True) as db:
            new = sql.Identifier(name)
            db.execute(sql.SQL("CREATE DATABASE {} TEMPLATE postgres").format(new))
        return self.url(name)

    def url(self, database: str) -> str:
        return self._server.get_uri(database=database, driver="psycopg")


@contextmanager
def own_postgres() -> Iterator[OwnPostgres]:
    from tests.support.store.postgres import stop_server  # noqa: PLC0415 - as above

    # As in conftest: pytest's own folder is closed to the user that PostgreSQL runs as.
    folder = Path(tempfile.mkdtemp(prefix="swapgate-own-pg-"))
    server = OwnPostgres(folder)
    try:
        upgrade(server.url("postgres"))
        yield server
    finally:
        stop_server(folder)
