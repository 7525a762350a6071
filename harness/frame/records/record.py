"""Declares how the database stores objects of one class (`record`), and converts the objects to
rows and back.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from functools import cache, lru_cache, partial
from types import MappingProxyType, UnionType
from typing import (
    Any,
    Final,
    Generic,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

import sqlalchemy as sa

from harness.frame.plain_data import reader, to_plain
from harness.frame.records.columns import (
    ANY,
    SIGNATURE,
    FreeText,
    Json,
    Row,
    Values,
    columns_of,
    metadata,
)
from harness.frame.records.signed_tables import StoredRow, sign_rows_of

T = TypeVar("T")
# The number of decoded texts that the cache keeps. Many rows share a text, such as a policy.
CACHED_VALUES: Final = 1_000


@lru_cache(maxsize=CACHED_VALUES)
def _parse_text(parse: Callable[[Any], object], text: str) -> object:
    return parse(Json().process_result_value(text, ANY))


@dataclass(frozen=True, slots=True)
class _Field:
    """Describes how a field is stored."""

    name: str
    kind: type | None = None  # the class of a field that has a column for each of its fields
    encode: Callable[[Any], object] | None = None  # None for a value that needs no conversion
    decode: Callable[[Any], object] | None = None
    shared: bool = False  # equal texts decode once, to one immutable value


@cache
def _list_fields(cls: Any, table: sa.Table) -> Sequence[_Field]:
    hints = get_type_hints(cls)
    return [
        stored
        for field in fields(cls)
        if (stored := _build_field(field.name, hints[field.name], table)) is not None
    ]


def _build_field(
    name: str,
    hint: Any,
    table: sa.Table,
) -> _Field | None:
    options = get_args(hint) if get_origin(hint) in (UnionType, Union) else (hint,)
    kind = next((option for option in options if isinstance(option, type)), object)
    if name not in table.c:
        return _Field(name, kind) if is_dataclass(kind) else None
    column = table.c[name]
    parse = reader(hint)
    decode = None
    encode: Callable[[Any], object] | None = None
    if isinstance(column.type, Json):
        is_mapping = get_origin(hint) is Mapping
        decode = parse
        encode = to_plain if parse else dict if is_mapping else None
    elif issubclass(kind, Enum):
        decode = parse
        encode = _encode_enum
    elif kind is int and isinstance(column.type, FreeText):
        decode = int
        encode = str
    empty = _EMPTY.get(get_origin(hint) or hint)
    if column.nullable and empty is not None:
        encode = partial(_encode_unless_empty, encode)
        decode = partial(_decode_or_empty, decode, empty)
        return _Field(name, None, encode, decode)
    is_shared = isinstance(column.type, Json) and is_dataclass(kind)
    return _Field(name, None, encode, decode, is_shared)


# An empty value of these types is NULL in a nullable column.
_EMPTY: Final[Mapping[Any, type]] = {
    str: str,
    Mapping: dict,
    tuple: tuple,
    frozenset: frozenset,
}


def _encode_unless_empty(encode: Callable[[Any], object] | None, value: Any) -> object:
    return (encode(value) if encode else value) if value else None


def _decode_or_empty(
    decode: Callable[[Any], object] | None,
    empty: type,
    value: object,
) -> object:
    if value is None:
        return empty()
    return decode(value) if decode else value


def _encode_enum(value: Enum | None) -> object:
    return None if value is None else value.value


def values_of(
    record: Any,
    table: sa.Table,
    **replacements: object,
) -> Values:
    """Returns a row's values: the record's fields that have a column.

    Args:
        replacements: values that replace fields, or that fill further columns.
    """
    values: Values = {}
    for field in _list_fields(cast("Hashable", type(record)), table):
        if field.name in replacements:
            continue
        value = getattr(record, field.name)
        if field.kind is None:
            values[field.name] = field.encode(value) if field.encode else value
        elif value is not None:
            values |= values_of(value, table)
    return values | replacements


def record_of(
    cls: type[T],
    row: Row,
    table: sa.Table,
    **read_fields: object,
) -> T:
    """Builds a record from a row that `values_of` wrote.

    Args:
        read_fields: fields that the caller has read.
    """
    names, converted = _split_fields(cast("Hashable", cls), table)
    read = {name: getattr(row, name) for name in names}
    for field in converted:
        if field.name not in read_fields:
            read[field.name] = _read_value(field, row, table)
    return cls(**read | read_fields)


@cache
def _split_fields(cls: Any, table: sa.Table) -> tuple[Sequence[str], Sequence[_Field]]:
    """Returns the names of the fields that need no conversion, and the other fields."""
    stored = _list_fields(cls, table)
    converted = [field for field in stored if field.decode or field.kind]
    return [field.name for field in stored if field not in converted], converted


def _read_value(
    field: _Field,
    row: Row,
    table: sa.Table,
) -> object:
    if field.kind is not None:
        return record_of(field.kind, row, table)
    decode = cast("Callable[[Any], object]", field.decode)
    if field.shared:
        return _parse_column(row, field.name, decode)
    return decode(getattr(row, field.name))


def parse_json(
    row: Row,
    name: str,
    kind: type[T],
) -> T:
    return cast(
        "T",
        _parse_column(
            row,
            name,
            cast("Callable[[Any], object]", reader(cast("Hashable", kind))),
        ),
    )


def _parse_column(
    row: Row,
    name: str,
    parse: Callable[[Any], object],
) -> object:
    if isinstance(row, StoredRow):
        text = row.stored.get(name)
        if isinstance(text, str):
            return _parse_text(parse, text)
    return parse(getattr(row, name))


@dataclass(frozen=True)
class Record(Generic[T]):
    """The table of a class of objects, and the conversions between its rows and the objects."""

    table: sa.Table
    read: Callable[[Row], T]
    write: Callable[[Any], Values]

    def only(self, record: Any, *names: str) -> Values:
        values = self.write(record)
        return {name: values[name] for name in names}

    @property
    def signed(self) -> bool:
        return SIGNATURE in self.table.c


def record(  # noqa: PLR0913 - a declaration
    kind: type[T],
    name: str,
    *parts: sa.Column[Any] | sa.Constraint | sa.Index,
    key: str = "id",
    refers: Mapping[str, sa.Table | str] = MappingProxyType({}),
    signed: bool = False,
    flat: str = "",
    without: str = "",
    read: Callable[[Row], T] | None = None,
    also: Callable[[Any], Mapping[str, object]] | None = None,
) -> Record[T]:
    """Declares a record and its table, which has a column for each field of the class.

    Args:
        parts: columns that replace default columns, checks, indexes.
        key: names of the primary key's columns, separated by spaces.
        refers: columns with a foreign key, each with its table.
        signed: whether each row has a signature.
        flat: see `columns_of`; names separated by spaces.
        without: see `columns_of`; names separated by spaces.
        read: replaces the default conversion of a row.
        also: computes further columns from an object.
    """
    own_columns = [part for part in parts if isinstance(part, sa.Column)]
    columns = columns_of(
        kind,
        *own_columns,
        flat=flat.split(),
        without=without.split(),
    )
    for column in columns:
        if column.name in refers:
            column.append_foreign_key(sa.ForeignKey(_key_of(refers[column.name])))
    by_name = {column.name: column for column in columns}
    table = sa.Table(
        name,
        metadata,
        # With another order, SQLite 3.40 reports a NULL that is not there
        # (`PRAGMA integrity_check` of a table WITHOUT ROWID).
        *(by_name.pop(part) for part in key.split()),
        *by_name.values(),
        *([sa.Column(SIGNATURE, sa.Text)] if signed else []),
        sa.PrimaryKeyConstraint(*key.split()),
        *(part for part in parts if not isinstance(part, sa.Column)),
    )

    if signed:
        sign_rows_of(table)

    def write(object_: Any) -> Values:
        return values_of(object_, table, **(also(object_) if also else {}))

    return Record(table, read or partial(record_of, kind, table=table), write)


def _key_of(table: sa.Table | str) -> sa.Column[Any] | str:
    return f"{table}.id" if isinstance(table, str) else table.primary_key.columns[0]
