"""One unit of work on one connection."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, cast

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from harness.domain.errors import IllegalTransition
from harness.store.sql.failures import translated

# Advisory locks of PostgreSQL, by purpose. SQLite has one writer at a time anyway.
_SPACE: Final = 0x5347
_DECISIONS: Final = 0

Parameters = Mapping[str, Any] | Sequence[Mapping[str, Any]]


class Unit:
    """Runs statements; keeps readers from writing and deciders from overtaking one another."""

    def __init__(self, db: sa.Connection, *, writable: bool) -> None:
        self._db = db
        self._writable = writable
        self._serial = False

    def read(
        self, statement: sa.Executable, parameters: Parameters | None = None
    ) -> sa.CursorResult[Any]:
        with translated():
            return self._db.execute(statement, parameters)

    def write(self, statement: sa.Executable, parameters: Parameters | None = None) -> int:
        """The number of rows it changed. Raises IllegalTransition in a `read()`."""
        if not self._writable:
            raise IllegalTransition("this unit of work only reads: use store.write()")
        with translated():
            return self._db.execute(statement, parameters).rowcount

    def write_new(self, table: sa.Table, values: Mapping[str, object]) -> bool:
        """Insert the row unless one of its keys is there already; whether it was inserted."""
        insert = self._insert(table).on_conflict_do_nothing().values(values)
        return self.write(insert.execution_options(preserve_rowcount=True)) == 1

    def _insert(self, table: sa.Table) -> postgresql.Insert:
        """An INSERT with ON CONFLICT, which both databases have in the same words."""
        if self._db.dialect.name == "postgresql":
            return postgresql.insert(table)
        return cast("postgresql.Insert", sqlite.insert(table))

    def serialize(self) -> None:
        """Wait until no other unit of work decides: revisions and the audit chain have no gaps.

        Samples, traffic and blocks do without it.
        """
        if not self._serial:
            self._lock(_DECISIONS)
            self._serial = True

    def serialize_by(self, name: str) -> None:
        """Wait for others that write under the same name only."""
        self._lock(sa.func.hashtext(name))

    def _lock(self, key: object) -> None:
        if self._writable and self._db.dialect.name == "postgresql":
            self.read(sa.select(sa.func.pg_advisory_xact_lock(_SPACE, key)))

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """A part that may fail on its own: the rest of the unit of work goes on."""
        with self._db.begin_nested():
            yield
