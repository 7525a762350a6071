"""Creates SQLAlchemy engines from URLs, with timeouts, WAL and the kinds of BEGIN.

A SQLite connection keeps using the file that it opened, even after somebody replaces the file,
and then loses its commits. SQLite finds the write-ahead log by name, and would apply the old
file's log to the new file. So a process closes its connections and moves the old log away
before it opens the new file.

This module knows no tables. `store` opens transactions with these engines.
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

from harness.frame.errors import (
    ConfigError,
    DatabaseUnusable,
    StoreUnavailable,
)

WAL_SUFFIX = "-wal"
INDEX_SUFFIX = "-shm"
REPLACED_SUFFIX: Final = ".replaced"
Identity = tuple[int, int]


def identity(file: Path) -> Identity | None:
    """Returns a file's device and inode; None if the file does not exist."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def file_mark(file: Path) -> str:
    """Returns a mark of a SQLite database that changes with each commit: it covers the file and
    its log.
    """
    marks = []
    for path in (file, beside(file, WAL_SUFFIX)):
        with suppress(OSError):
            status = path.stat()
            marks.append(f"{status.st_ino} {status.st_size} {status.st_mtime_ns}")
    return "/".join(marks)


def beside(file: Path, ending: str) -> Path:
    """Returns a file in the same folder whose name has `ending` appended, such as
    SQLite's log.
    """
    return file.with_name(f"{file.name}{ending}")


class SqliteFile:
    """Detects that somebody replaced the file of a SQLite database.

    close: closes this process's connections, each after its present use.
    """

    def __init__(self, file: Path, close: Callable[[], None]) -> None:
        self._file = file
        self._close = close
        self._lock = threading.Lock()
        self._open_identity: Identity | None = None
        self._log_identity: Identity | None = None

    def require(self) -> None:
        """Closes the connections if the file has changed. Call it before each use."""
        current = identity(self._file)
        if current == self._open_identity and current is not None:
            self._log_identity = identity(self._beside(WAL_SUFFIX)) or self._log_identity
            return
        with self._lock:
            if current is None:
                self._close()
                return  # the next connect raises the error
            if self._open_identity is not None and current != self._open_identity:
                self._close()
                self._set_log_aside()
            self._open_identity = current
            self._log_identity = None

    def require_same(self, *, committed: bool = False) -> None:
        """Raises StoreUnavailable if somebody replaced the file, because the write is lost.

        Args:
            committed: whether the commit has run. After a commit, a missing file is no error:
                somebody may bring the file back with the write in it, and a retry would write
                twice.
        """
        current = identity(self._file)
        may_return = current is None and committed
        if (
            self._open_identity is not None
            and current != self._open_identity
            and not may_return
        ):
            raise StoreUnavailable(
                f"{self._file} was replaced during a write: the write is lost with the old "
                "file. Repeat it"
            )

    def _set_log_aside(self) -> None:
        """Renames the log of the replaced file, so that SQLite cannot apply it to the new file.
        The renamed log stays on the disk, because it may hold the only copy of some commits.
        """
        if self._log_identity is None:
            return
        folder = os.open(self._file.parent, os.O_RDONLY)
        try:
            # With the lock, only one process moves the log.
            fcntl.flock(folder, fcntl.LOCK_EX)
            if identity(self._beside(WAL_SUFFIX)) == self._log_identity:
                for suffix in (WAL_SUFFIX, INDEX_SUFFIX):
                    with suppress(FileNotFoundError):
                        self._beside(suffix).replace(self._beside(f"{suffix}{REPLACED_SUFFIX}"))
        finally:
            os.close(folder)

    def _beside(self, ending: str) -> Path:
        return beside(self._file, ending)


LOCK_TIMEOUT_MS: Final = 10_000
CONNECT_TIMEOUT_S: Final = 5
# The system ends a connection whose other machine acknowledges no data for this long.
UNACKNOWLEDGED_MS: Final = 15_000
# libpq's form of a URL for a primary and its standbys. SQLAlchemy needs ?host=A:1&host=B:2
# instead.
_SEVERAL_HOSTS: Final = re.compile(
    r"(?P<head>postgresql(?:\+\w+)?://(?:[^/?#]*@)?)(?P<hosts>[^@/?#]+,[^@/?#]+)(?P<rest>.*)"
)
# PostgreSQL ends an idle transaction after this time, so that a stopped process frees its
# locks.
PAUSE_LIMIT_MS: Final = 7_000

# The name of the execution option that chooses the kind of BEGIN on SQLite.
BEGIN: Final = "swapproof_begin"

# Execution options of writing and reading transactions, by database.
OPTIONS: Final[dict[str, tuple[dict[str, Any], dict[str, Any]]]] = {
    "sqlite": ({BEGIN: "IMMEDIATE"}, {BEGIN: "DEFERRED"}),
    "postgresql": (
        {"isolation_level": "READ COMMITTED"},
        {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True},
    ),
}

# WAL: readers never wait for the writer. NORMAL: commits survive kill -9 of any process. A
# power cut may lose the last commits, but the database stays consistent.
_SQLITE_SETTINGS: Final = (
    f"PRAGMA busy_timeout = {LOCK_TIMEOUT_MS}",
    "PRAGMA synchronous = NORMAL",
    "PRAGMA foreign_keys = ON",
    # SQLite overwrites deleted rows, so free pages do not contain them.
    "PRAGMA secure_delete = ON",
    # 512 KiB, a quarter of the default: each connection has its own cache, and the operating
    # system caches the file as well.
    "PRAGMA cache_size = -512",
)
_WAL: Final = "PRAGMA journal_mode = WAL"
_WAL_PAUSE_S: Final = 0.02


def parse(url: str) -> sa.URL:
    """Parses the URL of a SQLite file or of PostgreSQL. Raises ConfigError for other URLs."""
    try:
        parsed = _parse_url(url)
    except (sa.exc.ArgumentError, ValueError) as error:
        raise ConfigError(
            "the database's URL cannot be read; write sqlite:///path/to/file.db or "
            "postgresql://user@host/database"
        ) from error
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise ConfigError(
            f"database_url: Swapproof needs SQLite or PostgreSQL, not {backend!r}; write "
            "postgresql://user@host/database, or remove the setting for SQLite"
        )
    if parsed.database in (None, "", ":memory:"):
        raise ConfigError("SQLite needs a file: sqlite:///path/to/file.db")
    return parsed


def _parse_url(url: str) -> sa.URL:
    """Parses a URL, also in libpq's form with several hosts. Raises ArgumentError or
    ValueError.
    """
    match = _SEVERAL_HOSTS.fullmatch(url)
    if match is None:
        return sa.make_url(url)
    hosts = [("host", host) for host in match["hosts"].split(",")]
    return sa.make_url(match["head"] + match["rest"]).update_query_pairs(hosts)


def file_of(url: sa.URL) -> Path:
    return Path(str(url.database))


def require_file(url: str) -> None:
    """Raises DatabaseUnusable if the SQLite file does not exist."""
    parsed = parse(url)
    if parsed.get_backend_name() == "sqlite" and not file_of(parsed).exists():
        raise DatabaseUnusable(
            f"there is no database at {file_of(parsed)}: restore the file from a "
            "backup, fix `database_url`, or create a new database with `swapproof init`"
        )


def create_folder(url: sa.URL) -> None:
    """Creates the folder of a SQLite file. Raises StoreUnavailable if it is not writable."""
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
            f"the folder {folder} is not writable, and the database is unchanged: make the "
            "folder writable for the user that runs Swapproof"
        )


def make(
    url: sa.URL,
    *,
    create: bool = False,
    patience_s: float | None = None,
    **options: Any,
) -> sa.Engine:
    """Creates an engine, which connects at its first use.

    Args:
        create: whether to create a missing SQLite file.
        patience_s: PostgreSQL ends the connection after this time without a statement. The
            client waits equally long for an answer.
    """
    if url.get_backend_name() == "postgresql":
        arguments = postgres_arguments(url, patience_s)
        return sa.create_engine(
            url,
            connect_args=arguments,
            pool_pre_ping=True,
            **options,
        )
    engine = sa.create_engine(url, **options)
    if create:
        _make_private(file_of(url))
    else:
        _bind_to_file(engine, file_of(url))
    sa.event.listen(engine, "connect", _set_up_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


@contextmanager
def temporary(url: str | sa.URL, **options: Any) -> Iterator[sa.Engine]:
    """Opens an engine that keeps no connections, and disposes it after the block."""
    parsed = parse(url) if isinstance(url, str) else url
    engine = make(parsed, poolclass=NullPool, **options)
    try:
        yield engine
    finally:
        engine.dispose()


def _make_private(file: Path) -> None:
    """Creates a file that only its owner can read, because it will contain prompts
    and answers.
    """
    with suppress(FileExistsError):
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def _bind_to_file(engine: sa.Engine, file: Path) -> None:
    """Refuses connections to a missing, moved or replaced file. A new file in its place would
    hide the loss.
    """

    def connect(
        dialect: sa.Dialect,  # noqa: ARG001 - the event's signature
        record: ConnectionPoolEntry,
        arguments: list[str],
        keywords: dict[str, object],
    ) -> None:
        arguments[0] = f"{file.absolute().as_uri()}?mode=rw"
        keywords["uri"] = True
        record.info["file"] = identity(file)

    def check_out(
        connection: DBAPIConnection,  # noqa: ARG001 - the event's signature
        record: ConnectionPoolEntry,
        proxy: sa.PoolProxiedConnection,  # noqa: ARG001
    ) -> None:
        if identity(file) != record.info["file"]:
            raise sa.exc.DisconnectionError(f"somebody replaced {file}")

    sa.event.listen(engine, "do_connect", connect)
    sa.event.listen(engine, "checkout", check_out)


def postgres_arguments(url: sa.URL, patience_s: float | None = None) -> dict[str, object]:
    """Returns connect arguments that the URL does not set, such as limits on waits."""
    settings = f"-c lock_timeout={LOCK_TIMEOUT_MS}"
    arguments: dict[str, object] = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        # Detects within 30 s that the database's machine has disappeared.
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 2,
        "tcp_user_timeout": UNACKNOWLEDGED_MS,
        # Prepares no statements: a pooler in transaction mode may run the next statement in a
        # session without them.
        "prepare_threshold": None,
    }
    if patience_s is not None:
        patience_ms = int(patience_s * 1000)
        settings += f" -c idle_session_timeout={patience_ms}"
        arguments["tcp_user_timeout"] = patience_ms
    arguments["options"] = settings
    return {name: value for name, value in arguments.items() if name not in url.query}


def driver_arguments(url: sa.URL) -> dict[str, Any]:
    """Returns the arguments of psycopg's `connect`, which has its own form for
    several hosts.
    """
    return {**_named_arguments(url), **postgres_arguments(url)}


_LIMITS: Final = sa.text(
    f"SELECT set_config('idle_in_transaction_session_timeout', '{PAUSE_LIMIT_MS}', true),"
    f" set_config('lock_timeout', '{LOCK_TIMEOUT_MS}', true)"
)


# Cached to save memory: a router tries an unavailable database twice a second, and each call
# would build a dialect. A dialect is a cycle of objects, which a worker's garbage collector
# seldom frees.
@cache
def _named_arguments(url: sa.URL) -> Mapping[str, Any]:
    _, keywords = url.get_dialect()().create_connect_args(url)
    return MappingProxyType(keywords)


def limit_waits(db: sa.Connection) -> None:
    """Sets PostgreSQL's limits on idle time and on waits for locks, so that a stopped process
    does not block others. Sets them for the transaction, because a pooler may ignore the
    settings of a connection.
    """
    if db.dialect.name == "postgresql":
        db.execute(_LIMITS)


def _set_up_sqlite(connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:  # noqa: ARG001 - the event's signature
    # Turns off the driver's BEGIN, which never is IMMEDIATE and comes too late.
    connection.isolation_level = None
    cursor = connection.cursor()
    for setting in _SQLITE_SETTINGS:
        cursor.execute(setting)
    _switch_to_wal(cursor)
    cursor.close()


def _switch_to_wal(cursor: DBAPICursor) -> None:
    """Switches a database to WAL. Raises OperationalError if others lock the file for
    too long.
    """
    # Tries repeatedly, because SQLite does not wait for this lock. If several processes open a
    # new file at the same time, only one of them gets no error.
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
    begin_kind = connection.get_execution_options()[BEGIN]
    connection.exec_driver_sql(f"BEGIN {begin_kind}")
