"""Converts objects to data that JSON can hold, and back, and hashes it.

`to_plain` and `from_plain` are for storage: they convert dataclasses by the types of their
fields, or by a class's own `as_json` and `from_json`. `to_shown` is for the CLI, REST and the
dashboard: it omits secrets, and uses camelCase for a `CamelCase` class. `digest`,
`hash_content` and `short_hash` return the same hash on every machine. Hashes that need a secret
or that each request computes are in the modules of their subjects.
"""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from datetime import date
from enum import Enum, IntEnum
from functools import cache, partial
from hashlib import blake2b, sha256
from operator import attrgetter
from types import NoneType, UnionType
from typing import Any, Final, Union, get_args, get_origin, get_type_hints


def canonical_json(value: object) -> str:
    """Writes `value` as JSON with sorted keys and no spaces. Raises ValueError for NaN and
    infinity.
    """
    return _CANONICAL.encode(value)


# Built once, because `json.dumps` would build an encoder for each value.
_CANONICAL: Final = json.JSONEncoder(
    sort_keys=True,
    separators=(",", ":"),
    ensure_ascii=False,
    allow_nan=False,
)


def digest(value: object) -> str:
    """Computes the SHA-256 of the value's canonical JSON: 64 hexadecimal digits."""
    return sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()


def hash_content(content: bytes | str) -> str:
    """Computes the SHA-256 of bytes, or of a text as UTF-8: 64 hexadecimal digits."""
    data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    return sha256(data).hexdigest()


def short_hash(text: str, size: int = 8) -> bytes:
    """Computes the BLAKE2b hash of a text. Python's hash() differs between processes.

    Args:
        size: of the hash, in bytes.
    """
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size).digest()


_SCALARS: Final = frozenset({str, int, float, bool, NoneType})
_LISTS: Final = (list, Sequence, Collection)
Reader = Callable[[Any], Any]
Writer = Callable[[Any], Any]


class CamelCase:
    """Marks a class that `to_shown` writes with camelCase names, as providers' fields have."""

    __slots__ = ()


class ShownAsJson(ABC):
    """A class that `to_shown` writes by its `as_json` instead of by its fields."""

    __slots__ = ()

    @abstractmethod
    def as_json(self) -> dict[str, object]: ...


class ShowsMore(ABC):
    """A class that `to_shown` writes with further values in addition to its fields."""

    __slots__ = ()

    @abstractmethod
    def show_more(self, shown: dict[str, Any]) -> dict[str, Any]: ...


def to_plain(value: Any) -> Any:
    """Converts sets to sorted lists, enumerations to their values, dates and times to
    ISO 8601. Raises TypeError.
    """
    write = _writer(type(value))  # type: ignore[arg-type]  # a type is hashable
    return value if write is None else write(value)


@cache
def _writer(kind: type) -> Writer | None:  # noqa: PLR0911 - one for each kind
    """Builds the writer of a type; None if JSON holds its values unchanged."""
    if kind in _SCALARS:
        return None
    if issubclass(kind, Enum):
        return attrgetter("value")
    if issubclass(kind, str):
        return None
    if issubclass(kind, Mapping):
        return _write_mapping
    if issubclass(kind, Sequence) and not issubclass(kind, bytes):
        return _write_items
    if issubclass(kind, date):
        return kind.isoformat
    if hasattr(kind, "as_json"):
        return kind.as_json  # type: ignore[no-any-return]
    if is_dataclass(kind):
        return partial(_write_fields, tuple(field.name for field in fields(kind)))
    if issubclass(kind, AbstractSet):
        return _write_set
    raise TypeError(f"{kind.__name__} has no place in JSON")


def _write_mapping(value: Mapping[Any, Any]) -> dict[Any, Any]:
    return {to_plain(key): to_plain(item) for key, item in value.items()}


def _write_items(value: Sequence[Any]) -> list[Any]:
    return [to_plain(item) for item in value]


def _write_set(value: AbstractSet[Any]) -> list[Any]:
    return sorted(map(to_plain, value))


def _write_fields(names: Sequence[str], value: object) -> dict[str, Any]:
    found = {name: getattr(value, name) for name in names}
    # Most fields are scalars, so a call for each of them would be most of the time.
    return {
        name: item if type(item) in _SCALARS else to_plain(item) for name, item in found.items()
    }


def from_plain(
    kind: Any,
    data: Any,
    **known: Any,
) -> Any:
    """Reads a value that `to_plain` wrote.

    Args:
        known: fields that the caller has already read.

    Raises ValueError, KeyError, TypeError or AttributeError for other data.
    """
    if known:
        return read_fields(kind, {k: v for k, v in data.items() if k not in known}, **known)
    read = reader(kind)
    return data if read is None else read(data)


@cache
def reader(kind: Any) -> Reader | None:  # noqa: C901, PLR0911 - one for each kind
    """Builds the reader of a type; None if JSON holds its values unchanged."""
    origin = get_origin(kind)
    arguments = get_args(kind)
    if origin in (UnionType, Union):
        options = [option for option in arguments if option is not NoneType]
        read_inner = reader(options[0]) if len(options) == 1 else None
        return read_inner and partial(_read_optional, read_inner)
    if origin in (Mapping, dict):
        name, item = map(reader, arguments)
        return partial(_read_mapping, name, item) if name or item else None
    if origin is tuple and arguments[-1] is not Ellipsis:
        return partial(_read_pair, tuple(map(reader, arguments)))
    if origin in (tuple, frozenset):
        return partial(_read_items, origin, reader(arguments[0]))
    if origin in _LISTS:
        item = reader(arguments[0])
        return item and partial(_read_items, list, item)
    if hasattr(kind, "from_json"):
        return kind.from_json  # type: ignore[no-any-return]
    if not isinstance(kind, type):
        return None
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return lambda data: kind(*data)
    if is_dataclass(kind):
        return partial(read_fields, kind)
    if issubclass(kind, date):
        return kind.fromisoformat
    if kind is float:
        return _read_number
    return kind if kind is int or issubclass(kind, Enum) else None


def read_object(text: str | bytes) -> dict[str, Any] | None:
    """Reads a JSON object from an untrusted text; None if the text is not a JSON object."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _read_optional(read: Reader, data: Any) -> Any:
    return None if data is None else read(data)


def _read_mapping(
    name: Reader | None,
    item: Reader | None,
    data: Any,
) -> dict[Any, Any]:
    return {
        name(key) if name else key: item(value) if item else value
        for key, value in data.items()
    }


def _read_items(
    build: type,
    item: Reader | None,
    data: Any,
) -> Any:
    return build(map(item, data) if item else data)


def _read_pair(readers: Sequence[Reader | None], data: Any) -> tuple[Any, ...]:
    pairs = zip(readers, data, strict=True)
    return tuple(read(value) if read else value for read, value in pairs)


def _read_number(data: Any) -> Any:
    # Infinity is stored as a text, because JSON has no such number.
    return float(data) if isinstance(data, str) else data


def read_fields(
    kind: Any,
    data: Mapping[str, Any],
    **known: Any,
) -> Any:
    """Reads a dataclass by its fields, even if it has a `from_json`."""
    readers = _build_readers(kind)
    read = {}
    for name, value in data.items():
        read_value = readers[name]
        read[name] = read_value(value) if read_value else value
    return kind(**read, **known)


@cache
def _build_readers(kind: type) -> Mapping[str, Reader | None]:
    return {name: reader(hint) for name, hint in get_type_hints(kind).items()}


Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]
_PLAIN = frozenset({type(None), bool, str, int, float})

# `to_shown` omits these fields: readers do not need them, and an attacker could use them.
HIDDEN = frozenset({"hash", "ciphertext", "secret", "ledger_salt"})


def shown_name(kind: type, name: str) -> str:
    """Returns the name of a field of this type in a response."""
    if not issubclass(kind, CamelCase):
        return name
    first_word, *later_words = name.split("_")
    return first_word + "".join(part.title() for part in later_words)


def to_shown(value: object) -> Plain:  # noqa: C901, PLR0911 - one per kind of value
    """Converts a value to plain JSON: dataclasses to objects, times to ISO 8601, enums to
    their words. Raises TypeError.
    """
    if type(value) in _PLAIN:  # the fast way for most values
        return value  # type: ignore[return-value]  # one of _PLAIN
    match value:
        case IntEnum():
            return value.name.lower()
        case Enum():
            return to_shown(value.value)
        case bool() | str() | int() | float():
            return value
        case date():  # includes datetime
            return value.isoformat()
        case Mapping():
            return {str(key): to_shown(inner) for key, inner in value.items()}
        case list() | tuple():
            return [to_shown(inner) for inner in value]
        case set() | frozenset():
            return sorted(to_shown(inner) for inner in value)  # type: ignore[type-var]
        case ShownAsJson():
            return to_shown(value.as_json())
        case _ if is_dataclass(value) and not isinstance(value, type):
            return _convert_object(value)
        case _:
            raise TypeError(f"{type(value).__name__} has no plain form")


def write_json(value: object, *, indent: int | None = None) -> str:
    """Writes a value's plain form as JSON, with null for infinity and NaN."""
    plain = to_shown(value)
    try:
        text = json.dumps(
            plain,
            ensure_ascii=False,
            indent=indent,
            allow_nan=False,
        )
    except ValueError:  # searches for infinities only now, because few values have any
        finite = _replace_infinities(plain)
        text = json.dumps(
            finite,
            ensure_ascii=False,
            indent=indent,
            allow_nan=False,
        )
    return escape_surrogates(text)


def _replace_infinities(value: Plain) -> Plain:
    match value:
        case float() if not math.isfinite(value):
            return None
        case list():
            return [_replace_infinities(inner) for inner in value]
        case dict():
            return {name: _replace_infinities(inner) for name, inner in value.items()}
        case _:
            return value


def _convert_object(value: object) -> dict[str, Plain]:
    names = _list_shown_fields(type(value))  # type: ignore[arg-type]  # a type is hashable
    shown_fields = {
        shown_fields: to_shown(getattr(value, name)) for name, shown_fields in names
    }
    return value.show_more(shown_fields) if isinstance(value, ShowsMore) else shown_fields


@cache
def _list_shown_fields(kind: type) -> tuple[tuple[str, str], ...]:
    names = (field.name for field in fields(kind) if field.name not in HIDDEN)
    return tuple((name, shown_name(kind, name)) for name in names)


def escape_surrogates(text: str) -> str:
    r"""Writes lone surrogates in a JSON text as JSON escapes: a client may send a lone
    surrogate, and UTF-8 cannot encode it.

    >>> escape_surrogates('"half a pair \ud83d"')
    '"half a pair \\ud83d"'
    """
    return text.encode("utf-8", "backslashreplace").decode()
