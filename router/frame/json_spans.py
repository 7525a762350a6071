"""Parses a JSON object, finds its members in the text, and replaces single values there.

Three readers share this module. A native parser reads most bodies (`parse_object`), and a
walk over the text finds the places of members. A tolerant parser reads answers with NaN
(`parse_finite_object`). A body nested deeper than MAX_DEPTH, or with more than MAX_MEMBERS
names at the top, is refused. Nothing here knows a protocol: `body` does.
"""

import json
import json.scanner
import math
import re
from collections.abc import Callable, Iterable, Mapping
from operator import itemgetter
from typing import Final, NamedTuple, NoReturn

from jiter import from_json

from harness.frame.errors import InputError

MAX_DEPTH: Final = 64
# Each member costs time: without a limit, a body of a few MiB would delay all other requests.
MAX_MEMBERS: Final = 1000
TOO_DEEP: Final = f"nested deeper than {MAX_DEPTH} levels"


class JsonSpan(NamedTuple):
    """A parsed value and its place: text[start:end]."""

    value: object
    start: int
    end: int


class ObjectSpans(NamedTuple):
    """The members of an object by name, with their places."""

    values: dict[str, JsonSpan]
    close: int  # the index of the closing brace


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


_STRICT: Final = json.JSONDecoder(parse_constant=_refuse)
_PARSE: Final = _STRICT.raw_decode
# `_PARSE` only calls this scanner, so calling it directly is faster.
_SCAN: Final = json.scanner.make_scanner(_STRICT)  # type: ignore[arg-type]  # as json does
_SPACE: Final = re.compile(r"[ \t\n\r]*").match
# Matches a name without escapes, up to its value. _AFTER_VALUE matches what follows a value:
# the next name, or the object's end with an empty group.
_PLAIN: Final = r'"([^"\\\x00-\x1f]*)"[ \t\n\r]*:[ \t\n\r]*'
_PLAIN_NAME: Final = re.compile(_PLAIN).match
_AFTER_VALUE: Final = re.compile(rf"[ \t\n\r]*(?:}}|,[ \t\n\r]*{_PLAIN})").match


def walk_whole(text: str) -> ObjectSpans:
    """Returns the members of the object that is the whole text. Raises InputError."""
    walked = walk_object(text, _skip(text, 0))
    end = _skip(text, walked.close + 1)
    if end != len(text):
        raise InputError(f"something follows the object at character {end}")
    return walked


def walk_array(text: str, start: int) -> list[JsonSpan]:
    """Returns the elements of the array that opens at text[start]. Raises InputError."""
    if text[start : start + 1] != "[":
        raise InputError(f"expected an array at character {start}")
    spans: list[JsonSpan] = []
    at = _skip(text, start + 1)
    if text[at : at + 1] == "]":
        return spans
    while True:
        spans.append(_parse(text, at))
        at = _skip(text, spans[-1].end)
        if text[at : at + 1] == "]":
            return spans
        at = _skip(text, _expect(text, at, ","))


def walk_object(text: str, start: int) -> ObjectSpans:
    """Returns the members of the object that opens at text[start]. Raises InputError."""
    if text[start : start + 1] != "{":
        raise InputError(f"expected an object at character {start}")
    values: dict[str, JsonSpan] = {}
    at = _skip(text, start + 1)
    if text[at : at + 1] == "}":
        return ObjectSpans(values, at)
    name, at = _name(text, at)
    while True:
        if name in values:
            raise InputError(f"the name {name!r} occurs twice, again at character {at}")
        try:
            value, end = _SCAN(text, at)
        except (StopIteration, RecursionError, ValueError):
            value, _, end = _parse(text, at)  # raises with the reason
        values[name] = JsonSpan(value, at, end)
        if len(values) > MAX_MEMBERS:
            raise InputError(f"an object has more than {MAX_MEMBERS} names")
        after = _AFTER_VALUE(text, end)
        if after is None:
            name, at = _name(text, _skip(text, _expect(text, _skip(text, end), ",")))
            continue
        name, at = after[1], after.end()
        if name is None:
            return ObjectSpans(values, at - 1)


def _name(text: str, at: int) -> tuple[str, int]:
    plain = _PLAIN_NAME(text, at)
    if plain:
        return plain[1], plain.end()
    if text[at : at + 1] != '"':
        raise InputError(f"expected a name in double quotes at character {at}")
    name, _, end = _parse(text, at)
    return str(name), _skip(text, _expect(text, _skip(text, end), ":"))


def _parse(text: str, at: int) -> JsonSpan:
    try:
        value, end = _PARSE(text, at)
    except RecursionError:
        raise InputError(TOO_DEEP) from None
    except ValueError as error:
        raise InputError(f"not valid JSON: {error}") from None
    return JsonSpan(value, at, end)


def _skip(text: str, at: int) -> int:
    found = _SPACE(text, at)
    return found.end() if found else at


def _expect(text: str, at: int, mark: str) -> int:
    if text[at : at + 1] != mark:
        raise InputError(f"expected {mark!r} at character {at}")
    return at + 1


class ParsedObject:
    """A parsed object. found: its members. `values` walks the text on its first use.

    Use `get` for a value, and `values` only for its place: most requests need no walk.
    """

    __slots__ = ("_walked", "found", "get", "text")

    def __init__(
        self, text: str, found: Mapping[str, object], walked: ObjectSpans | None = None
    ) -> None:
        self.text = text
        # Returns a member's value; None if it is null or absent.
        self.get: Callable[[str], object] = found.get
        self.found = found
        self._walked = walked

    def __contains__(self, name: str) -> bool:
        return name in self.found

    def text_place(self, name: str) -> JsonSpan | None:
        """Returns a member with its place, quickly if it is a string. name: ASCII letters."""
        value = self.found.get(name)
        if self._walked is None and isinstance(value, str):
            span = _string_span(self.text, name)
            if span is not None:
                return JsonSpan(value, *span)
        return self.values.get(name)

    def with_text(self, name: str, new: str) -> bytes | None:
        """Replaces a string quickly. Returns None if its place is not obvious.

        name: ASCII letters. new: as JSON.
        """
        value, text = self.get(name), self.text
        if self._walked is not None or not isinstance(value, str):
            return None
        # The usual spellings need no search by pattern.
        for key in (f'"{name}":', f'"{name}": '):
            before, found, after = text.partition(f'{key}"{value}"')
            if found and before[-1] != "\\" and before.count("{") == 1:
                return f"{before}{key}{new}{after}".encode()
        span = _string_span(text, name)
        return None if span is None else f"{text[: span[0]]}{new}{text[span[1] :]}".encode()

    def renamed(self, old: str, new: str) -> "ParsedObject":
        """Renames a member; every other byte stays. old: ASCII letters. new: absent so far."""
        colon = _string_span(self.text, old, _COLON)
        if colon is None:
            # The name may contain escapes.
            after = self.text.rindex('"', 0, self.values[old].start) + 1
            start = self.text.rindex('"', 0, after - 1)
        else:
            start, after = colon[0] - len(old) - 2, colon[0]
        text = f'{self.text[:start]}"{new}"{self.text[after:]}'
        found = {new if name == old else name: value for name, value in self.found.items()}
        return ParsedObject(text, found)

    @property
    def values(self) -> dict[str, JsonSpan]:
        """The members with their places. The walk takes as long as parsing the text again."""
        if self._walked is None:
            self._walked = walk_whole(self.text)
        return self._walked.values

    @property
    def close(self) -> int:
        """The index of the object's closing brace in the text."""
        return self.text.rindex("}")


class TextEdit(NamedTuple):
    """A replacement of text[start:end]; an insertion if both are equal."""

    start: int
    end: int
    text: str


def member_edit(members: ParsedObject, name: str, value: str) -> TextEdit:
    """Returns the edit that replaces a member's value. value: as JSON. The member must
    exist.
    """
    place = members.values[name]
    return TextEdit(place.start, place.end, value)


Match = Callable[[str, int], re.Match[str] | None]
_COLON: Final[Match] = re.compile(r"([ \t\n\r]*:)").match
_STRING_VALUE: Final[Match] = re.compile(r'[ \t\n\r]*:[ \t\n\r]*("(?:[^"\\]|\\.)*")').match
_START: Final = itemgetter(0)
_NOT_FINITE: Final = object()
_NOT_STRUCTURE: Final = bytes(b for b in range(256) if b not in b'"[]{}')
_BRACES: Final = bytes.maketrans(b"[]", b"{}")
# The check counts all brackets of a body up to this length. In a longer body it searches for
# the first brackets, which reads fewer bytes.
_COUNTED_BYTES: Final = 4096
_MANY: Final = MAX_DEPTH + 1  # the most brackets of a kind that the check counts
# With fewer bytes of text per member, it is faster to check the brackets.
_BYTES_PER_MEMBER: Final = 64


def decode(body: bytes) -> str:
    """Decodes a body. Raises InputError if it is not UTF-8, or nested too deep."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"byte {error.start} is not UTF-8") from None
    if _has_many_brackets(body) and _too_deep(body):
        raise InputError(TOO_DEEP)
    return text


def _has_many_brackets(body: bytes) -> bool:
    """Returns whether a body may be nested too deep, by its number of opening brackets."""
    if len(body) <= _COUNTED_BYTES:
        # Each removed bracket shortens the text by one byte. CPython 3.11's `bytes.count` looks
        # at each byte, so it is slower than `replace`, which searches.
        without = len(body.replace(b"{", b"", _MANY)) + len(body.replace(b"[", b"", _MANY))
        return 2 * len(body) - without > MAX_DEPTH
    left = MAX_DEPTH
    for bracket in (b"{", b"["):
        at = body.find(bracket)
        while at >= 0:
            if not left:
                return True
            left -= 1
            at = body.find(bracket, at + 1)
    return False


def _too_deep(body: bytes) -> bool:
    """Returns whether the brackets outside of strings are nested deeper than MAX_DEPTH."""
    # This is exact for valid JSON; the parser refuses other text anyway.
    outside = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    brackets = b"".join(outside.translate(_BRACES, _NOT_STRUCTURE).split(b'"')[::2])
    for _ in range(MAX_DEPTH):
        if not brackets:
            return False
        brackets = brackets.replace(b"{}", b"")
    return bool(brackets)


def _nests_too_deep(found: dict[str, object], body: bytes) -> bool:
    """Returns whether parsed values are nested too deep, level by level.

    If the values have many members, the brackets of the body are checked instead, which is
    faster.
    """
    level: list[dict[str, object] | list[object]] = [found]
    left = len(body) // _BYTES_PER_MEMBER
    for _ in range(MAX_DEPTH):
        members: list[object] = []
        for holder in level:
            members += holder.values() if isinstance(holder, dict) else holder
        left -= len(members)
        if left < 0:
            return _too_deep(body)
        level = [member for member in members if isinstance(member, dict | list)]
        if not level:
            return False
    return True


def parse_object(data: bytes) -> ParsedObject:
    """Parses usual objects at native speed. Raises InputError, as `walk_text`."""
    try:
        text = data.decode()
        # The next request seldom has the same texts, but often the same names.
        found = from_json(
            data, allow_inf_nan=False, catch_duplicate_keys=True, cache_mode="keys"
        )
    except ValueError:
        # Either the text is invalid, and `walk_text` reports the place. Or it is valid, but an
        # inner object has a duplicate name, or a text has a lone surrogate.
        return walk_text(decode(data))
    if not isinstance(found, dict) or len(found) > MAX_MEMBERS:
        return walk_text(decode(data))
    length = len(data)
    if length <= _COUNTED_BYTES:
        # `_has_many_brackets`, inlined.
        without = len(data.replace(b"{", b"", _MANY)) + len(data.replace(b"[", b"", _MANY))
        many_brackets = 2 * length - without > MAX_DEPTH
    else:
        many_brackets = _has_many_brackets(data)
    if many_brackets and _nests_too_deep(found, data):
        raise InputError(TOO_DEEP)
    return ParsedObject(text, found)


def parse_finite_object(data: bytes) -> ParsedObject:
    """Removes NaN and infinities from objects; in arrays makes them null. Raises InputError."""
    try:
        found = json.loads(
            decode(data),
            parse_constant=lambda _: _NOT_FINITE,
            parse_float=_number,
            object_pairs_hook=_members,
        )
    except (ValueError, RecursionError) as error:
        raise InputError(f"not valid JSON: {error}") from None
    return parse_object(json.dumps(_finite(found), separators=(",", ":")).encode())


def _number(text: str) -> object:
    value = float(text)
    return value if math.isfinite(value) else _NOT_FINITE


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = {name: _finite(value) for name, value in pairs if value is not _NOT_FINITE}
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _finite(value: object) -> object:
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if value is _NOT_FINITE else value


def walk_text(text: str) -> ParsedObject:
    """Reads the whole text. Raises InputError with the place, also for a duplicate name."""
    walked = walk_whole(text)
    return ParsedObject(
        text, {name: value.value for name, value in walked.values.items()}, walked
    )


def _string_span(text: str, name: str, value: Match = _STRING_VALUE) -> tuple[int, int] | None:
    """Returns the place of a member's value, or None if that is not obvious.

    It is obvious if no inner object begins before the first such name, or if the name occurs
    only once. The member must exist. The search does not find a name with escapes.
    """
    quoted = f'"{name}"'
    at = text.find(quoted)
    after = at + len(quoted)
    if at < 1 or text[at - 1] == "\\":
        return None
    if text.count("{", 0, at) != 1 and (text.find(quoted, after) >= 0 or "\\u00" in text):
        return None
    found = value(text, after)
    return found.span(1) if found else None


def apply_edits(text: str, edits: Iterable[TextEdit]) -> bytes:
    """Replaces the spans, which must not overlap. All other text stays unchanged."""
    edits = list(edits)
    if len(edits) == 1:
        start, end, new = edits[0]
        return f"{text[:start]}{new}{text[end:]}".encode()
    parts: list[str] = []
    at = 0
    for start, end, new in sorted(edits, key=_START):
        parts += (text[at:start], new)
        at = end
    parts.append(text[at:])
    return "".join(parts).encode()
