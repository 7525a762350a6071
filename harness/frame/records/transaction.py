"""`Transaction` runs one database transaction. It signs the rows that it writes, verifies the
rows that it reads, renews the manifest, and lets only one transaction at a time write rows that
affect decisions. Repositories use it to read and write records: `Proposals(tx).get(id)`.
`translated` converts the database driver's errors to ours.
"""

import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from typing import Any, Final, Protocol, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from harness.frame.errors import (
    DatabaseUnusable,
    IllegalTransition,
    InputError,
    StoreUnavailable,
    SwapproofError,
)
from harness.frame.ports import Clock
from harness.frame.records.columns import SIGNATURE, Row
from harness.frame.records.signed_tables import (
    RowSignatures,
    StoredRow,
    is_decided,
    is_signed,
    signed_table,
)
from harness.frame.signing.signed_rows import RowFault

_DENIED_MARK = "InsufficientPrivilege"

# Substrings of the driver's error, with our error and its message. `{}` in a message is the
# first line of the driver's error.
_FAILURES: Final = (
    (
        (
            "no such table",
            "UndefinedTable",
            "no such column",
            "UndefinedColumn",
        ),
        StoreUnavailable,
        "the database has no tables or outdated tables: run `swapproof db upgrade`",
    ),
    (
        ("unable to open database file",),
        DatabaseUnusable,
        (
            "the database's file is missing or cannot be opened: restore it from a backup, "
            "fix `database_url`, or create a new file with `swapproof db upgrade`"
        ),
    ),
    (
        (
            "file is not a database",
            "database disk image is malformed",
            "malformed database",
        ),
        DatabaseUnusable,
        (
            "the database's file is damaged ({}): stop every process, move the file and the "
            "files with its name elsewhere, and put a backup in their place"
        ),
    ),
    (
        ("not allowed in statement pooling mode",),
        DatabaseUnusable,
        (
            "the connection pooler is in statement mode, which has no transactions: set "
            "`pool_mode = session`"
        ),
    ),
    (
        ("unsupported startup parameter",),
        DatabaseUnusable,
        (
            "the connection pooler refuses a parameter ({}): set `ignore_startup_parameters = "
            "extra_float_digits,options` in pgbouncer.ini"
        ),
    ),
)


class RowRefused(InputError):
    """Raised if a constraint or trigger refuses a row. database: the first line of
    its error.
    """

    def __init__(self, database: str) -> None:
        super().__init__(f"the database refuses this row: {database}")
        self.database = database

    def names(self, *rules: str) -> bool:
        return any(rule in self.database for rule in rules)


class RoleRefused(DatabaseUnusable):
    """Raised if the database's role lacks a right. database: the first line of its error."""

    def __init__(self, database: str) -> None:
        super().__init__(
            f"the database's role may not do this ({database}): the owner of the tables runs "
            "`swapproof db upgrade`, then `swapproof db grant ROLE`"
        )
        self.database = database


@contextmanager
def translated() -> Iterator[None]:
    """Converts the driver's errors inside the block to StoreUnavailable, DatabaseUnusable,
    RoleRefused, RowRefused, or InputError for an invalid value.
    """
    try:
        yield
    except sa.exc.TimeoutError as error:
        raise StoreUnavailable(
            "all connections to the database are in use; try again"
        ) from error
    except (sa.exc.IntegrityError, sa.exc.DataError) as error:
        raise RowRefused(_read_first_line(error)) from error
    except sa.exc.DBAPIError as error:
        clear_frames(error, error.orig)
        raise _translate_error(error) from error
    except sa.exc.StatementError as error:
        if isinstance(error.orig, SwapproofError):
            raise error.orig from None
        raise InputError(f"the database cannot store a value: {error.orig}") from error


def clear_frames(*errors: BaseException | None) -> None:
    """Frees the local variables in the tracebacks of SQLAlchemy and the driver.

    An error and its frames form a cycle, which only the garbage collector frees. A router
    seldom runs it. A failed connect of psycopg holds 37 KiB of buffers, so a router would keep
    34 MiB.
    """
    for error in errors:
        if error is not None:
            traceback.clear_frames(error.__traceback__)


def _translate_error(error: sa.exc.DBAPIError) -> Exception:
    cause = f"{error.orig!r}"
    line = _read_first_line(error)
    for marks, kind, text in _FAILURES:
        if any(mark in cause for mark in marks):
            return kind(text.format(line))
    if _DENIED_MARK in cause:
        return RoleRefused(line)
    if isinstance(error, sa.exc.OperationalError) or error.connection_invalidated:
        return StoreUnavailable(
            f"the database does not answer ({line}); try again later, `swapproof doctor` shows "
            "more"
        )
    return error


def _read_first_line(error: sa.exc.DBAPIError) -> str:
    return str(error.orig).strip().partition("\n")[0]


# Keys of PostgreSQL's advisory locks. SQLite allows only one writer at a time.
_LOCK_SPACE: Final = 0x5347
_DECISIONS_LOCK: Final = 0
Parameters = Mapping[str, Any] | Sequence[Mapping[str, Any]]
T = TypeVar("T")


@cache
def build_insert_if_absent(table: sa.Table, dialect: str) -> postgresql.Insert:
    """Builds an INSERT that ignores a row whose key exists. Cached, because SQLAlchemy needs
    longer to build a statement with its values than SQLite needs to run it.
    """
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    return (
        cast("postgresql.Insert", insert(table))
        .on_conflict_do_nothing()
        .execution_options(preserve_rowcount=True)
    )


@cache
def build_upsert(
    table: sa.Table,
    add: tuple[str, ...],
    put: tuple[str, ...],
    dialect: str,
) -> postgresql.Insert:
    """Builds an INSERT that updates a row whose key exists. Cached like the INSERT above."""
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
    """Runs statements on one connection. A reading transaction cannot write. Transactions
    that write decisions run one after another.
    """

    def __init__(
        self,
        db: sa.Connection,
        signatures: RowSignatures,
        manifests: ManifestKeeper,
        *,
        secret: bytes,
        clock: Clock,
        writable: bool,
    ) -> None:
        """Creates a transaction of an open connection.

        Args:
            secret: the key of the audit log's HMAC chain.
        """
        self.db = db
        self.signatures = signatures
        self.secret = secret
        self.writable = writable
        self._manifests = manifests
        self._clock = clock
        self._is_serialized = False
        self._changes_snapshot = False
        # Holds the values of `once` and `keep`, by key.
        self._cache: dict[tuple[str, ...], Any] = {}

    def read(
        self,
        statement: sa.Executable,
        parameters: Mapping[str, Any] | None = None,
    ) -> sa.CursorResult[Any]:
        with translated():
            return self.db.execute(statement, parameters)

    def read_stored(
        self,
        table: sa.Table,
        statement: sa.Select[Any],
        parameters: Mapping[str, Any] | None = None,
    ) -> list[Row]:
        """Reads rows without decoding them.

        Args:
            statement: selects the table's `stored_columns`.
        """
        columns = table.c.keys()
        raw_rows = self.read(statement, parameters)
        rows = (StoredRow(table, dict(zip(columns, row, strict=True))) for row in raw_rows)
        return [cast("Row", row) for row in rows]

    def once(self, key: tuple[str, ...], load: Callable[[], T]) -> T:
        """Loads a value once for all callers, such as a model that many routes share. A writing
        transaction loads the value each time, because it may have changed the value.
        """
        if self.writable:
            return load()
        if key not in self._cache:
            self._cache[key] = load()
        return cast("T", self._cache[key])

    def keep(self, key: tuple[str, ...], value: object) -> None:
        """Stores a value for later calls of `once` with this key. Does nothing in a
        `write()`.
        """
        if not self.writable:
            self._cache.setdefault(key, value)

    def write(
        self,
        statement: sa.Executable,
        parameters: Parameters | None = None,
        *,
        decides: bool = True,
    ) -> int:
        """Returns the number of changed rows. Raises IllegalTransition in a `read()`.

        Args:
            decides: False for a change that no decision uses, such as a lease.
        """
        self._prepare_write(statement, decides=decides)
        with translated():
            return self.db.execute(statement, parameters).rowcount

    def delete(self, statement: sa.Delete, *columns: sa.ColumnElement[Any]) -> list[Row]:
        """Deletes rows, and returns these columns of the deleted rows. Raises IllegalTransition
        in a `read()`.
        """
        self._prepare_write(statement, decides=True)
        with translated():
            return list(self.db.execute(statement.returning(*columns)))

    def _prepare_write(self, statement: sa.Executable, *, decides: bool) -> None:
        if not self.writable:
            raise IllegalTransition("this transaction only reads: use store.write()")
        table = getattr(statement, "table", None)
        if decides and isinstance(table, sa.Table) and is_decided(table):
            self.serialize()

    def write_new(self, table: sa.Table, values: Mapping[str, object]) -> bool:
        """Inserts a row unless one of its keys exists. Returns whether it inserted the row."""
        if is_signed(table):
            values = self.signed(table, values)
        # SQL expressions, such as a block's next number, cannot be parameters.
        computed = {n: v for n, v in values.items() if isinstance(v, sa.ClauseElement)}
        insert = build_insert_if_absent(table, self.dialect)
        if computed:
            insert = insert.values(computed)
        parameters = {n: v for n, v in values.items() if n not in computed}
        return self.write(insert, parameters) == 1

    def upsert(
        self,
        table: sa.Table,
        values: Mapping[str, object],
        *,
        add: Sequence[str] = (),
        put: Sequence[str] = (),
    ) -> None:
        """Inserts a row, or updates the stored row with its key.

        Args:
            add: columns to increase by the new values.
            put: columns to replace with the new values.
        """
        self.write(build_upsert(table, tuple(add), tuple(put), self.dialect), values)

    def add_up(
        self,
        table: sa.Table,
        values: Mapping[str, object],
        column: str,
    ) -> int:
        """Inserts a row, or adds to a column of the stored row with its key. Returns the
        column's new value; the row is locked until the transaction's end.
        """
        upsert = build_upsert(table, (column,), (), self.dialect)
        self._prepare_write(upsert, decides=True)
        with translated():
            returned = self.db.execute(upsert.returning(table.c[column]), values)
            return int(returned.scalar_one())

    def signed(
        self,
        table: sa.Table,
        values: Mapping[str, object],
        **further_values: object,
    ) -> dict[str, object]:
        """Returns a new row's values with its signature.

        Args:
            further_values: signed, too, but not stored in the row.

        Raises SignatureInvalid if the snapshot's rows differ from the manifest, because a
        change must not build on them.
        """
        if signed_table(table).live is not None:
            self.change_snapshot()
        return {
            **values,
            SIGNATURE: self.signatures.sign(table, values, **further_values),
        }

    @property
    def dialect(self) -> str:
        return self.db.dialect.name

    def script(self, statement: str) -> None:
        with translated():
            self.db.exec_driver_sql(statement)

    def insert(self, table: sa.Table, values: Mapping[str, object]) -> None:
        self.write(sa.insert(table), self.signed(table, values))

    def amend(
        self,
        table: sa.Table,
        where: sa.ColumnElement[bool],
        changes: Mapping[str, object],
    ) -> int:
        """Changes columns of signed rows. Returns the number of rows. Raises SignatureInvalid
        for a row that does not verify.
        """
        rows = self.checked(table, self.read(sa.select(table).where(where)).all())
        for row in rows:
            stored = row._asdict()
            new = self.signed(table, stored | dict(changes))
            is_same_row = [
                column == stored[column.name] for column in table.primary_key.columns
            ]
            changed_values = {name: new[name] for name in (*changes, SIGNATURE)}
            self.write(sa.update(table).where(*is_same_row).values(changed_values))
        return len(rows)

    def checked(
        self,
        table: sa.Table,
        rows: Iterable[Row],
        **further_values: object,
    ) -> list[Row]:
        """Returns the rows after it has verified them. The rows must have all columns. Raises
        SignatureInvalid.
        """
        verified = list(rows)
        for row in verified:
            self.signatures.check_row(table, row, **further_values)
        return verified

    def trusted(self, table: sa.Table, rows: Iterable[Row]) -> list[Row]:
        """Returns the rows that verify, so that a forged row stops only its own route."""
        return [row for row in rows if self.fault(table, row) is None]

    def fault(
        self,
        table: sa.Table,
        row: Row,
        **further_values: object,
    ) -> RowFault | None:
        signed = signed_table(table)
        reason = self.signatures.row_fault(signed, row, **further_values)
        if not reason:
            return None
        key = tuple(str(getattr(row, name)) for name in signed.key)
        return RowFault(table.name, key, reason)

    def now(self) -> datetime:
        return self._clock.now()

    def check_manifest(self) -> None:
        """Compares the snapshot's rows with the manifest. Raises SignatureInvalid."""
        self._manifests.check(self)

    def change_snapshot(self) -> None:
        """Prepares a change of the snapshot's rows; call it first. Raises SignatureInvalid."""
        if not self._changes_snapshot:
            self.serialize()
            self.check_manifest()
            self._changes_snapshot = True

    def finish(self) -> None:
        """Signs a new manifest at the transaction's end if the snapshot's rows changed."""
        if self._changes_snapshot:
            self._manifests.write(self)

    def serialize(self) -> None:
        """Waits until no other transaction writes decisions, so that revisions and the audit
        log have no gaps. Writers of samples, traffic and blocks need not call it.
        """
        if not self._is_serialized:
            self._lock(_DECISIONS_LOCK)
            self._is_serialized = True

    def serialize_by(self, name: str) -> None:
        """Waits until no other transaction that called this with `name` is running."""
        if self.writable:
            self._lock(sa.func.hashtext(name))

    def _lock(self, key: object) -> None:
        if self.writable and self.db.dialect.name == "postgresql":
            self.read(sa.select(sa.func.pg_advisory_xact_lock(_LOCK_SPACE, key)))

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Undoes the block's statements if it raises, and keeps the transaction usable."""
        with self.db.begin_nested():
            yield
