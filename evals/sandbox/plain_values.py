"""Two processes that distrust each other exchange plain values: data, never objects.

A value is a JSON list, `[tag, …]`. What has no tag of its own stays where it is: the other side
gets the number of a handle. Standard library alone.
"""

import base64
import datetime as dt
import decimal
import fractions
import itertools
import types
from collections.abc import (
    Callable,
    ItemsView,
    Iterator,
    KeysView,
    Mapping,
    ValuesView,
)
from typing import Any, Final

DEEPEST: Final = 60
LONGEST_ITERATOR: Final = 10_000
SEQUENCES: Final[Mapping[str, type[Any]]] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
}
# Built anew from texts and whole numbers, which these constructors check.
RECORDS: Final[Mapping[str, Callable[..., object]]] = {
    "decimal": decimal.Decimal,
    "fraction": fractions.Fraction,
    "date": dt.date.fromisoformat,
    "datetime": dt.datetime.fromisoformat,
    "time": dt.time.fromisoformat,
}


class NotPlain(Exception):
    """What came is not a value of this module."""


class StandIn:
    """An object of the other side's, by its handle there."""

    __slots__ = ("remote_handle",)
    remote_handle: int


def encode(  # noqa: C901, PLR0911 - a line for each kind of value
    value: object, keep: Callable[[object], list[Any]], depth: int = 0
) -> list[Any]:
    """Writes a value as plain data. keep: what stands for an object that stays where it is,
    `["handle", number]`.

    A `StandIn` goes back as what it stands for. Raises NotPlain.
    """
    if isinstance(value, StandIn):
        return ["back", value.remote_handle]
    if depth > DEEPEST:
        raise NotPlain("nested too deeply")
    if value is None or value is True or value is False:
        return ["const", str(value)]
    simple = _scalar(value) or _record(value)
    if simple is not None:
        return simple

    def inner(item: object) -> list[Any]:
        return encode(item, keep, depth + 1)

    if isinstance(value, dict):
        pairs = [[inner(key), inner(item)] for key, item in dict.items(value)]
        return ["dict", pairs]
    for tag, kind in SEQUENCES.items():
        if isinstance(value, kind):
            return [tag, [inner(item) for item in kind.__iter__(value)]]  # not the answer's own
    if isinstance(value, types.ModuleType):
        return ["module", value.__name__]
    if isinstance(value, Iterator):
        return ["iterator", [inner(item) for item in itertools.islice(value, LONGEST_ITERATOR)]]
    if isinstance(value, KeysView | ValuesView | ItemsView):
        return ["list", [inner(item) for item in value]]
    return keep(value)


def _scalar(value: object) -> list[Any] | None:
    match value:
        case int():
            return ["int", hex(int.__index__(value))]
        case float():
            return ["float", float.hex(value)]
        case complex():
            return ["complex", value.real.hex(), value.imag.hex()]
        case str():
            return ["str", str.__str__(value)]
        case bytes() | bytearray():
            text = base64.b64encode(bytes(value)).decode()
            return ["bytes" if isinstance(value, bytes) else "bytearray", text]
        case _:
            return None


def _record(value: object) -> list[Any] | None:  # noqa: PLR0911 - a case for each kind
    match value:
        case decimal.Decimal():
            return ["decimal", str(value)]
        case fractions.Fraction():
            return ["fraction", f"{value.numerator}/{value.denominator}"]
        case dt.datetime():
            return ["datetime", value.isoformat()]
        case dt.date():
            return ["date", value.isoformat()]
        case dt.time():
            return ["time", value.isoformat()]
        case dt.timedelta():
            return ["days", value.days, value.seconds, value.microseconds]
        case range():
            return ["range", value.start, value.stop, value.step]
        case _:
            return None


def decode(  # noqa: C901, PLR0911, PLR0912 - a case for each kind of value
    data: object,
    stand_in: Callable[[str, int], object],
    module: Callable[[str], object],
    depth: int = 0,
) -> Any:
    """Reads a value from plain data. stand_in: what a handle of the other side becomes here, or
    what one of ours was.

    Only exact built-in types and records come of it: nothing here runs the other side's code.
    Raises NotPlain for all else.
    """
    if depth > DEEPEST or not isinstance(data, list) or not data:
        raise NotPlain("not a value")

    def inner(item: object) -> Any:
        return decode(item, stand_in, module, depth + 1)

    try:
        match data:
            case ["const", str(name)]:
                return {"None": None, "True": True, "False": False}[name]
            case ["int", str(text)]:
                return int(text, 16)
            case ["float", str(text)]:
                return float.fromhex(text)
            case ["complex", str(real), str(imaginary)]:
                return complex(float.fromhex(real), float.fromhex(imaginary))
            case ["str", str(text)]:
                return text
            case ["bytes", str(text)]:
                return base64.b64decode(text)
            case ["bytearray", str(text)]:
                return bytearray(base64.b64decode(text))
            case ["dict", list(pairs)]:
                return {inner(key): inner(item) for key, item in pairs}
            case [("list" | "tuple" | "set" | "frozenset") as tag, list(values)]:
                return SEQUENCES[tag](inner(value) for value in values)
            case ["iterator", list(values)]:
                return iter([inner(value) for value in values])
            case ["module", str(name)]:
                return module(name)
            case ["handle" | "back" as tag, int(number)]:
                return stand_in(tag, number)
            case ["days" | "range" as tag, int(first), int(second), int(third)]:
                made = range if tag == "range" else dt.timedelta
                return made(first, second, third)
            case [str(tag), str(text)]:
                return RECORDS[tag](text)
            case _:
                raise NotPlain("not a value")
    except (KeyError, ValueError, TypeError, ArithmeticError) as error:
        raise NotPlain(f"not a value: {error}") from None
