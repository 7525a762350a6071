"""Turns dataclasses into data that JSON can hold, and back by the types of their fields. A
class with `as_json` or `from_json` is written or read by it.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from datetime import date
from enum import Enum
from functools import cache, partial
from types import NoneType, UnionType
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

# Types that most values have come first: to ask an abstract class takes longer.
_MAPPINGS: Final = (dict, Mapping)
_SEQUENCES: Final = (list, tuple, Sequence)
_SCALARS: Final = frozenset({str, int, float, bool, NoneType})
_LISTS: Final = (list, Sequence, Collection)
Reader = Callable[[Any], Any]


class CamelCase:
    """Shown with camelCase names, as the providers' fields are known elsewhere (D1)."""

    __slots__ = ()


class ShownAsJson(ABC):
    """Shown as its `as_json` says, and not by its fields."""

    __slots__ = ()

    @abstractmethod
    def as_json(self) -> dict[str, object]: ...


class ShowsMore(ABC):
    """Shown with values beside its fields."""

    __slots__ = ()

    @abstractmethod
    def show_more(self, shown: dict[str, Any]) -> dict[str, Any]: ...


def to_plain(value: Any) -> Any:  # noqa: PLR0911 - one for each kind
    """Sets become sorted lists, enumerations their values, moments and days ISO 8601."""
    if type(value) in _SCALARS:
        return value
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, str):  # of a type of its own
        return value
    if isinstance(value, _MAPPINGS):
        return {to_plain(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, _SEQUENCES) and not isinstance(value, bytes):
        return [to_plain(item) for item in value]
    if isinstance(value, date):
        return value.isoformat()
    if hasattr(value, "as_json"):
        return value.as_json()
    if is_dataclass(value):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, AbstractSet):
        return sorted(map(to_plain, value))
    raise TypeError(f"{type(value).__name__} has no place in JSON")


def from_plain(kind: Any, data: Any, **known: Any) -> Any:
    """Reads what `to_plain` wrote of a value of this type. known: fields that are read already.
    Raises ValueError, KeyError, TypeError or AttributeError for any other data.
    """
    if known:
        return read_fields(kind, {k: v for k, v in data.items() if k not in known}, **known)
    read = reader(kind)
    return data if read is None else read(data)


@cache
def reader(kind: Any) -> Reader | None:  # noqa: C901, PLR0911 - one for each kind
    """Builds what reads a value of this type; None where JSON has the value as it is."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (UnionType, Union):
        options = [option for option in arguments if option is not NoneType]
        inner = reader(options[0]) if len(options) == 1 else None
        return inner and partial(_read_optional, inner)
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
    """Reads a JSON object, of anybody's text; None for anything else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _read_optional(read: Reader, data: Any) -> Any:
    return None if data is None else read(data)


def _read_mapping(name: Reader | None, item: Reader | None, data: Any) -> dict[Any, Any]:
    return {
        name(key) if name else key: item(value) if item else value
        for key, value in data.items()
    }


def _read_items(build: type, item: Reader | None, data: Any) -> Any:
    return build(map(item, data) if item else data)


def _read_pair(readers: Sequence[Reader | None], data: Any) -> tuple[Any, ...]:
    pairs = zip(readers, data, strict=True)
    return tuple(read(value) if read else value for read, value in pairs)


def _read_number(data: Any) -> Any:
    # JSON has no infinity.
    return float(data) if isinstance(data, str) else data


def read_fields(kind: Any, data: Mapping[str, Any], **known: Any) -> Any:
    """Reads a dataclass by its fields, though it has a `from_json`."""
    readers = _readers(kind)
    read = {}
    for name, value in data.items():
        of_field = readers[name]
        read[name] = of_field(value) if of_field else value
    return kind(**read, **known)


@cache
def _readers(kind: type) -> Mapping[str, Reader | None]:
    return {name: reader(hint) for name, hint in get_type_hints(kind).items()}
