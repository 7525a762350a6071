"""Elects the one control process that runs the periodic jobs: it holds a lock that the system
frees when the process dies, and a term that no later leader shares. `FileLeadership` locks a
file beside the SQLite database, `PostgresLeadership` holds an advisory lock on a connection of
its own; `leadership` chooses by the URL.

A leader that is stopped (SIGSTOP) or cut off cannot give its lock back. PostgreSQL ends its
connection after `SILENT_AFTER_S` without a heartbeat, and another takes over; whatever the old
leader still writes is refused, since its term is over (`FencedStore`). A file's lock stays with
the stopped process: then `silence_s` says how long it has not been heard of.
"""

import fcntl
import os
import threading
from contextlib import suppress
from typing import IO, Final, Protocol

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from harness.domain.errors import StoreUnavailable
from harness.ports import Clock
from harness.store import engine
from harness.store.database_errors import translated
from harness.store.postgres.lock_heartbeat import LockHeartbeat
from harness.store.schema.operations import leadership as table

_KEY: Final = 0x53774C44
HEARTBEAT_S: Final = 1.0
# The server's patience with the leader's connection: several heartbeats, and a change of the
# leader within ten seconds.
SILENT_AFTER_S: Final = 5.0

_BEGIN_TERM: Final = (
    sa.update(table)
    .values(term=table.c.term + 1, owner=sa.bindparam("by"), since=sa.bindparam("at"))
    .returning(table.c.term)
)


class Leadership(Protocol):
    def try_lead(self, owner: str) -> int | None:
        """Returns the term that this process leads in; None while another leads."""
        ...

    def resign(self, term: int) -> None:
        """Gives the lock back, if it is held in this term: the next `try_lead` begins another
        one.
        """
        ...

    def silence_s(self) -> float:
        """How long another leader's heartbeat is missing; 0 where the database drops it."""
        ...

    def close(self) -> None: ...


class FileLeadership:
    """Holds leadership by a lock on a file beside the SQLite database; the system frees it at
    the process's end. The file's time is the heartbeat.
    """

    def __init__(self, url: sa.URL, clock: Clock) -> None:
        database = engine.file_of(url)
        self._path = database.with_name(f"{database.name}.leader")
        self._engine = engine.make(url, poolclass=NullPool).execution_options(
            **engine.OPTIONS["sqlite"][0]
        )
        self._clock = clock
        self._file: IO[str] | None = None
        self._term = 0
        self._turn = threading.Lock()
        self._heartbeat = LockHeartbeat(self._touch, HEARTBEAT_S)
        self._others_beat = (0, 0.0)  # the file's time, and when it was first read, monotonic

    def try_lead(self, owner: str) -> int | None:
        with self._turn:
            if self._file is not None:
                return self._term
            return self._term if self._take(owner) else None

    def _take(self, owner: str) -> bool:
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
            self._note_beat(file)
            file.close()
            return False
        try:
            with translated(), self._engine.begin() as db:
                self._term = _begin_term(db, owner, self._clock)
        except BaseException:
            file.close()
            raise
        file.truncate(0)
        # For people who look who leads.
        file.write(f"{owner}\n")
        file.flush()
        self._file = file
        self._heartbeat.start()
        return True

    def _touch(self) -> None:
        with self._turn:
            if self._file is not None:
                # A disk that fails for a moment ends no heartbeat.
                with suppress(OSError):
                    os.utime(self._file.fileno())

    def _note_beat(self, file: IO[str]) -> None:
        written_ns = os.fstat(file.fileno()).st_mtime_ns
        if written_ns != self._others_beat[0]:
            self._others_beat = (written_ns, self._clock.monotonic())

    def silence_s(self) -> float:
        """Measured between calls of `try_lead`, by the monotonic clock."""
        with self._turn:
            first_read = self._others_beat[1]
            if self._file is not None or not first_read:
                return 0.0
            return self._clock.monotonic() - first_read

    def resign(self, term: int) -> None:
        with self._turn:
            if term == self._term:
                self._release()

    def _release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def close(self) -> None:
        self._heartbeat.stop()
        with self._turn:
            self._release()
        self._engine.dispose()


class PostgresLeadership:
    """Holds leadership by an advisory lock on a connection of its own: a pool would keep the
    lock after close(). The server ends the connection when its heartbeat is missing.
    """

    def __init__(self, url: sa.URL, clock: Clock) -> None:
        self._engine = engine.make(
            url,
            poolclass=NullPool,
            isolation_level="AUTOCOMMIT",
            patience_s=SILENT_AFTER_S,
        )
        self._clock = clock
        self._db: sa.Connection | None = None
        self._term: int | None = None
        self._turn = threading.Lock()
        self._heartbeat = LockHeartbeat(self._beat, HEARTBEAT_S)

    def try_lead(self, owner: str) -> int | None:
        with self._turn, translated():
            if not self._is_connected():
                self._db = self._engine.connect()
            if self._term is None:
                self._take(owner)
            return self._term

    def _take(self, owner: str) -> None:
        assert self._db is not None  # noqa: S101 - try_lead has connected
        db = self._db
        try:
            if not db.execute(sa.select(sa.func.pg_try_advisory_lock(_KEY))).scalar_one():
                return
            db.execute(sa.select(sa.func.set_config("application_name", owner, False)))  # noqa: FBT003 - SQL's own argument
            # On the lock's own connection: a process that lost it begins no term.
            self._term = _begin_term(db, owner, self._clock)
        except BaseException:
            self._release()
            raise
        self._heartbeat.start()

    def _is_connected(self) -> bool:
        """The lock is held as long as its connection lives."""
        if self._db is None:
            return False
        try:
            self._db.execute(sa.select(1))
        except sa.exc.DBAPIError:
            self._release()
            return False
        return True

    def _beat(self) -> None:
        with self._turn:
            self._is_connected()

    def _release(self) -> None:
        self._term = None
        if self._db is None:
            return
        # The server frees the lock of a connection that ends a moment later; so it is free now.
        with suppress(sa.exc.SQLAlchemyError):  # the connection may be lost
            self._db.execute(sa.select(sa.func.pg_advisory_unlock_all()))
        self._db.close()
        self._db = None

    def silence_s(self) -> float:
        return 0.0

    def resign(self, term: int) -> None:
        with self._turn:
            if term == self._term:
                self._release()

    def close(self) -> None:
        self._heartbeat.stop()
        with self._turn:
            self._release()
        self._engine.dispose()


def _begin_term(db: sa.Connection, owner: str, clock: Clock) -> int:
    """Begins the next term; waits for units of work of the last one that commit just now."""
    now = clock.now()
    return int(db.execute(_BEGIN_TERM, {"by": owner, "at": now}).scalar_one())


def leadership(url: sa.URL, clock: Clock) -> Leadership:
    if url.get_backend_name() == "sqlite":
        return FileLeadership(url, clock)
    return PostgresLeadership(url, clock)
