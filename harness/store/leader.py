"""Elects the one process that runs the reconcile loop: it holds a lock that the system frees
when the process dies. `FileLeadership` locks a file beside the SQLite database,
`PostgresLeadership` holds an advisory lock on a connection of its own; `leadership` chooses by
the URL.
"""

import fcntl
import threading
from pathlib import Path
from typing import IO, Final, Protocol

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from harness.domain.errors import StoreUnavailable
from harness.store import engine
from harness.store.database_errors import translated

_KEY: Final = 0x53774C44


class Leadership(Protocol):
    def try_lead(self, owner: str) -> bool: ...

    def close(self) -> None: ...


class FileLeadership:
    """Holds leadership by a lock on a file beside the SQLite database; the system frees it at
    the process's end.
    """

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(f"{database.name}.leader")
        self._file: IO[str] | None = None
        self._turn = threading.Lock()

    def try_lead(self, owner: str) -> bool:
        with self._turn:
            return self._file is not None or self._take(owner)

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
            file.close()
            return False
        file.truncate(0)
        # For people who look who leads.
        file.write(f"{owner}\n")
        file.flush()
        self._file = file
        return True

    def close(self) -> None:
        with self._turn:
            if self._file is not None:
                self._file.close()
                self._file = None


class PostgresLeadership:
    """An advisory lock on a connection of its own: a pool would keep the lock after close()."""

    def __init__(self, url: sa.URL) -> None:
        self._engine = engine.make(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        self._db: sa.Connection | None = None
        self._turn = threading.Lock()

    def try_lead(self, owner: str) -> bool:
        with self._turn, translated():
            if self._db is not None and self._holds(self._db):
                return True
            db = self._engine.connect()
            taken = db.execute(sa.select(sa.func.pg_try_advisory_lock(_KEY))).scalar_one()
            if not taken:
                db.close()
                return False
            db.execute(sa.select(sa.func.set_config("application_name", owner, False)))  # noqa: FBT003 - SQL's own argument
            self._db = db
            return True

    def _holds(self, db: sa.Connection) -> bool:
        """The lock is held as long as its connection lives."""
        try:
            db.execute(sa.select(1))
        except sa.exc.DBAPIError:
            self._release()
            return False
        return True

    def _release(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def close(self) -> None:
        with self._turn:
            self._release()
        self._engine.dispose()


def leadership(url: sa.URL) -> Leadership:
    if url.get_backend_name() == "sqlite":
        return FileLeadership(engine.file_of(url))
    return PostgresLeadership(url)
