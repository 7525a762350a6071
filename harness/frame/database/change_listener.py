"""Waits until another connection may have changed the database (`Changes`), and identifies the
database state that a transaction sees (`visible_state`).

A call returns once for all changes since the caller's last call. On PostgreSQL, triggers send
NOTIFY. A wake-up says only that something may have changed: the caller reads the rows itself.
It also reads them after its timeout, because a notification can get lost with its connection.
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from harness.frame.database import engine
from harness.frame.database.engine import identity
from harness.frame.database.leader import has_shared_session
from harness.frame.records.transaction import clear_frames

# The shorter interval costs 0.25 % of a core.
POLL_S: Final = 0.1
QUIET_POLL_S: Final = 0.2
QUIET_AFTER_S: Final = 10.0  # polls less often after this time without a change
# A thread listens at most this long. After that, another thread may listen, or `close` takes
# effect.
SLICE_S: Final = 0.2


class SqliteListener:
    """Polls `PRAGMA data_version`, which changes when another connection commits."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._opened = identity(file)
        # mode=rw, so that a connection does not create a missing file.
        self._db = sqlite3.connect(
            f"{file.absolute().as_uri()}?mode=rw",
            uri=True,
            check_same_thread=False,
            isolation_level=None,
        )
        self._seen_version = self.version()
        self._changed_at = time.monotonic()

    def version(self) -> int:
        """Returns SQLite's counter of other connections' commits."""
        return int(self._db.execute("PRAGMA data_version").fetchone()[0])

    def poll_changes(self, timeout_s: float) -> bool:
        """Waits for a change, at most `timeout_s`. Raises OSError or sqlite3.Error if the
        database is lost.
        """
        self.require_same()
        former_version = self._seen_version
        self._seen_version = self.version()
        now = time.monotonic()
        if self._seen_version != former_version:
            self._changed_at = now
            return True
        is_quiet = now - self._changed_at > QUIET_AFTER_S
        time.sleep(min(QUIET_POLL_S if is_quiet else POLL_S, timeout_s))
        return False

    def require_same(self) -> None:
        """Raises OSError if somebody replaced the file."""
        if identity(self._file) != self._opened:
            raise OSError(f"somebody replaced {self._file}")

    def close(self) -> None:
        self._db.close()


class PooledListener:
    """Waits for the timeout only: behind a pooler in transaction mode, a notification would
    reach another connection. So the callers of `Changes.wait` read the rows after their
    timeouts.
    """

    def poll_changes(self, timeout_s: float) -> bool:
        time.sleep(timeout_s)
        return False

    def close(self) -> None: ...


def open_listener(url: sa.URL) -> "SqliteListener | PostgresListener | PooledListener":
    """Opens the listener for the database. Raises ConnectionError if PostgreSQL does not
    answer, and sqlite3.Error if the SQLite file is missing.
    """
    if url.get_backend_name() == "sqlite":
        return SqliteListener(engine.file_of(url))
    try:
        return PooledListener() if has_shared_session(url) else PostgresListener(url)
    except sa.exc.DBAPIError as error:
        clear_frames(error, error.orig)
        raise ConnectionError("the connection to PostgreSQL is lost") from error


class Changes:
    """Blocks callers until the database may have changed. require: runs before each connect."""

    def __init__(self, url: sa.URL, require: Callable[[], None] = lambda: None) -> None:
        self._url = url
        self._require = require
        self._listener: SqliteListener | PostgresListener | PooledListener | None = None
        self._lock = threading.Lock()
        self._changes = 0
        self._seen_version = threading.local()
        self._closed = False

    def wait(self, timeout_s: float) -> bool:
        """Returns True once the database may have changed since this thread's last call, or
        False after `timeout_s` seconds. A lost connection is opened again and counts as a
        change.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            left_s = deadline - time.monotonic()
            self._listen(max(0.0, min(left_s, SLICE_S)))
            if self._changes != getattr(self._seen_version, "changes", 0):
                self._seen_version.changes = self._changes
                return True
            if left_s <= 0 or self._closed:
                return False

    def _listen(self, timeout_s: float) -> None:
        with self._lock:
            if self._closed:
                return
            try:
                if self._listener is None:
                    self._require()
                    self._listener = open_listener(self._url)
                    # Counts as a change, because the database may have changed before.
                    self._changes += 1
                elif self._listener.poll_changes(timeout_s):
                    self._changes += 1
            except (OSError, sqlite3.Error):
                self._close_listener()
                time.sleep(timeout_s)

    def _close_listener(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def close(self) -> None:
        self._closed = True
        with self._lock:
            self._close_listener()


# NULL on a standby, because a standby's snapshot omits transactions in progress.
_SNAPSHOT: Final = sa.text(
    "SELECT CASE WHEN NOT pg_is_in_recovery() THEN pg_current_snapshot()::text END"
)


def visible_state(db: sa.Connection) -> object | None:
    """Returns a value that identifies the state that a reading transaction sees. While it stays
    equal, reads on one connection return the same rows. None if the database has no such value.
    """
    if db.dialect.name == "postgresql":
        snapshot: str | None = db.execute(_SNAPSHOT).scalar_one()
        return snapshot
    version = db.exec_driver_sql("PRAGMA data_version").scalar_one()
    driver: Any = db.connection.driver_connection
    # `data_version` counts the commits of other connections, `total_changes` our own writes.
    return version, driver.total_changes


CHANNEL: Final = "swapproof_changed"


class PostgresListener:
    """Listens to NOTIFY on a separate connection. Raises ConnectionError if the connection is
    lost.
    """

    def __init__(self, url: sa.URL) -> None:
        # Imported late, because the driver loads slowly and SQLite does not need it.
        import psycopg  # noqa: PLC0415

        with _translate_lost_connection():
            self._db = psycopg.connect(autocommit=True, **engine.driver_arguments(url))
            self._db.execute(f"LISTEN {CHANNEL}")

    def poll_changes(self, timeout_s: float) -> bool:
        with _translate_lost_connection():
            return any(True for _ in self._db.notifies(timeout=timeout_s, stop_after=1))

    def close(self) -> None:
        self._db.close()


@contextmanager
def _translate_lost_connection() -> Iterator[None]:
    import psycopg  # noqa: PLC0415 - only a PostgreSQL database needs it

    try:
        yield
    except psycopg.Error as error:
        clear_frames(error)
        raise ConnectionError("the connection to PostgreSQL is lost") from error
