"""Call pieces join the pieces of streamed tool calls by one rule, for translation, guardrails,
captures and shadows: by their place, whatever their ids and names say.

A piece of a name that repeats the name so far adds nothing; names end where arguments begin.
Some providers stream several calls in one place: whole arguments followed by another object, or
by another name or id, are another call.
"""

from collections.abc import Mapping
from typing import Final

from jiter import from_json

NO_JSON: Final = object()
BROKEN_CALL: Final = "a tool call whose arguments are no JSON object"


def parse_json(text: str) -> object:
    """Parses JSON, in which half a character may stand; NO_JSON for other text."""
    try:
        return from_json(text.encode("utf-8", "replace"), allow_inf_nan=False)
    except (ValueError, RecursionError):
        return NO_JSON


class CallPieces:
    """A tool call as far as it came. id: the provider's, if it gave one."""

    __slots__ = ("id", "name", "pieces")

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.pieces: list[str] = []  # of its arguments

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def whole(self) -> bool:
        """Tells whether the call's arguments are complete. None at all may still come."""
        text = self.text
        return text.rstrip().endswith("}") and isinstance(parse_json(text), Mapping)

    @property
    def broken(self) -> bool:
        """Tells whether arguments came that are no JSON object."""
        return bool(self.pieces) and not self.whole

    def takes(self, own_id: object, name: object, arguments: object) -> bool:
        """Whether a piece goes on with this call; else it begins another."""
        other_id = bool(own_id and self.id and own_id != self.id)
        other_name = bool(name and self.name and name != self.name)
        if not self.pieces:
            return not (other_id and other_name)
        begins = isinstance(arguments, str) and arguments.lstrip().startswith("{")
        return not ((begins or other_id or other_name) and self.whole)

    def follow(self, before: "CallPieces", name: object) -> None:
        """Begins this call in the place of another; without a name, it calls the same."""
        self.name = "" if name else before.name

    def add(self, own_id: object, name: object, arguments: object) -> str:
        """Adds a piece; returns what is new of the arguments."""
        if isinstance(own_id, str) and not self.id:
            self.id = own_id
        if isinstance(name, str) and name != self.name and not self.pieces:
            self.name += name
        if not isinstance(arguments, str) or not arguments:
            return ""
        self.pieces.append(arguments)
        return arguments


class CallCollector:
    """Collects an answer's tool calls by place, and checks them at its end."""

    __slots__ = ("_by_place", "calls")

    def __init__(self) -> None:
        self.calls: list[CallPieces] = []
        self._by_place: dict[object, CallPieces] = {}

    def add(self, place: object, own_id: object, name: object, arguments: object) -> None:
        """Adds a piece of the call at a place, or begins another one there."""
        call = self._by_place.get(place)
        if call is None or not call.takes(own_id, name, arguments):
            before, call = call, CallPieces()
            if before is not None:
                call.follow(before, name)
            self._by_place[place] = call
            self.calls.append(call)
        call.add(own_id, name, arguments)

    @property
    def broken(self) -> bool:
        """Tells whether a call's arguments are no JSON object."""
        return any(call.broken for call in self.calls)
