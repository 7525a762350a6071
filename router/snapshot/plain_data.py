"""Turns dataclasses into data that JSON can hold, and back by the types of their fields: for
the snapshot on disk, the spool, and what workers report to their parent. Pure.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from datetime import date
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, Final, get_args, get_origin, get_type_hints

# Types that most values have come first: to ask an abstract class takes longer.
_MAPPINGS: Final = (dict, Mapping)
_SEQUENCES: Final = (list, tuple, Sequence)
_SCALARS: Final = frozenset({str, int, float, bool, NoneType})


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
    if is_dataclass(value):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, AbstractSet):
        return sorted(map(to_plain, value))
    raise TypeError(f"{type(value).__name__} has no place in JSON")


def from_plain(kind: Any, data: Any, **known: Any) -> Any:  # noqa: PLR0911 - as above
    """Reads what `to_plain` wrote of a value of this type. known: fields that are read already.
    Raises ValueError, KeyError, TypeError or AttributeError for any other data.
    """
    if isinstance(kind, UnionType):
        if data is None:
            return None
        (kind,) = (option for option in get_args(kind) if option is not NoneType)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Mapping:
        name, item = arguments
        return {from_plain(name, key): from_plain(item, value) for key, value in data.items()}
    if origin in (tuple, frozenset, Sequence):
        items = [from_plain(arguments[0], item) for item in data]
        return items if origin is Sequence else origin(items)
    if hasattr(kind, "from_json"):
        return kind.from_json(data)
    if isinstance(kind, type) and is_dataclass(kind):
        types = _types_of(kind)
        new = {name: value for name, value in data.items() if name not in known}
        return kind(**{k: from_plain(types[k], value) for k, value in new.items()} | known)
    if isinstance(kind, type) and issubclass(kind, date):
        return kind.fromisoformat(data)
    is_read = kind is int or (isinstance(kind, type) and issubclass(kind, Enum))
    return kind(data) if is_read else data


@cache
def _types_of(kind: type) -> Mapping[str, Any]:
    return get_type_hints(kind)
