"""Elects the control process that runs the periodic jobs, by a lock that the system frees when
the process ends.

A stopped (SIGSTOP) or disconnected leader cannot free its lock. PostgreSQL ends its connection
after `SILENCE_LIMIT_S` without a heartbeat, and another process leads. The old leader may
resume in the middle of a job. So each write compares the row with the version that the process
read. Before work without such a row, a process claims the work in the database.

`require_own_session` refuses poolers in transaction mode, which give one server session to
several connections. Advisory locks and LISTEN need a separate session; routers use neither of
the two.
"""

import fcntl
import threading
from contextlib import suppress
from typing import IO, Final

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from harness.frame.database import engine
from harness.frame.errors import DatabaseUnusable, StoreUnavailable
from harness.frame.records.transaction import clear_frames, translated

_SESSION: Final = sa.text("SELECT pg_backend_pid()")
_POOLER_PORT: Final = 6543
# Asks several times, because a pooler may use another session for each statement.
_STATEMENTS: Final = 3


def require_own_session(url: str | sa.URL) -> None:
    """Raises DatabaseUnusable if the database answers behind a pooler in transaction mode."""
    parsed = engine.parse(url) if isinstance(url, str) else url
    try:
        if has_shared_session(parsed):
            raise DatabaseUnusable(_describe_pooler(parsed))
    except sa.exc.DBAPIError as error:
        # No error, because a process can start without the server.
        clear_frames(error, error.orig)


def has_shared_session(url: sa.URL) -> bool:
    """Returns whether connections share sessions; False on SQLite, which has no sessions.

    Opens two connections. A pooler in transaction mode gives the second connection the session
    of the first, or uses another session for the first connection's next statement.
    """
    if url.get_backend_name() != "postgresql":
        return False
    with (
        engine.temporary(url, isolation_level="AUTOCOMMIT") as temporary_engine,
        temporary_engine.connect() as first,
        temporary_engine.connect() as second,
    ):
        sessions_of_first = _read_sessions(first)
        transactional = second.execution_options(isolation_level="READ COMMITTED")
        with transactional.begin():
            if sessions_of_first & _read_sessions(transactional):
                return True  # with a pool of one session, the next statement would wait
            sessions_of_first |= _read_sessions(first)
        return len(sessions_of_first) > 1


def _read_sessions(db: sa.Connection) -> set[int]:
    return {db.execute(_SESSION).scalar_one() for _ in range(_STATEMENTS)}


def _describe_pooler(url: sa.URL) -> str:
    is_pooler = url.port == _POOLER_PORT or "-pooler" in (url.host or "")
    address = f" ({url.host}:{url.port} is the address of a pooler)" if is_pooler else ""
    return (
        f"the connection pooler in front of the database is in transaction mode{address}, and "
        "Swapproof needs separate sessions: set `pool_mode = session`, or use the address of "
        "PostgreSQL itself; only `swapproof serve router` may use this pooler"
    )


_LEADER_LOCK: Final = 0x53774C44
HEARTBEAT_S: Final = 1.0
# The server ends the leader's connection after this time without a heartbeat. The time allows
# several heartbeats, and lets another process lead within ten seconds.
SILENCE_LIMIT_S: Final = 5.0
_HOLDER: Final = sa.text(
    "SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
    " WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.classid = 0"
    " AND l.objid = :key AND a.datname = current_database()"
)


class FileLeadership:
    """Holds an exclusive `flock` on a file beside the SQLite database. The file names the
    leader.
    """

    def __init__(self, url: sa.URL) -> None:
        database = engine.file_of(url)
        self._path = database.with_name(f"{database.name}.leader")
        self._file: IO[str] | None = None
        self._lock = threading.Lock()

    def try_lead(self, owner: str) -> bool:
        """Returns whether this process leads, and tries to lead if it does not.

        Args:
            owner: the process's name.

        Raises StoreUnavailable if the lock file cannot be written.
        """
        with self._lock:
            if self._file is None:
                self._file = self._try_lock(owner)
            return self._file is not None

    def _try_lock(self, owner: str) -> IO[str] | None:
        try:
            file = self._path.open("a+", encoding="utf-8")
        except OSError as error:
            raise StoreUnavailable(
                f"cannot write {self._path} ({error.strerror}): the folder of a SQLite "
                "database must be writable"
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        file.truncate(0)
        file.write(f"{owner}\n")
        file.flush()
        return file

    def leader(self) -> str:
        """Returns the name of the leading process; empty without a leader."""
        with (
            suppress(FileNotFoundError),
            self._path.open(encoding="utf-8") as file,
        ):
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read().strip()
        return ""

    def resign(self) -> None:
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    close = resign


class PostgresLeadership:
    """Holds an advisory lock on a separate connection, because a pooled connection would keep
    the lock after close().
    """

    def __init__(self, url: sa.URL) -> None:
        self._engine = engine.make(
            url,
            poolclass=NullPool,
            isolation_level="AUTOCOMMIT",
            patience_s=SILENCE_LIMIT_S,
        )
        self._db: sa.Connection | None = None
        self._is_leader = False
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._heartbeat: threading.Thread | None = None

    def try_lead(self, owner: str) -> bool:
        """Returns whether this process leads, and tries to lead if it does not.

        Args:
            owner: the process's name, which `leader` returns.

        Reconnects after a lost connection.

        Raises StoreUnavailable, and DatabaseUnusable behind a pooler in transaction mode.
        """
        with self._lock, translated():
            if not self._is_connected():
                # Otherwise several processes could lead with the lock of one session.
                require_own_session(self._engine.url)
                self._db = self._engine.connect()
            if not self._is_leader:
                self._try_lock(owner)
            return self._is_leader

    def _try_lock(self, owner: str) -> None:
        assert self._db is not None  # noqa: S101 - try_lead has connected
        db = self._db
        try:
            # Sets the limit again, because a pooler may ignore the settings of the connection.
            patience = f"{int(SILENCE_LIMIT_S * 1000)}"
            db.execute(sa.select(sa.func.set_config("idle_session_timeout", patience, False)))  # noqa: FBT003 - SQL's own argument
            if not db.execute(
                sa.select(sa.func.pg_try_advisory_lock(_LEADER_LOCK))
            ).scalar_one():
                return
            db.execute(sa.select(sa.func.set_config("application_name", owner, False)))  # noqa: FBT003 - SQL's own argument
        except BaseException:
            self._release()
            raise
        self._is_leader = True
        if self._heartbeat is None:
            # On a separate thread, so that a long job does not delay the heartbeats.
            self._heartbeat = threading.Thread(
                target=self._send_heartbeats, name="heartbeat", daemon=True
            )
            self._heartbeat.start()

    def _is_connected(self) -> bool:
        """Returns whether the connection, and with it the lock, is alive."""
        if self._db is None:
            return False
        try:
            self._db.execute(sa.select(1))
        except sa.exc.DBAPIError:
            self._release()
            return False
        return True

    def _send_heartbeats(self) -> None:
        while not self._ended.wait(HEARTBEAT_S):
            with self._lock:
                self._is_connected()

    def leader(self) -> str:
        """Returns the name of the leading process; empty without a leader. Raises
        StoreUnavailable.
        """
        with translated(), self._engine.connect() as db:
            return str(db.execute(_HOLDER, {"key": _LEADER_LOCK}).scalar() or "")

    def resign(self) -> None:
        with self._lock:
            self._release()

    def _release(self) -> None:
        self._is_leader = False
        if self._db is None:
            return
        # Frees the lock at once, because the server frees it only after the connection's end.
        with suppress(sa.exc.SQLAlchemyError):  # the connection may be lost
            self._db.execute(sa.select(sa.func.pg_advisory_unlock_all()))
        self._db.close()
        self._db = None

    def close(self) -> None:
        """Ends the heartbeats and resigns. The object cannot lead again."""
        self._ended.set()
        if self._heartbeat is not None:
            self._heartbeat.join()
        self.resign()
        self._engine.dispose()


Leadership = FileLeadership | PostgresLeadership


def leadership(url: sa.URL) -> Leadership:
    """Builds the leadership for the database. Connects at the first use."""
    if url.get_backend_name() == "sqlite":
        return FileLeadership(url)
    return PostgresLeadership(url)
