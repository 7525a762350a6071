"""`Records` is the base of the repositories: it adds, loads and lists the rows of one table as
objects, and verifies those of a signed table. A repository adds the queries of its own.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar, cast

import sqlalchemy as sa

from harness.frame.errors import NotFound
from harness.frame.records.columns import Row
from harness.frame.records.pages import select_where
from harness.frame.records.preloaded import newest_key
from harness.frame.records.record import Record
from harness.frame.records.transaction import Transaction

T = TypeVar("T")
Query = sa.Select[Any]
Parameters = Mapping[str, object] | None


class Records(Generic[T]):
    """Reads and writes one kind of record in a unit of work.

    order: of lists. missing: the message for an unknown key, which stands at `{}`.
    missing_code: its code for programs.
    """

    record: Record[T]
    order: tuple[sa.ColumnElement[Any], ...] = ()
    missing = "there is no such row: {}"
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
        found = self._first(self._select(self._is(id_)))
        if found is None:
            raise self._missing(id_)
        return found

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
        """Reads the first row of a group, or takes it from `Preload`."""
        query = self._select(column == group).limit(1)
        key = newest_key(self.record.table, group)
        return self._tx.once(key, lambda: self._tx.read(query).first())

    def _close(self, id_: str, **closing: object) -> T:
        """Sets the columns that close a record, its time first, once."""
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

    def _believed(self, rows: Iterable[Row]) -> list[T]:
        """Makes the records of a signed table, without those of forged rows."""
        return [self.record.read(row) for row in self._tx.believed(self.record.table, rows)]

    def _change(self, *where: sa.ColumnElement[bool], **values: object) -> int:
        return self._tx.write(sa.update(self.record.table).where(*where).values(values))

    def _delete(self, *where: sa.ColumnElement[bool]) -> int:
        return self._tx.write(sa.delete(self.record.table).where(*where))
