"""Pages a list by keyset: the rows after a cursor in the list's `Order`, as fast far back as
at the front.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar

import sqlalchemy as sa

from harness.frame.errors import NotFound
from harness.frame.pagination import Page, PageRequest, decode_cursor, encode_cursor
from harness.frame.records.columns import Row, UtcTime
from harness.frame.records.record import Record
from harness.frame.records.transaction import Transaction
from harness.frame.signing.signed_rows import RowFault

T = TypeVar("T")
Query = sa.Select[Any]
Column = sa.Column[Any]
# BIGINT on both databases: a cursor that somebody made up is no error of the database.
MOST: Final = 2**63 - 1


@dataclass(frozen=True)
class Order:
    columns: Sequence[Column]  # together unique
    falling: frozenset[Column] = frozenset()  # those of them that go down
    # The column that names a row in a cursor, where a row keeps its place for good. None for
    # rows that move or are deleted: then a cursor holds the place itself.
    key: Column | None = None

    @property
    def clauses(self) -> list[sa.ColumnElement[Any]]:
        return [column.desc() if column in self.falling else column for column in self.columns]

    def cursor(self, row: Row) -> str:
        named = [self.key] if self.key is not None else self.columns
        values = [getattr(row, column.name) for column in named]
        return str(values[0]) if self.key is not None else encode_cursor(values)

    def behind(self, tx: Transaction, after: str) -> sa.ColumnElement[bool]:
        """Builds the condition for the rows behind a cursor. Raises NotFound for a row that is
        not stored, InputError for a malformed cursor.
        """
        first, place = self.columns[0], self._place(tx, after)
        # The other condition implies this one, which an index goes straight to.
        onwards = first <= place[0] if first in self.falling else first >= place[0]
        return sa.and_(onwards, self._behind(self.columns, place))

    def _place(self, tx: Transaction, after: str) -> Sequence[object]:
        if self.key is None:
            kinds = [_kind(column) for column in self.columns]
            found = decode_cursor(after, kinds)
            return [max(-MOST, min(MOST, v)) if isinstance(v, int) else v for v in found]
        row = tx.read(sa.select(*self.columns).where(self.key == after)).first()
        if row is None:
            raise NotFound(f"there is no {after} in this list to go on behind")
        return list(row)

    def _behind(
        self, columns: Sequence[Column], values: Sequence[object]
    ) -> sa.ColumnElement[bool]:
        first, value = columns[0], values[0]
        further = first < value if first in self.falling else first > value
        if len(columns) == 1:
            return further
        return sa.or_(further, sa.and_(first == value, self._behind(columns[1:], values[1:])))


def _kind(column: Column) -> type:
    if isinstance(column.type, UtcTime):
        return datetime
    return int if isinstance(column.type, sa.Integer) else str


def newest(time: Column, id_: Column) -> Order:
    """Orders rows by time and then by id, the newest first; the id is the cursor."""
    return Order((time, id_), frozenset({time, id_}), id_)


def given(column: Column, value: object) -> sa.ColumnElement[bool] | None:
    return None if value is None else column == value


def select_where(table: sa.Table, *where: sa.ColumnElement[bool] | None) -> Query:
    """Selects the rows of a table that all conditions hold of; None is no condition."""
    return sa.select(table).where(*(one for one in where if one is not None))


@dataclass(frozen=True)
class Rows:
    rows: Sequence[Row]
    total: int
    next: str | None  # the cursor of the next page, None at the end


def read_page(
    tx: Transaction, query: sa.Select[Any], order: Order, page_request: PageRequest
) -> Rows:
    """Reads one page of a list. query: the whole list, unsorted."""
    count = sa.select(sa.func.count()).select_from(query.subquery())
    total = int(tx.read(count).scalar_one())
    if page_request.after is not None:
        query = query.where(order.behind(tx, page_request.after))
    query = query.order_by(*order.clauses).limit(page_request.limit + 1)
    found = tx.read(query).all()
    more = len(found) > page_request.limit
    rows = found[: page_request.limit]
    return Rows(rows, total, order.cursor(rows[-1]) if more else None)


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
        """Reads a page of records. A row of a signed table that is not as it was signed is
        named instead. where: as of `select_where`.
        """
        query = select_where(record.table, *where)
        rows = read_page(self.tx, query, order, page_request)
        good, invalid = rows.rows, list[RowFault]()
        if record.signed:
            good, invalid = self.sorted_out(record.table, rows.rows)
        return Page([record.read(row) for row in good], rows.total, rows.next, invalid)

    def sorted_out(
        self, table: sa.Table, rows: Sequence[Row]
    ) -> tuple[list[Row], list[RowFault]]:
        checked = [(row, self.tx.fault(table, row)) for row in rows]
        good = [row for row, fault in checked if fault is None]
        return good, [fault for _, fault in checked if fault is not None]
