"""`record` declares how objects of one kind are stored.

`StoredRow` is a row of a signed table as it is stored. Its signature covers that text, so a
reader verifies it without decoding the values, and decodes only the values it needs.
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
    Json,
    Row,
    Values,
    columns_of,
    metadata,
)
from harness.frame.records.signed_tables import StoredRow, sign_rows_of

T = TypeVar("T")
# Texts whose value is kept: most rows share theirs, such as a policy, with many others.
KEPT_VALUES: Final = 1_000


@lru_cache(maxsize=KEPT_VALUES)
def _parse_text(parse: Callable[[Any], object], text: str) -> object:
    return parse(Json().process_result_value(text, ANY))


@dataclass(frozen=True, slots=True)
class _Field:
    """Describes in which column a field is stored; kind: in those of its own fields."""

    name: str
    kind: type | None = None
    encode: Callable[[Any], object] | None = None  # None for a value that is written as it is
    decode: Callable[[Any], object] | None = None
    shared: bool = False  # equal texts of the column are decoded once, to one immutable value


@cache
def _fields_of(cls: Any, table: sa.Table) -> Sequence[_Field]:
    hints = get_type_hints(cls)
    return [
        stored
        for field in fields(cls)
        if (stored := _stored_field(field.name, hints[field.name], table)) is not None
    ]


def _stored_field(name: str, hint: Any, table: sa.Table) -> _Field | None:
    options = get_args(hint) if get_origin(hint) in (UnionType, Union) else (hint,)
    kind = next((one for one in options if isinstance(one, type)), object)
    if name not in table.c:
        return _Field(name, kind) if is_dataclass(kind) else None
    column, parse, decode = table.c[name], reader(hint), None
    encode: Callable[[Any], object] | None = None
    if isinstance(column.type, Json):
        is_mapping = get_origin(hint) is Mapping
        decode, encode = parse, to_plain if parse else dict if is_mapping else None
    elif issubclass(kind, Enum):
        decode, encode = parse, _value_of_enum
    elif kind is int and isinstance(column.type, sa.Text):
        decode, encode = int, str
    empty = _EMPTY.get(get_origin(hint) or hint)
    if column.nullable and empty is not None:
        encode, decode = partial(_encode_full, encode), partial(_decode_full, decode, empty)
        return _Field(name, None, encode, decode)
    shared = isinstance(column.type, Json) and is_dataclass(kind)
    return _Field(name, None, encode, decode, shared)


# An empty value of these types is NULL in a nullable column.
_EMPTY: Final[Mapping[Any, type]] = {
    str: str,
    Mapping: dict,
    tuple: tuple,
    frozenset: frozenset,
}


def _encode_full(encode: Callable[[Any], object] | None, value: Any) -> object:
    return (encode(value) if encode else value) if value else None


def _decode_full(decode: Callable[[Any], object] | None, empty: type, value: object) -> object:
    if value is None:
        return empty()
    return decode(value) if decode else value


def _value_of_enum(value: Enum | None) -> object:
    return None if value is None else value.value


def values_of(record: Any, table: sa.Table, **other: object) -> Values:
    """Returns the values of a row: those of the record's fields that the table has columns for.
    other: values that are written instead, or beside.
    """
    values: Values = {}
    for field in _fields_of(cast("Hashable", type(record)), table):
        if field.name in other:
            continue
        value = getattr(record, field.name)
        if field.kind is None:
            values[field.name] = field.encode(value) if field.encode else value
        elif value is not None:
            values |= values_of(value, table)
    return values | other


def record_of(cls: type[T], row: Row, table: sa.Table, **other: object) -> T:
    """Builds a record of a row, as `values_of` wrote it. other: fields that are read
    otherwise.
    """
    names, others = _reading(cast("Hashable", cls), table)
    read = {name: getattr(row, name) for name in names}
    for field in others:
        if field.name not in other:
            read[field.name] = _value_of(field, row, table)
    return cls(**read | other)


@cache
def _reading(cls: Any, table: sa.Table) -> tuple[Sequence[str], Sequence[_Field]]:
    """Names the fields that are read as they are, which most are, and the others."""
    stored = _fields_of(cls, table)
    others = [field for field in stored if field.decode or field.kind]
    return [field.name for field in stored if field not in others], others


def _value_of(field: _Field, row: Row, table: sa.Table) -> object:
    if field.kind is not None:
        return record_of(field.kind, row, table)
    decode = cast("Callable[[Any], object]", field.decode)
    if field.shared:
        return _parse_column(row, field.name, decode)
    return decode(getattr(row, field.name))


def parse_json(row: Row, name: str, kind: type[T]) -> T:
    return cast(
        "T",
        _parse_column(
            row, name, cast("Callable[[Any], object]", reader(cast("Hashable", kind)))
        ),
    )


def _parse_column(row: Row, name: str, parse: Callable[[Any], object]) -> object:
    if isinstance(row, StoredRow):
        text = row.stored.get(name)
        if isinstance(text, str):
            return _parse_text(parse, text)
    return parse(getattr(row, name))


@dataclass(frozen=True)
class Record(Generic[T]):
    """Declares how objects of one kind are stored: in which table, and how a row becomes an
    object and an object the values of a row.
    """

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
    free: str = "",
    flat: str = "",
    without: str = "",
    read: Callable[[Row], T] | None = None,
    also: Callable[[Any], Mapping[str, object]] | None = None,
) -> Record[T]:
    """Declares a record and its table, which has a column for each field of the class.

    parts: columns with a default or a type of their own, checks, indexes. refers: columns, each
    with the table that it names a row of. free, flat, without: as of `columns_of`. Spaces
    divide the names in a text. read: another way to read a row. also: computes further columns
    from an object.
    """
    own = [part for part in parts if isinstance(part, sa.Column)]
    columns = columns_of(
        kind, *own, free=free.split(), flat=flat.split(), without=without.split()
    )
    for column in columns:
        if column.name in refers:
            column.append_foreign_key(sa.ForeignKey(_key_of(refers[column.name])))
    table = sa.Table(
        name,
        metadata,
        *columns,
        *([sa.Column(SIGNATURE, sa.Text)] if signed else []),
        sa.PrimaryKeyConstraint(*key.split()),
        *(part for part in parts if not isinstance(part, sa.Column)),
    )

    if signed:
        sign_rows_of(table)

    def write(one: Any) -> Values:
        return values_of(one, table, **(also(one) if also else {}))

    return Record(table, read or partial(record_of, kind, table=table), write)


def _key_of(table: sa.Table | str) -> sa.Column[Any] | str:
    return f"{table}.id" if isinstance(table, str) else table.primary_key.columns[0]
