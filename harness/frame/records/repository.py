"""Base classes of the repositories. `Records` adds, loads and lists the rows of one table as
objects, and verifies the rows of a signed table. `read_page` and `PageReader` page a list by
keyset: they read the rows after a cursor in the list's `Order`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Generic, TypeVar, cast

import sqlalchemy as sa

from harness.frame.errors import NotFound
from harness.frame.pagination import (
    Page,
    PageRequest,
    decode_cursor,
    encode_cursor,
)
from harness.frame.records.columns import Row, UtcTime
from harness.frame.records.record import Record
from harness.frame.records.transaction import Transaction
from harness.frame.signing.signed_rows import RowFault


def row_key(table: sa.Table, id_: str) -> tuple[str, ...]:
    return (table.name, "id", id_)


def newest_key(table: sa.Table, group: str) -> tuple[str, ...]:
    return (table.name, "newest", group)


def rows_key(table: sa.Table, group: str) -> tuple[str, ...]:
    return (table.name, "all", group)


T = TypeVar("T")
Query = sa.Select[Any]
Column = sa.Column[Any]
Parameters = Mapping[str, object] | None


class Records(Generic[T]):
    """Reads and writes one kind of record in a transaction.

    order: the order of lists.
    missing: the message for an unknown key, with `{}` for the key.
    missing_code: the message's error code.
    """

    record: Record[T]
    order: tuple[sa.ColumnElement[Any], ...] = ()
    missing = "there is no row {}"
    missing_code = ""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    def add(self, new: Any) -> None:
        values = self.record.write(new)
        if self.record.signed:
            self._tx.insert(self.record.table, values)
        else:
            self._tx.write(sa.insert(self.record.table), values)

    def get(self, id_: str) -> T:
        loaded = self._first(self._select(self._is(id_)))
        if loaded is None:
            raise self._missing(id_)
        return loaded

    def all(self) -> Sequence[T]:
        return self._all(self._select())

    def _is(self, id_: str) -> sa.ColumnElement[bool]:
        return self.record.table.primary_key.columns[0] == id_

    def _missing(self, id_: str) -> NotFound:
        return NotFound(self.missing.format(id_), code=self.missing_code)

    def _select(self, *where: sa.ColumnElement[bool] | None) -> Query:
        return select_where(self.record.table, *where).order_by(*self.order)

    def _is_stored(self, id_: str) -> bool:
        return self._tx.read(self._select(self._is(id_))).first() is not None

    def _newest(self, column: sa.Column[Any], group: str) -> Row | None:
        """Reads the first row of a group, unless `Preload` has already read it."""
        query = self._select(column == group).limit(1)
        key = newest_key(self.record.table, group)
        return self._tx.once(key, lambda: self._tx.read(query).first())

    def _close(self, id_: str, **closing: object) -> T:
        """Closes a record, unless it is closed already.

        Args:
            closing: the values to set; the first is the time.
        """
        self._tx.serialize()
        stored: Any = self.get(id_)
        if getattr(stored, next(iter(closing))) is None:
            self._tx.amend(self.record.table, self._is(id_), closing)
            stored = replace(stored, **closing)
        return cast("T", stored)

    def _first(self, query: Query, parameters: Parameters = None) -> T | None:
        row = self._tx.read(query, parameters).first()
        return None if row is None else self._verified([row])[0]

    def _all(self, query: Query, parameters: Parameters = None) -> list[T]:
        return self._verified(self._tx.read(query, parameters))

    def _verified(self, rows: Iterable[Row]) -> list[T]:
        if self.record.signed:
            rows = self._tx.checked(self.record.table, rows)
        return [self.record.read(row) for row in rows]

    def _trusted(self, rows: Iterable[Row]) -> list[T]:
        """Builds the records of a signed table, without forged rows."""
        return [self.record.read(row) for row in self._tx.trusted(self.record.table, rows)]

    def _change(self, *where: sa.ColumnElement[bool], **values: object) -> int:
        return self._tx.write(sa.update(self.record.table).where(*where).values(values))

    def _delete(self, *where: sa.ColumnElement[bool]) -> int:
        return self._tx.write(sa.delete(self.record.table).where(*where))


# The largest BIGINT. An invented cursor with a larger number would cause a database error.
LARGEST_INTEGER: Final = 2**63 - 1


@dataclass(frozen=True)
class Order:
    columns: Sequence[Column]  # their values together are unique
    falling: frozenset[Column] = frozenset()  # the columns in descending order
    # The column whose value is the cursor. None if rows may move or disappear. In that case
    # the cursor contains the values of all columns.
    key: Column | None = None

    @property
    def clauses(self) -> list[sa.ColumnElement[Any]]:
        return [column.desc() if column in self.falling else column for column in self.columns]

    def cursor(self, row: Row) -> str:
        columns = [self.key] if self.key is not None else self.columns
        values = [getattr(row, column.name) for column in columns]
        return str(values[0]) if self.key is not None else encode_cursor(values)

    def behind(self, tx: Transaction, after: str) -> sa.ColumnElement[bool]:
        """Builds the condition for the rows after a cursor. Raises NotFound for a missing row,
        InputError for a malformed cursor.
        """
        first = self.columns[0]
        place = self._place(tx, after)
        # Follows from the second condition, but lets the database use an index.
        onwards = first <= place[0] if first in self.falling else first >= place[0]
        return sa.and_(onwards, self._behind(self.columns, place))

    def _place(self, tx: Transaction, after: str) -> Sequence[object]:
        if self.key is None:
            kinds = [_kind(column) for column in self.columns]
            values = decode_cursor(after, kinds)
            return [
                max(-LARGEST_INTEGER, min(LARGEST_INTEGER, v)) if isinstance(v, int) else v
                for v in values
            ]
        row = tx.read(sa.select(*self.columns).where(self.key == after)).first()
        if row is None:
            raise NotFound(f"there is no {after} in this list; read the list from its start")
        return list(row)

    def _behind(
        self, columns: Sequence[Column], values: Sequence[object]
    ) -> sa.ColumnElement[bool]:
        first = columns[0]
        value = values[0]
        is_behind = first < value if first in self.falling else first > value
        if len(columns) == 1:
            return is_behind
        return sa.or_(
            is_behind,
            sa.and_(first == value, self._behind(columns[1:], values[1:])),
        )


def _kind(column: Column) -> type:
    if isinstance(column.type, UtcTime):
        return datetime
    return int if isinstance(column.type, sa.Integer) else str


def newest(time: Column, id_: Column) -> Order:
    """Orders rows by time and then id, the newest first. The id is the cursor."""
    return Order((time, id_), frozenset({time, id_}), id_)


def given(column: Column, value: object) -> sa.ColumnElement[bool] | None:
    return None if value is None else column == value


def select_where(table: sa.Table, *where: sa.ColumnElement[bool] | None) -> Query:
    """Selects the rows that meet all conditions. Ignores conditions that are None."""
    return sa.select(table).where(*(condition for condition in where if condition is not None))


@dataclass(frozen=True)
class Rows:
    rows: Sequence[Row]
    total: int
    next: str | None  # the cursor of the next page; None at the end


def read_page(
    tx: Transaction,
    query: sa.Select[Any],
    order: Order,
    page_request: PageRequest,
) -> Rows:
    """Reads one page of a list.

    Args:
        query: the whole list, unsorted.
    """
    count = sa.select(sa.func.count()).select_from(query.subquery())
    total = int(tx.read(count).scalar_one())
    if page_request.after is not None:
        query = query.where(order.behind(tx, page_request.after))
    query = query.order_by(*order.clauses).limit(page_request.limit + 1)
    fetched = tx.read(query).all()
    has_more = len(fetched) > page_request.limit
    rows = fetched[: page_request.limit]
    return Rows(rows, total, order.cursor(rows[-1]) if has_more else None)


class PageReader:
    def __init__(self, tx: Transaction) -> None:
        self.tx = tx

    def page(
        self,
        record: Record[T],
        order: Order,
        page_request: PageRequest,
        *where: sa.ColumnElement[bool] | None,
    ) -> Page[T]:
        """Reads a page of records. `Page.invalid` names rows with invalid signatures.

        Args:
            where: see `select_where`.
        """
        query = select_where(record.table, *where)
        rows = read_page(self.tx, query, order, page_request)
        good = rows.rows
        invalid = list[RowFault]()
        if record.signed:
            good, invalid = self.split_by_signature(record.table, rows.rows)
        return Page(
            [record.read(row) for row in good],
            rows.total,
            rows.next,
            invalid,
        )

    def split_by_signature(
        self, table: sa.Table, rows: Sequence[Row]
    ) -> tuple[list[Row], list[RowFault]]:
        checked = [(row, self.tx.fault(table, row)) for row in rows]
        good = [row for row, fault in checked if fault is None]
        return good, [fault for _, fault in checked if fault is not None]
