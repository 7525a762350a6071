"""Makes SQLAlchemy engines from URLs: timeouts, WAL, and how a transaction begins.

A SQLite connection goes on with the file that it opened, also after somebody moved it: its
commits are lost. SQLite finds the write-ahead log by name and would play the old file's log
into the new one. So a process closes its connections, and sets the old file's log aside before
it opens a new file.
"""

import fcntl
import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from harness.frame.errors import ConfigError, DatabaseUnusable, StoreUnavailable

LOG, INDEX = "-wal", "-shm"
ASIDE: Final = ".replaced"
Identity = tuple[int, int]


def identity(file: Path) -> Identity | None:
    """Device and inode; None where there is no such file."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def file_mark(file: Path) -> str:
    """Builds a mark of a SQLite database that another commit changes: of the file and its log,
    which is written at each.
    """
    marks = []
    for path in (file, beside(file, LOG)):
        with suppress(OSError):
            found = path.stat()
            marks.append(f"{found.st_ino} {found.st_size} {found.st_mtime_ns}")
    return "/".join(marks)


def beside(file: Path, ending: str) -> Path:
    return file.with_name(f"{file.name}{ending}")


class SqliteFile:
    """Watches the file of a SQLite database, which may be replaced while it is open. close: of
    all idle connections of this process; those in use close when they are done.
    """

    def __init__(self, file: Path, close: Callable[[], None]) -> None:
        self._file = file
        self._close = close
        self._turn = threading.Lock()
        self._open: Identity | None = None
        self._log: Identity | None = None

    def require(self) -> None:
        """Checks before each use that the file is the same; else closes the connections."""
        now = identity(self._file)
        if now == self._open and now is not None:
            self._log = identity(self._beside(LOG)) or self._log
            return
        with self._turn:
            if now is None:
                self._close()
                return  # to open it says so
            if self._open is not None and now != self._open:
                self._close()
                self._set_log_aside()
            self._open, self._log = now, None

    def require_same(self, *, committed: bool = False) -> None:
        """Checks that the file was not replaced, else raises StoreUnavailable: a write is lost.
        committed: after the commit. Then a file that was moved still holds the write and may
        come back, so a retry could write it twice.
        """
        now = identity(self._file)
        away = now is None and committed
        if self._open is not None and now != self._open and not away:
            raise StoreUnavailable(
                f"{self._file} was replaced during a write: the write is lost with the file "
                "before, and must be repeated"
            )

    def _set_log_aside(self) -> None:
        if self._log is None:
            return
        folder = os.open(self._file.parent, os.O_RDONLY)
        try:
            # One process moves the log; the others find another log, or no log.
            fcntl.flock(folder, fcntl.LOCK_EX)
            if identity(self._beside(LOG)) == self._log:
                for suffix in (LOG, INDEX):
                    with suppress(FileNotFoundError):
                        self._beside(suffix).replace(self._beside(f"{suffix}{ASIDE}"))
        finally:
            os.close(folder)

    def _beside(self, ending: str) -> Path:
        return beside(self._file, ending)


LOCK_TIMEOUT_MS: Final = 10_000
CONNECT_TIMEOUT_S: Final = 5
# A machine that has not acknowledged what it was sent is gone, and the connection with it.
UNANSWERED_MS: Final = 15_000
# libpq's form for a primary and its standbys, which SQLAlchemy does not read: its own is
# ?host=A:1&host=B:2.
_SEVERAL_HOSTS: Final = re.compile(
    r"(?P<head>postgresql(?:\+\w+)?://(?:[^/?#]*@)?)(?P<hosts>[^@/?#]+,[^@/?#]+)(?P<rest>.*)"
)
# Of a process that is stopped within a unit of work, and would hold its locks.
PAUSE_LIMIT_MS: Final = 7_000

# Which BEGIN a SQLite connection starts its next transaction with.
BEGIN: Final = "swapgate_begin"

# How a unit of work begins, by database: to write, and to read.
OPTIONS: Final[dict[str, tuple[dict[str, Any], dict[str, Any]]]] = {
    "sqlite": ({BEGIN: "IMMEDIATE"}, {BEGIN: "DEFERRED"}),
    "postgresql": (
        {"isolation_level": "READ COMMITTED"},
        {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True},
    ),
}

# WAL: readers never wait for the writer. NORMAL: commits survive kill -9 of any process. A
# power cut may take the last commits, never the database's consistency.
_SQLITE_SETTINGS: Final = (
    f"PRAGMA busy_timeout = {LOCK_TIMEOUT_MS}",
    "PRAGMA synchronous = NORMAL",
    "PRAGMA foreign_keys = ON",
    # SQLite overwrites deleted rows: no free page keeps them.
    "PRAGMA secure_delete = ON",
    # KiB, a quarter of the usual. The system keeps the file in memory as well, and every
    # connection of every process fills a cache of its own.
    "PRAGMA cache_size = -512",
)
_WAL: Final = "PRAGMA journal_mode = WAL"
_WAL_PAUSE_S: Final = 0.02


def parse(url: str) -> sa.URL:
    """Parses the URL of a SQLite file or of PostgreSQL. Raises ConfigError for another one."""
    try:
        parsed = _read(url)
    except (sa.exc.ArgumentError, ValueError) as error:
        raise ConfigError(
            "the database's URL cannot be read; write sqlite:///path/to/file.db or "
            "postgresql://user@host/database"
        ) from error
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise ConfigError(f"Swapgate stores in SQLite or PostgreSQL, not in {backend!r}")
    if parsed.database in (None, "", ":memory:"):
        raise ConfigError("SQLite needs a file: sqlite:///path/to/file.db")
    return parsed


def _read(url: str) -> sa.URL:
    match = _SEVERAL_HOSTS.fullmatch(url)
    if match is None:
        return sa.make_url(url)
    hosts = [("host", host) for host in match["hosts"].split(",")]
    return sa.make_url(match["head"] + match["rest"]).update_query_pairs(hosts)


def file_of(url: sa.URL) -> Path:
    return Path(str(url.database))


def require_file(url: str) -> None:
    """Requires that SQLite's file exists; else raises DatabaseUnusable."""
    parsed = parse(url)
    if parsed.get_backend_name() == "sqlite" and not file_of(parsed).exists():
        raise DatabaseUnusable(
            f"there is no database at {file_of(parsed)}: bring the file back from a "
            "backup, fix `database_url`, or make a new one with `swapgate init`"
        )


def make_folder(url: sa.URL) -> None:
    """Makes the folder of SQLite's file. Raises StoreUnavailable where it cannot be written."""
    if url.get_backend_name() != "sqlite":
        return
    folder = file_of(url).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreUnavailable(
            f"cannot create the folder {folder} ({error.strerror}): choose another place with "
            "`database_url`"
        ) from error
    if not os.access(folder, os.W_OK):
        raise StoreUnavailable(
            f"the folder {folder} cannot be written, so that the database stays as it is: make "
            "it writable, as the user that runs Swapgate"
        )


def make(
    url: sa.URL, *, create: bool = False, patience_s: float | None = None, **options: Any
) -> sa.Engine:
    """An engine; it connects when it is first used. create: a SQLite file that is missing.
    patience_s: after so long without a statement PostgreSQL ends the connection; so long its
    owner waits for the server.
    """
    if url.get_backend_name() == "postgresql":
        arguments = postgres_arguments(url, patience_s)
        return sa.create_engine(url, connect_args=arguments, pool_pre_ping=True, **options)
    engine = sa.create_engine(url, **options)
    if create:
        _make_private(file_of(url))
    else:
        _keep_to_the_file(engine, file_of(url))
    sa.event.listen(engine, "connect", _set_up_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


@contextmanager
def temporary(url: str | sa.URL, **options: Any) -> Iterator[sa.Engine]:
    parsed = parse(url) if isinstance(url, str) else url
    made = make(parsed, poolclass=NullPool, **options)
    try:
        yield made
    finally:
        made.dispose()


def _make_private(file: Path) -> None:
    """A new file is its owner's alone: it will hold prompts and answers."""
    with suppress(FileExistsError):
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def _keep_to_the_file(engine: sa.Engine, file: Path) -> None:
    """Never makes a file, and never goes on with a moved or replaced one.

    Else a process that was started while the file was away would not find it again.
    """

    def connect(
        dialect: sa.Dialect,  # noqa: ARG001 - the event's signature
        record: ConnectionPoolEntry,
        arguments: list[str],
        named: dict[str, object],
    ) -> None:
        arguments[0] = f"{file.absolute().as_uri()}?mode=rw"
        named["uri"] = True
        record.info["file"] = identity(file)

    def check_out(
        connection: DBAPIConnection,  # noqa: ARG001 - the event's signature
        record: ConnectionPoolEntry,
        proxy: sa.PoolProxiedConnection,  # noqa: ARG001
    ) -> None:
        if identity(file) != record.info["file"]:
            raise sa.exc.DisconnectionError(f"{file} is another file now")

    sa.event.listen(engine, "do_connect", connect)
    sa.event.listen(engine, "checkout", check_out)


def postgres_arguments(url: sa.URL, patience_s: float | None = None) -> dict[str, object]:
    """Returns defaults for the URL: a limit of the wait to connect, and for a lock."""
    settings = f"-c lock_timeout={LOCK_TIMEOUT_MS}"
    arguments: dict[str, object] = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        # A machine that is gone without a word is noticed within half a minute.
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 2,
        "tcp_user_timeout": UNANSWERED_MS,
        # A pooler in transaction mode may run the next statement in another session, which
        # lacks a statement that was prepared before.
        "prepare_threshold": None,
    }
    if patience_s is not None:
        patience_ms = int(patience_s * 1000)
        settings += f" -c idle_session_timeout={patience_ms}"
        arguments["tcp_user_timeout"] = patience_ms
    arguments["options"] = settings
    return {name: value for name, value in arguments.items() if name not in url.query}


def driver_arguments(url: sa.URL) -> dict[str, Any]:
    """The arguments of psycopg's `connect`, which writes several hosts in its own way."""
    return {**_named_arguments(url), **postgres_arguments(url)}


_LIMITS: Final = sa.text(
    f"SELECT set_config('idle_in_transaction_session_timeout', '{PAUSE_LIMIT_MS}', true),"
    f" set_config('lock_timeout', '{LOCK_TIMEOUT_MS}', true)"
)


# A router whose database is away asks twice a second, and each dialect is a cycle of objects
# that a worker, which seldom looks for garbage, keeps for hours.
@cache
def _named_arguments(url: sa.URL) -> Mapping[str, Any]:
    _, named = url.get_dialect()().create_connect_args(url)
    return MappingProxyType(named)


def limit_waits(db: sa.Connection) -> None:
    """Lets PostgreSQL end an idle transaction, so that a stopped or disconnected process does
    not hold up others, and limits the wait for a lock: a pooler may leave out what the
    connection began with.
    """
    if db.dialect.name == "postgresql":
        db.execute(_LIMITS)


def _set_up_sqlite(connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:  # noqa: ARG001 - the event's signature
    # No BEGIN by the driver: it begins late, and never IMMEDIATE.
    connection.isolation_level = None
    cursor = connection.cursor()
    for setting in _SQLITE_SETTINGS:
        cursor.execute(setting)
    _into_wal(cursor)
    cursor.close()


def _into_wal(cursor: DBAPICursor) -> None:
    # SQLite does not wait for this lock: of processes that open a new file at once, all but
    # one are told that it is locked.
    deadline = time.monotonic() + LOCK_TIMEOUT_MS / 1000
    while True:
        try:
            cursor.execute(_WAL)
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(_WAL_PAUSE_S)
        else:
            return


def _begin_sqlite(connection: sa.Connection) -> None:
    how = connection.get_execution_options()[BEGIN]
    connection.exec_driver_sql(f"BEGIN {how}")
