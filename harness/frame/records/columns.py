"""Column types that store the same values on SQLite and PostgreSQL, and functions that build
columns and CHECKs.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from types import NoneType, UnionType
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

import sqlalchemy as sa
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.ext.compiler import compiles

from harness.frame.errors import InputError
from harness.frame.plain_data import canonical_json

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)


# SQLite's STRICT tables support only six types.
@compiles(sa.BigInteger, "sqlite")
@compiles(sa.Boolean, "sqlite")
def _compile_integer(*_: object, **__: Any) -> str:
    return "INTEGER"


@compiles(sa.Double, "sqlite")
def _compile_real(*_: object, **__: Any) -> str:
    return "REAL"


def keep_strict(table: sa.Table) -> None:
    """Makes a SQLite table STRICT and WITHOUT ROWID.

    Without STRICT, a column of numbers accepts the text '2x'. With a rowid, REPLACE by rowid
    can rewrite a row without its triggers. PostgreSQL has neither problem.
    """
    options = table.dialect_options["sqlite"]
    options["strict"] = True
    options["with_rowid"] = False


# The column of a row's signature, in every table whose rows are signed.
SIGNATURE: Final = "signature"
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
FIRST: Final = datetime.min.replace(tzinfo=UTC)
LAST: Final = datetime.max.replace(tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class UtcTime(sa.types.TypeDecorator[datetime]):
    """Stores an aware datetime as microseconds since 1970 UTC, exact on every database."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> int | None:  # noqa: ARG002 - the signature is SQLAlchemy's
        if value is None:
            return None
        if value.tzinfo is None:
            raise InputError(f"the time {value.isoformat()} has no time zone: use UTC")
        return (value - EPOCH) // MICROSECOND

    def process_result_value(self, value: int | None, dialect: sa.Dialect) -> datetime | None:  # noqa: ARG002
        if value is None:
            return None
        try:
            return EPOCH + value * MICROSECOND
        except OverflowError:
            # Somebody wrote the value without Swapproof. The row must not hide other rows.
            return LAST if value > 0 else FIRST


def _refuse_constant(constant: str) -> object:
    raise ValueError(f"{constant} is not valid JSON")


_JSON: Final = json.JSONDecoder(parse_constant=_refuse_constant)


class Json(sa.types.TypeDecorator[object]):
    """Stores a JSON value as canonical text, so that equal values have equal bytes.

    Somebody may have written malformed JSON without Swapproof. The type then returns the text,
    and the row's signature fails, so that the row does not hide other rows.
    """

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: object, dialect: sa.Dialect) -> str | None:  # noqa: ARG002
        if value is None:
            return None
        text = canonical_json(value)
        # Writes a lone surrogate as its JSON escape, because UTF-8 cannot encode it.
        return _LONE_SURROGATE.sub(lambda match_: f"\\u{ord(match_[0]):04x}", text)

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> object:  # noqa: ARG002
        if value is None:
            return None
        try:
            return _JSON.decode(value)
        except (ValueError, RecursionError):
            return value


class Day(sa.types.TypeDecorator[date]):
    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: date | None, dialect: sa.Dialect) -> str | None:  # noqa: ARG002
        return None if value is None else value.isoformat()

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> date | None:  # noqa: ARG002
        if value is None:
            return None
        try:
            return date.fromisoformat(value)
        except ValueError:
            return date.min  # no error, so that such a row does not hide other rows


def storable(text: str) -> str:
    """Replaces NUL and lone surrogates, which databases cannot store, with ␀ and �."""
    return _LONE_SURROGATE.sub("\ufffd", text.replace("\0", "\u2400"))


class FreeText(sa.types.TypeDecorator[str]):
    """Stores texts of people and models. Replaces the characters that databases refuse; see
    `storable`.
    """

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:  # noqa: ARG002
        return None if value is None else storable(value)


def one_of(column: str, values: Iterable[str]) -> sa.CheckConstraint:
    value_list = ", ".join(f"'{value}'" for value in values)
    return sa.CheckConstraint(f"{column} IN ({value_list})", name=f"{column}_known")


def share(column: str) -> sa.CheckConstraint:
    """Limits a column to shares from 0 to 1. The upper bound refuses NaN too, because
    PostgreSQL sorts NaN above every number.
    """
    return sa.CheckConstraint(f"{column} >= 0 AND {column} <= 1", name=f"{column}_share")


def amount(column: str) -> sa.CheckConstraint:
    """Limits a column to amounts that are neither negative nor infinite nor NaN."""
    return sa.CheckConstraint(f"{column} >= 0 AND {column} < 1e15", name=f"{column}_amount")


def finite(column: str) -> sa.CheckConstraint:
    """Limits a column to numbers that are neither infinite nor NaN."""
    return sa.CheckConstraint(f"{column} > -1e15 AND {column} < 1e15", name=f"{column}_finite")


def at_least(column: str, minimum: int) -> sa.CheckConstraint:
    return sa.CheckConstraint(f"{column} >= {minimum}", name=f"{column}_least")


def not_blank(column: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(f"trim({column}) <> ''", name=f"{column}_not_blank")


def text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, FreeText, nullable=nullable)


def count(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=nullable)


def added_count(name: str) -> sa.Column[int]:
    return sa.Column(
        name,
        sa.BigInteger,
        nullable=False,
        server_default="0",
    )


def number(name: str, *, nullable: bool = False) -> sa.Column[float]:
    return sa.Column(name, sa.Double, nullable=nullable)


def time(name: str, *, nullable: bool = False) -> sa.Column[datetime]:
    return sa.Column(name, UtcTime, nullable=nullable)


def day(name: str) -> sa.Column[date]:
    return sa.Column(name, Day, nullable=False)


def json_value(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, Json, nullable=nullable)


def signature() -> sa.Column[str]:
    return sa.Column(SIGNATURE, sa.Text, nullable=True)


# The type of a column for a field of each type; JSON for all other types.
_TYPES: Final[Mapping[type, Any]] = {
    bool: sa.Boolean,
    int: sa.BigInteger,
    float: sa.Double,
    str: FreeText,
    StrEnum: sa.Text,
    datetime: UtcTime,
    date: Day,
}


def columns_of(
    record: Any,
    *replacements: sa.Column[Any],
    flat: Collection[str] = (),
    without: Collection[str] = (),
) -> list[sa.Column[Any]]:
    """Builds a column for each field of a dataclass, by its type; optional fields are nullable.

    Args:
        replacements: columns for fields that need, for example, a default or another type.
            Columns without a field come last.
        flat: dataclass fields that have a column for each of their own fields.
        without: fields without a column.
    """
    columns: dict[str, sa.Column[Any]] = {}
    for name, hint in get_type_hints(record).items():
        if name in flat:
            columns |= {c.name: c for c in columns_of(hint, flat=flat)}
        elif name in record.__dataclass_fields__ and name not in without:
            columns[name] = _build_column(name, hint)
    return list((columns | {column.name: column for column in replacements}).values())


def _build_column(name: str, hint: Any) -> sa.Column[Any]:
    options = get_args(hint) if get_origin(hint) in (UnionType, Union) else (hint,)
    kind = next(option for option in options if option is not NoneType)
    bases = kind.__mro__ if isinstance(kind, type) else ()
    type_ = next((_TYPES[base] for base in bases if base in _TYPES), Json)
    return sa.Column(name, type_, nullable=NoneType in options)


def index_where(
    name: str,
    where: sa.ColumnElement[bool] | sa.TextClause,
    *columns: str,
    unique: bool = False,
) -> sa.Index:
    return sa.Index(
        name,
        *columns,
        unique=unique,
        sqlite_where=where,
        postgresql_where=where,
    )


def unique_where(
    name: str,
    where: sa.ColumnElement[bool] | sa.TextClause,
    *columns: str,
) -> sa.Index:
    return index_where(name, where, *columns, unique=True)


# This dialect serves for every database, because our types store the same values on each.
ANY: Final = DefaultDialect()


def default_text(column: sa.Column[Any]) -> str | None:
    """Returns a column's default in the database; None without a default."""
    default = column.server_default
    return str(default.arg) if isinstance(default, sa.DefaultClause) else None


# The values of a row to write, by column.
Values = dict[str, object]
# A row from the database; only its table knows the types of the columns.
Row = sa.Row[Any]
