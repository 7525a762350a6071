"""A row of a signed table as it is stored (`StoredRow`). Its signature is over that text: who
verifies it need not read the values and write them again, and who reads a few of them need not
read the others.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from typing import Any, Final, Generic, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy.engine.default import DefaultDialect

from harness.store.schema.columns import (
    SIGNATURE,
    FreeText,
    Json,
    JsonIn,
    Row,
    Values,
    plain,
    record_of,
    values_of,
)

T = TypeVar("T")
# Our types store alike everywhere.
ANY: Final = DefaultDialect()
# Texts whose value is kept: most rows share theirs, such as a policy, with many others.
KEPT_VALUES: Final = 1_000


def stored_columns(table: sa.Table) -> list[sa.ColumnElement[Any]]:
    """Lists the columns as they are stored: to read rows whose values are mostly known."""
    return [
        sa.type_coerce(column, column.type.impl_instance).label(column.name)
        if isinstance(column.type, sa.types.TypeDecorator)
        else column
        for column in table.c
    ]


def default_text(column: sa.Column[Any]) -> str | None:
    """Returns a column's default as the database knows it; None without one."""
    default = column.server_default
    return str(default.arg) if isinstance(default, sa.DefaultClause) else None


class StoredRow:
    """Stands for a row of `table`: a value is read when it is first asked for."""

    def __init__(self, table: sa.Table, stored: Mapping[str, object]) -> None:
        """stored: by column; one that is left out is NULL, or at its default."""
        self._readers = _readers(table)
        self.stored = stored

    def __getattr__(self, name: str) -> object:
        if name.startswith("_") or name not in self._readers:
            raise AttributeError(name)
        value = self.__dict__[name] = self._readers[name](self.stored.get(name))
        return value

    def _asdict(self) -> dict[str, object]:
        """Returns all values by column, as a row of SQLAlchemy does."""
        return self.values_without(())

    def values_without(self, left_out: Collection[str]) -> dict[str, object]:
        return {name: getattr(self, name) for name in self._readers if name not in left_out}


@cache
def _readers(table: sa.Table) -> Mapping[str, Callable[[object], object]]:
    return {column.name: _reader(column) for column in table.c}


def _reader(column: sa.Column[Any]) -> Callable[[object], object]:
    """Makes what reads a stored value of the column."""
    default, type_ = default_text(column), column.type
    read: Callable[[object], object]
    if isinstance(type_, sa.types.TypeDecorator) and not isinstance(type_, FreeText):
        read = partial(_process, type_.process_result_value)
    elif isinstance(type_, sa.Integer):
        read = _whole_number
    else:
        read = _as_it_is
    return read if default is None else lambda value: read(default if value is None else value)


def _process(read: Callable[[Any, sa.Dialect], object], value: object) -> object:
    return None if value is None else read(value, ANY)


def _whole_number(value: object) -> int | None:
    return None if value is None else int(str(value))


def _as_it_is(value: object) -> object:
    return value


def plain_values(row: Row, *also: str) -> dict[str, Any]:
    """Returns a row's columns as `plain` does; of a stored row it reads no others."""
    if isinstance(row, StoredRow):
        return row.values_without({SIGNATURE, *also})
    return plain(row, *also)


def parse_json(row: Row, name: str, parse: Callable[[JsonIn], T]) -> T:
    """Parses a column of JSON. parse: makes what nobody changes, of its value alone; it is
    asked once for each text of stored rows.
    """
    if isinstance(row, StoredRow):
        text = row.stored.get(name)
        if isinstance(text, str):
            return cast("T", _parse_text(parse, text))
    return parse(getattr(row, name))


@lru_cache(maxsize=KEPT_VALUES)
def _parse_text(parse: Callable[[JsonIn], object], text: str) -> object:
    return parse(cast("JsonIn", Json().process_result_value(text, ANY)))


@dataclass(frozen=True)
class Record(Generic[T]):
    """Declares how objects of one kind are stored: in which table, and how a row becomes an
    object and an object the values of a row.
    """

    table: sa.Table
    read: Callable[[Row], T]
    write: Callable[[Any], Values] = values_of

    @classmethod
    def by_fields(
        cls, table: sa.Table, kind: type[T], write: Callable[[Any], Values] = values_of
    ) -> "Record[T]":
        """Declares a record whose columns are named as the fields of its class."""
        return cls(table, partial(record_of, kind), write)

    @property
    def signed(self) -> bool:
        return SIGNATURE in self.table.c
