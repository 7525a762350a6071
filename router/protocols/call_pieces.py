"""Joins the pieces of streamed tool calls by their place, whatever their ids and names say.

A piece of a name that repeats the name so far adds nothing; names end where arguments begin.
Some providers stream several calls in one place: whole arguments followed by another object,
name or id begin another call. An empty object is a placeholder where arguments without a name
follow.
"""

from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from jiter import from_json

NO_JSON: Final = object()
EMPTY: Final = "{}"
BROKEN_CALL: Final = "a tool call whose arguments are no JSON object"


def parse_json(text: str) -> object:
    """Parses JSON, in which half a character may stand; NO_JSON for other text."""
    try:
        return from_json(text.encode("utf-8", "replace"), allow_inf_nan=False)
    except (ValueError, RecursionError):
        return NO_JSON


Call = TypeVar("Call", bound="CallPieces")


class CallPieces:
    """A tool call as far as it came. sent_id, number: as a client gets them."""

    def __init__(self) -> None:
        self.id = ""
        self.sent_id = ""
        self.number = 0
        self.name = ""
        self.pieces: list[str] = []  # of its arguments

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def whole(self) -> bool:
        text = self.text
        return text.rstrip().endswith("}") and isinstance(parse_json(text), Mapping)

    @property
    def broken(self) -> bool:
        return bool(self.pieces) and not self.whole

    @property
    def is_empty(self) -> bool:
        """Tells whether an empty object came, in whose place arguments may come."""
        return self.text.strip() == EMPTY

    def takes(self, own_id: object, name: object, arguments: object) -> bool:
        other_id = bool(own_id and self.id and own_id != self.id)
        other_name = bool(name and self.name and name != self.name)
        if not self.pieces:
            return not (other_id and other_name)
        if not (name or other_id) and self.is_empty:
            return True
        return not ((_begins(arguments) or other_id or other_name) and self.whole)

    def add(self, own_id: object, name: object, arguments: object) -> str:
        if isinstance(own_id, str) and not self.id:
            self.id = own_id
        if isinstance(name, str) and name != self.name and not self.pieces:
            self.name += name
        if not isinstance(arguments, str) or not arguments:
            return ""
        if _begins(arguments) and self.is_empty:
            self.pieces.clear()
        self.pieces.append(arguments)
        return arguments


def _begins(arguments: object) -> bool:
    return isinstance(arguments, str) and arguments.lstrip().startswith("{")


def call_of_piece(
    calls: list[Call], make: Callable[[], Call], own_id: object, name: object, arguments: object
) -> Call:
    """Finds the call that a piece goes on with, or begins another with the name before it."""
    if not calls or not calls[-1].takes(own_id, name, arguments):
        call = make()
        call.name = calls[-1].name if calls and not name else ""
        calls.append(call)
    return calls[-1]


class CallCollector:
    __slots__ = ("_by_place",)

    def __init__(self) -> None:
        self._by_place: dict[object, list[CallPieces]] = {}

    def add(self, place: object, own_id: object, name: object, arguments: object) -> CallPieces:
        calls = self._by_place.setdefault(place, [])
        call = call_of_piece(calls, CallPieces, own_id, name, arguments)
        call.add(own_id, name, arguments)
        return call

    @property
    def broken(self) -> bool:
        return any(call.broken for calls in self._by_place.values() for call in calls)
