"""Copies the rows of all tables, for backups: reads them as they are at one moment, while
others write (`open_tables`), and puts them in the place of a database's own (`replace_rows`).

Values go as the database has them, with their signatures, and not as our types read them: a row
that was changed around Swapgate comes back as it was, and is found again.
"""

import base64
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from harness.domain.errors import Conflict, DatabaseUnusable, StoreUnavailable
from harness.store import engine, migrate
from harness.store.database_errors import translated
from harness.store.guards import triggers
from harness.store.schema import metadata
from harness.store.schema.operations import leadership
from harness.store.schema_revisions import REVISION

ROWS_AT_A_TIME: Final = 200
# A migration writes into these.
WITH_FIRST_ROWS: Final = frozenset({"meta", "principal"})
# How a value of bytes stands in JSON.
BYTES: Final = "base64"

Row = Sequence[Any]


@dataclass(frozen=True, slots=True)
class TableRows:
    """Some rows of one table, as a backup has them."""

    table: str
    columns: tuple[str, ...]
    rows: Sequence[Row]


@dataclass(frozen=True, slots=True)
class TableDigest:
    """Counts a table's rows and sums their SHA-256: the same for the same rows in any order,
    as two databases sort texts differently.
    """

    rows: int = 0
    total: int = 0

    def add(self, rows: Iterable[Row]) -> "TableDigest":
        count, total = self.rows, self.total
        for row in rows:
            text = json.dumps(list(row), separators=(",", ":"))
            digest = sha256(text.encode()).digest()
            count, total = count + 1, total + int.from_bytes(digest, "big")
        return TableDigest(count, total % (1 << 256))

    def hexdigest(self) -> str:
        return f"{self.total:064x}"


class OpenTables:
    """All tables of a database within one transaction that only reads."""

    def __init__(self, db: sa.Connection) -> None:
        self._db = db
        self.schema = str(
            db.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one()
        )

    def read(self) -> Iterator[TableRows]:
        """Reads every table; of an empty one once, without rows."""
        for table in metadata.sorted_tables:
            columns = tuple(column.name for column in table.columns)
            key = tuple(column.name for column in table.primary_key)
            yield from _read_table(self._db, table.name, columns, key)


@contextmanager
def open_tables(url: str) -> Iterator[OpenTables]:
    """Opens the tables as they are now. Writers go on meanwhile, and what they write is not
    seen.

    Raises Conflict where the schema is not this version's, StoreUnavailable.
    """
    engine.require_file(url)
    found = migrate.current(url)
    if found != REVISION:
        raise Conflict(
            f"the database is at revision {found} and this version needs {REVISION}: "
            "back it up with the version that it belongs to, or run `swapgate db upgrade` first"
        )
    with _reading(url) as db:
        yield OpenTables(db)


@contextmanager
def _reading(url: str) -> Iterator[sa.Connection]:
    made = engine.make(engine.parse(url), poolclass=NullPool)
    _, options = engine.OPTIONS[made.dialect.name]
    try:
        with translated(), made.execution_options(**options).begin() as db:
            yield db
    finally:
        made.dispose()


def _read_table(
    db: sa.Connection, table: str, columns: tuple[str, ...], order: Sequence[str] = ()
) -> Iterator[TableRows]:
    # As text, without our types: values as they are stored.
    by = f" ORDER BY {_names(order)}" if order else ""
    plain = sa.text(f'SELECT {_names(columns)} FROM "{table}"{by}')  # noqa: S608 - names of our tables
    # Of the statement: a connection keeps its options.
    result = db.execute(plain, execution_options={"yield_per": ROWS_AT_A_TIME})
    is_empty = True
    for rows in result.partitions():
        yield TableRows(table, columns, [[_to_json(value) for value in row] for row in rows])
        is_empty = False
    if is_empty:
        yield TableRows(table, columns, [])


def has_data(url: str) -> bool:
    """Tells whether a database holds more than what a migration writes into it."""
    if migrate.current(url) is None:
        return False
    with _reading(url) as db:
        there = set(sa.inspect(db).get_table_names())
        return any(
            db.execute(sa.text(f'SELECT 1 FROM "{name}" LIMIT 1')).first() is not None  # noqa: S608 - names of our tables
            for name in metadata.tables
            if name in there and name not in WITH_FIRST_ROWS
        )


def replace_rows(
    url: str, schema: str, parts: Iterable[TableRows], expected: Mapping[str, TableDigest]
) -> None:
    """Put the rows of a backup in the place of all that the database at `url` holds. Its schema
    is `schema` afterwards; `migrate.upgrade` brings it to this version's.

    It is one transaction, which ends only if the rows, read back, are those `expected`. Others
    read what was there before until then. As the tables' owner. Raises Conflict where the
    database is at another schema than the backup, or has triggers that this version does not
    know, StoreUnavailable, DatabaseUnusable.
    """
    found = migrate.current(url)
    if schema != REVISION:
        raise DatabaseUnusable(
            f"the backup is of schema {schema}, and this version knows {REVISION}: restore it "
            "with the version that made it"
        )
    if found is None:
        migrate.upgrade(url)
    elif found != schema:
        raise Conflict(
            f"the database is at revision {found} of the schema and the backup at {schema}: "
            "restore into an empty database, which is then upgraded"
        )
    with migrate.exclusive(url) as db, _without_triggers(db):
        there = set(sa.inspect(db).get_table_names())
        if missing := sorted(set(expected) - there):
            raise DatabaseUnusable(
                f"the backup has a table {missing[0]}, the database has none"
            )
        term = _term(db, there)
        # Those of the backup's schema, in the order of their references.
        for table in reversed(list(expected)):
            db.execute(sa.text(f'DELETE FROM "{table}"'))  # noqa: S608 - as above
        columns: dict[str, tuple[str, ...]] = {}
        _load(db, _note_columns(parts, columns))
        _check_rows(db, columns, expected)
        if term:
            # A leader of an earlier term, stopped until now, would be the leader again.
            db.execute(sa.update(leadership).where(leadership.c.term < term).values(term=term))


def _term(db: sa.Connection, tables: Collection[str]) -> int:
    """The term that the leader among control processes has; 0 where there is no such table."""
    if leadership.name not in tables:
        return 0
    return db.execute(sa.select(leadership.c.term)).scalar() or 0


@contextmanager
def _without_triggers(db: sa.Connection) -> Iterator[None]:
    """Takes triggers away until the block ends: they guard changes, and this is none.

    On PostgreSQL they are switched off, which lets others read. At the end all are there.
    """
    if db.dialect.name == "sqlite":
        present = triggers.present(db)
        for name in present:
            db.exec_driver_sql(f'DROP TRIGGER "{name}"')
        yield
    else:
        tables = sorted({trigger.table for trigger in triggers.present(db).values()})
        for table in tables:
            db.execute(sa.text(f'ALTER TABLE "{table}" DISABLE TRIGGER USER'))
        yield
        for table in tables:
            db.execute(sa.text(f'ALTER TABLE "{table}" ENABLE TRIGGER USER'))
        db.execute(sa.text("SELECT pg_notify('swapgate_changed', 'meta')"))
    triggers.install(db)


def _load(db: sa.Connection, parts: Iterable[TableRows]) -> None:
    if db.dialect.name == "sqlite":
        _insert_tables(db, parts)
    else:
        _copy_tables(db, iter(parts))


def _insert_tables(db: sa.Connection, parts: Iterable[TableRows]) -> None:
    for part in parts:
        if part.rows:
            marks = ", ".join("?" for _ in part.columns)
            db.exec_driver_sql(
                f'INSERT INTO "{part.table}" ({_names(part.columns)}) VALUES ({marks})',  # noqa: S608 - names of our tables
                [tuple(_from_json(value) for value in row) for row in part.rows],
            )
    if db.exec_driver_sql("PRAGMA foreign_key_check").first() is not None:
        raise StoreUnavailable("a row of the backup refers to one that is not in it")


def _copy_tables(db: sa.Connection, parts: Iterator[TableRows]) -> None:
    db.execute(sa.text("SET CONSTRAINTS ALL DEFERRED"))
    part = next(parts, None)
    try:
        while part is not None:
            part = _copy_table(db, part, parts)
    except db.dialect.loaded_dbapi.Error as error:
        raise StoreUnavailable(
            f"PostgreSQL refused rows, and nothing was changed: {error}"
        ) from error
    db.execute(sa.text("SET CONSTRAINTS ALL IMMEDIATE"))


def _copy_table(
    db: sa.Connection, first: TableRows, pending: Iterator[TableRows]
) -> TableRows | None:
    """COPY one table; returns the first part of the next one.

    One statement, so that a row may refer to a later one of its own table.
    """
    after: TableRows | None = None
    driver: Any = db.connection.driver_connection  # psycopg's
    with (
        driver.cursor() as cursor,
        cursor.copy(f'COPY "{first.table}" ({_names(first.columns)}) FROM STDIN') as copy,
    ):
        for part in chain((first,), pending):
            if part.table != first.table:
                after = part
                break
            for row in part.rows:
                copy.write_row([_from_json(value) for value in row])
    return after


def _names(columns: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in columns)


def _note_columns(
    parts: Iterable[TableRows], columns: dict[str, tuple[str, ...]]
) -> Iterator[TableRows]:
    for part in parts:
        columns[part.table] = part.columns
        yield part


def _check_rows(
    db: sa.Connection,
    columns: Mapping[str, tuple[str, ...]],
    expected: Mapping[str, TableDigest],
) -> None:
    for name, digest in expected.items():
        stored = TableDigest()
        for part in _read_table(db, name, columns[name]):
            stored = stored.add(part.rows)
        if stored != digest:
            raise StoreUnavailable(
                f"the table {name}, read back, is not what the backup has ({stored.rows} rows "
                f"of {digest.rows}): nothing was changed"
            )


def _to_json(value: object) -> object:
    if isinstance(value, bytes):
        return {BYTES: base64.b64encode(value).decode()}
    # As SQLite stores it.
    return int(value) if isinstance(value, bool) else value


def _from_json(value: Any) -> Any:
    return base64.b64decode(value[BYTES]) if isinstance(value, dict) else value
