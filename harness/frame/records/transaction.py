"""`Transaction` runs the statements of one unit of work on one connection. It signs rows as it
writes them, verifies rows as it reads them, renews the manifest, and lets one unit of work
decide at a time. Repositories read and write records in it: `Proposals(tx).get(id)`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from harness.frame.errors import IllegalTransition
from harness.frame.ports import Clock
from harness.frame.records.columns import SIGNATURE, Row
from harness.frame.records.database_errors import translated
from harness.frame.records.record import StoredRow
from harness.frame.records.signed_tables import is_decided, is_signed, signed_table
from harness.frame.signing.signed_rows import RowFault

if TYPE_CHECKING:
    from harness.frame.records.row_signatures import RowSignatures

# Advisory locks of PostgreSQL, by purpose. SQLite has one writer at a time anyway.
_SPACE: Final = 0x5347
_DECISIONS: Final = 0

Parameters = Mapping[str, Any] | Sequence[Mapping[str, Any]]
T = TypeVar("T")


@cache
def build_insert_if_absent(table: sa.Table, dialect: str) -> postgresql.Insert:
    """Builds the INSERT of a row that may be there already; both databases have ON CONFLICT.

    Built once: SQLAlchemy would take longer to build and to look up such a statement
    with its values in it than SQLite takes to run it.
    """
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    return (
        cast("postgresql.Insert", insert(table))
        .on_conflict_do_nothing()
        .execution_options(preserve_rowcount=True)
    )


@cache
def build_upsert(
    table: sa.Table, add: tuple[str, ...], put: tuple[str, ...], dialect: str
) -> postgresql.Insert:
    """Builds the INSERT of a row that changes the stored row of its key, once, as above."""
    insert = postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
    new = insert.excluded
    changes = {name: table.c[name] + new[name] for name in add} | {n: new[n] for n in put}
    key = table.primary_key.columns
    upsert = insert.on_conflict_do_update(index_elements=key, set_=changes)
    return cast("postgresql.Insert", upsert)


class ManifestKeeper(Protocol):
    def check(self, tx: "Transaction") -> object: ...

    def write(self, tx: "Transaction") -> None: ...


class Transaction:
    """Runs statements; keeps readers from writing and deciders from overtaking one another.

    Signs what it writes of signed tables, and checks what it reads of them.
    """

    def __init__(
        self,
        db: sa.Connection,
        signatures: "RowSignatures",
        manifests: ManifestKeeper,
        *,
        secret: bytes,
        clock: Clock,
        writable: bool,
    ) -> None:
        """secret: the key of the audit log's chain."""
        self.db = db
        self.signatures = signatures
        self.secret = secret
        self.writable = writable
        self._manifests = manifests
        self._clock = clock
        self._serial = False
        self._changes_snapshot = False
        # The values of `once` and `keep`, by key.
        self._kept: dict[tuple[str, ...], Any] = {}

    def read(
        self, statement: sa.Executable, parameters: Mapping[str, Any] | None = None
    ) -> sa.CursorResult[Any]:
        with translated():
            return self.db.execute(statement, parameters)

    def read_stored(
        self,
        table: sa.Table,
        statement: sa.Select[Any],
        parameters: Mapping[str, Any] | None = None,
    ) -> list[Row]:
        """Reads rows that are mostly not used whole. statement: of the table's
        `stored_columns`.
        """
        columns, found = table.c.keys(), self.read(statement, parameters)
        rows = (StoredRow(table, dict(zip(columns, row, strict=True))) for row in found)
        return [cast("Row", row) for row in rows]

    def once(self, key: tuple[str, ...], load: Callable[[], T]) -> T:
        """Loads a value that many callers need, such as a model that many routes share. A
        reading unit of work sees one state of the database and loads it once. A writing one
        loads it each time.
        """
        if self.writable:
            return load()
        if key not in self._kept:
            self._kept[key] = load()
        return cast("T", self._kept[key])

    def keep(self, key: tuple[str, ...], value: object) -> None:
        if not self.writable:
            self._kept.setdefault(key, value)

    def write(
        self,
        statement: sa.Executable,
        parameters: Parameters | None = None,
        *,
        decides: bool = True,
    ) -> int:
        """The number of rows it changed. Raises IllegalTransition in a `read()`.

        decides: False for a change that nothing is decided by (a lease).
        """
        if not self.writable:
            raise IllegalTransition("this unit of work only reads: use store.write()")
        table = getattr(statement, "table", None)
        if decides and isinstance(table, sa.Table) and is_decided(table):
            self.serialize()
        with translated():
            return self.db.execute(statement, parameters).rowcount

    def write_new(self, table: sa.Table, values: Mapping[str, object]) -> bool:
        """Insert the row unless one of its keys is there already; whether it was inserted."""
        if is_signed(table):
            values = self.signed(table, values)
        # A value that the database computes (the number of a block) is no parameter.
        computed = {n: v for n, v in values.items() if isinstance(v, sa.ClauseElement)}
        insert = build_insert_if_absent(table, self.dialect)
        if computed:
            insert = insert.values(computed)
        plain = {n: v for n, v in values.items() if n not in computed}
        return self.write(insert, plain) == 1

    def upsert(
        self,
        table: sa.Table,
        values: Mapping[str, object],
        *,
        add: Sequence[str] = (),
        put: Sequence[str] = (),
    ) -> None:
        """Inserts a row, or changes the stored row of its key. add: columns whose values are
        added to the stored ones. put: columns whose values replace the stored ones.
        """
        self.write(build_upsert(table, tuple(add), tuple(put), self.dialect), values)

    def signed(
        self, table: sa.Table, values: Mapping[str, object], **more: object
    ) -> dict[str, object]:
        """Returns the values of a row about to be written, with its signature.

        more: signed values beside its columns. Raises SignatureInvalid where the rows of the
        snapshot differ from the rows signed last: no change may build on them.
        """
        if signed_table(table).live is not None:
            self.change_snapshot()
        return {**values, SIGNATURE: self.signatures.sign(table, values, **more)}

    @property
    def dialect(self) -> str:
        return self.db.dialect.name

    def script(self, statement: str) -> None:
        with translated():
            self.db.exec_driver_sql(statement)

    def insert(self, table: sa.Table, values: Mapping[str, object]) -> None:
        self.write(sa.insert(table), self.signed(table, values))

    def amend(
        self, table: sa.Table, where: sa.ColumnElement[bool], changes: Mapping[str, object]
    ) -> int:
        """Change columns of signed rows, which must be as they were signed; how many."""
        found = self.checked(table, self.read(sa.select(table).where(where)).all())
        for row in found:
            stored = row._asdict()
            new = self.signed(table, stored | dict(changes))
            same = [column == stored[column.name] for column in table.primary_key.columns]
            only = {name: new[name] for name in (*changes, SIGNATURE)}
            self.write(sa.update(table).where(*same).values(only))
        return len(found)

    def checked(self, table: sa.Table, rows: Iterable[Row], **more: object) -> list[Row]:
        """The rows, each verified; all columns were read. Raises SignatureInvalid."""
        found = list(rows)
        for row in found:
            self.signatures.check_row(table, row, **more)
        return found

    def believed(self, table: sa.Table, rows: Iterable[Row]) -> list[Row]:
        """Keeps the rows that are as they were signed: a forged one stops its own route."""
        return [row for row in rows if self.fault(table, row) is None]

    def fault(self, table: sa.Table, row: Row, **more: object) -> RowFault | None:
        signed = signed_table(table)
        why = self.signatures.row_fault(signed, row, **more)
        if not why:
            return None
        key = tuple(str(getattr(row, name)) for name in signed.key)
        return RowFault(table.name, key, why)

    def now(self) -> datetime:
        return self._clock.now()

    def check_manifest(self) -> None:
        """Checks the live rows against the stored manifest. Raises SignatureInvalid."""
        self._manifests.check(self)

    def change_snapshot(self) -> None:
        """Prepares a change of what routers serve, before it. Raises SignatureInvalid."""
        if not self._changes_snapshot:
            self.serialize()
            self.check_manifest()
            self._changes_snapshot = True

    def finish(self) -> None:
        """Signs, at the end of a unit of work, what makes a snapshot from now on."""
        if self._changes_snapshot:
            self._manifests.write(self)

    def serialize(self) -> None:
        """Wait until no other unit of work decides: revisions and the audit chain have no gaps.

        Samples, traffic and blocks do without it.
        """
        if not self._serial:
            self._lock(_DECISIONS)
            self._serial = True

    def serialize_by(self, name: str) -> None:
        """Wait for others that write under the same name only."""
        if self.writable:
            self._lock(sa.func.hashtext(name))

    def _lock(self, key: object) -> None:
        if self.writable and self.db.dialect.name == "postgresql":
            self.read(sa.select(sa.func.pg_advisory_xact_lock(_SPACE, key)))

    @contextmanager
    def attempt(self) -> Iterator[None]:
        with self.db.begin_nested():
            yield
