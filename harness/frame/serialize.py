"""Turns domain objects into plain JSON values. `to_plain` is for CLI, REST and dashboard:
without secrets, in camelCase where a class says so.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import date
from enum import Enum, IntEnum
from functools import cache

from harness.frame.plain_data import CamelCase, ShownAsJson, ShowsMore

Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]

_PLAIN = frozenset({type(None), bool, str, int, float})
# Of no use to a reader, and of some to a thief.
HIDDEN = frozenset({"hash", "ciphertext", "secret", "ledger_salt"})


def shown_name(kind: type, name: str) -> str:
    """What a field of this type is called in an answer."""
    if not issubclass(kind, CamelCase):
        return name
    first, *others = name.split("_")
    return first + "".join(part.title() for part in others)


def to_plain(value: object) -> Plain:  # noqa: C901, PLR0911 - one per kind of value
    """Turns a value into plain JSON: dataclasses become objects, times ISO 8601, enums their
    words. Raises TypeError.
    """
    if type(value) in _PLAIN:  # most values, and an enum is of a type of its own
        return value  # type: ignore[return-value]  # as its type says
    match value:
        case IntEnum():
            return value.name.lower()
        case Enum():
            return to_plain(value.value)
        case bool() | str() | int() | float():
            return value
        case date():  # and datetime, which is one
            return value.isoformat()
        case Mapping():
            return {str(key): to_plain(inner) for key, inner in value.items()}
        case list() | tuple():
            return [to_plain(inner) for inner in value]
        case set() | frozenset():
            return sorted(to_plain(inner) for inner in value)  # type: ignore[type-var]
        case ShownAsJson():
            return to_plain(value.as_json())
        case _ if is_dataclass(value) and not isinstance(value, type):
            return _fields(value)
        case _:
            raise TypeError(f"{type(value).__name__} has no plain form")


def write_json(value: object, *, indent: int | None = None) -> str:
    """Writes a value's plain form as JSON, with null for infinity and NaN."""
    plain = to_plain(value)
    try:
        text = json.dumps(plain, ensure_ascii=False, indent=indent, allow_nan=False)
    except ValueError:  # hardly any value has one, and to look for it takes as long as to write
        finite = _without_infinities(plain)
        text = json.dumps(finite, ensure_ascii=False, indent=indent, allow_nan=False)
    return escape_surrogates(text)


def _without_infinities(value: Plain) -> Plain:
    match value:
        case float() if not math.isfinite(value):
            return None
        case list():
            return [_without_infinities(inner) for inner in value]
        case dict():
            return {name: _without_infinities(inner) for name, inner in value.items()}
        case _:
            return value


def _fields(value: object) -> dict[str, Plain]:
    names = _shown_fields(type(value))  # type: ignore[arg-type]  # a type is hashable
    shown = {shown: to_plain(getattr(value, name)) for name, shown in names}
    return value.show_more(shown) if isinstance(value, ShowsMore) else shown


@cache
def _shown_fields(kind: type) -> tuple[tuple[str, str], ...]:
    shown = (field.name for field in fields(kind) if field.name not in HIDDEN)
    return tuple((name, shown_name(kind, name)) for name in shown)


def escape_surrogates(text: str) -> str:
    r"""Writes the lone surrogates in a JSON text as JSON's escapes: a client may send one, and
    UTF-8 has none.

    >>> escape_surrogates('"half a pair \ud83d"')
    '"half a pair \\ud83d"'
    """
    return text.encode("utf-8", "backslashreplace").decode()
