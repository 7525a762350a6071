"""Parses a JSON object, and replaces single values in its text; every other byte stays."""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from operator import itemgetter
from typing import Final, NamedTuple

from jiter import from_json

from harness.frame.errors import InputError
from router.frame.json_walk import (
    MAX_DEPTH,
    MAX_MEMBERS,
    TOO_DEEP,
    JsonSpan,
    ObjectSpans,
    walk_whole,
)


class ParsedObject:
    """A parsed object. found: its members. `values` walks the text when it is first asked."""

    __slots__ = ("_data", "_walked", "found", "get", "text")

    def __init__(
        self,
        text: str,
        found: Mapping[str, object],
        walked: ObjectSpans | None = None,
        data: bytes = b"",
    ) -> None:
        self.text = text
        self._data = data  # of a text that was parsed
        # A member's value; None when it is null or not there.
        self.get: Callable[[str], object] = found.get
        self.found = found
        self._walked = walked

    def __contains__(self, name: str) -> bool:
        return name in self.found

    def text_place(self, name: str) -> JsonSpan | None:
        """A member with its place, quickly if it is a string. name: of ASCII letters."""
        value = self.found.get(name)
        if self._walked is None and isinstance(value, str):
            span = _only_place(self.text, name)
            if span is not None:
                return JsonSpan(value, *span)
        return self.values.get(name)

    def with_text(self, name: str, new: str) -> bytes | None:
        """Sets a string quickly; None where its place is not. name: ASCII. new: as JSON."""
        value, text = self.get(name), self.text
        if self._walked is not None or not isinstance(value, str):
            return None
        if len(self._data) > _COUNTED_BYTES:
            spliced = _spliced(self._data, name, new)
            if spliced is not None:
                return spliced
        # As nearly all write it: without escapes, and with no object before it but the whole,
        # whose member it then is.
        for key in (f'"{name}":', f'"{name}": '):
            before, found, after = text.partition(f'{key}"{value}"')
            if found and before[-1] != "\\" and before.count("{") == 1:
                return f"{before}{key}{new}{after}".encode()
        span = _only_place(text, name)
        if span is None:
            return None
        return f"{text[: span[0]]}{new}{text[span[1] :]}".encode()

    def renamed(self, old: str, new: str) -> "ParsedObject":
        """Renames a member; every other byte stays. old: of ASCII letters. new: not there."""
        span = _only_name(self.text, old)
        if span is None:
            start = self.values[old].start
            end = self.text.rindex('"', 0, start)  # of its name, which may be full of escapes
            span = self.text.rindex('"', 0, end), end + 1
        text = f'{self.text[: span[0]]}"{new}"{self.text[span[1] :]}'
        found = {new if name == old else name: value for name, value in self.found.items()}
        return ParsedObject(text, found)

    @property
    def values(self) -> dict[str, JsonSpan]:
        return self._places.values

    @property
    def close(self) -> int:
        return self.text.rindex("}")

    @property
    def _places(self) -> ObjectSpans:
        if self._walked is None:
            self._walked = walk_whole(self.text)
        return self._walked


class TextEdit(NamedTuple):
    start: int
    end: int
    text: str


def member_edit(members: ParsedObject, name: str, value: str) -> TextEdit:
    place = members.values[name]
    return TextEdit(place.start, place.end, value)


_WHITE, _COLON, _LETTERS = r"[ \t\n\r]*", r"[ \t\n\r]*:[ \t\n\r]*", r'[^"\\\x00-\x1f]'
_STRING_BYTES: Final = re.compile(rb'[ \t\n\r]*:[ \t\n\r]*("(?:[^"\\]|\\.)*")').match
_BACKSLASH: Final = ord("\\")
_STRING_VALUE: Final = re.compile(r'[ \t\n\r]*:[ \t\n\r]*("(?:[^"\\]|\\.)*")').match
_ESCAPED_LETTER: Final = re.compile(r"\\u00[4-7]").search
_START: Final = itemgetter(0)
_NOT_FINITE: Final = object()
_NOT_STRUCTURE: Final = bytes(b for b in range(256) if b not in b'"[]{}')
_BRACES: Final = bytes.maketrans(b"[]", b"{}")
# Up to here all brackets are counted; of a longer body the first few are found, at fewer bytes.
_COUNTED_BYTES: Final = 4096
_MANY: Final = MAX_DEPTH + 1  # of each bracket: more are not counted
# Of text for each member of an array or object: with fewer, its brackets are the shorter way.
_BYTES_PER_MEMBER: Final = 64


def decode(body: bytes) -> str:
    """Decodes a body. Raises InputError for what is not UTF-8, or nested too deep."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"byte {error.start} is not UTF-8") from None
    if _has_many_brackets(body) and _too_deep(body):
        raise InputError(TOO_DEEP)
    return text


def _has_many_brackets(body: bytes) -> bool:
    if len(body) <= _COUNTED_BYTES:
        # What is shorter without a bracket had as many. CPython 3.11's `bytes.count` looks
        # at each byte, and takes longer than `replace`, which searches.
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
    # For valid JSON this is exact; anything else the parser refuses in any case.
    outside = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    brackets = b"".join(outside.translate(_BRACES, _NOT_STRUCTURE).split(b'"')[::2])
    for _ in range(MAX_DEPTH):
        if not brackets:
            return False
        brackets = brackets.replace(b"{}", b"")
    return bool(brackets)


def _nests_too_deep(found: dict[str, object], body: bytes) -> bool:
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
    """Parses at native speed what nearly all write. Raises InputError, as `walk_text`."""
    try:
        text = data.decode()
        # The texts of one request are seldom those of the next; its names are.
        found = from_json(
            data, allow_inf_nan=False, catch_duplicate_keys=True, cache_mode="keys"
        )
    except ValueError:
        # It is not valid, and shall be told where; or is, with a name twice further in, or with
        # half a surrogate pair.
        return walk_text(decode(data))
    if not isinstance(found, dict) or len(found) > MAX_MEMBERS:
        return walk_text(decode(data))
    length = len(data)
    if length <= _COUNTED_BYTES:
        # As in `_has_many_brackets`, without its call.
        without = len(data.replace(b"{", b"", _MANY)) + len(data.replace(b"[", b"", _MANY))
        many_brackets = 2 * length - without > MAX_DEPTH
    else:
        many_brackets = _has_many_brackets(data)
    if many_brackets and _nests_too_deep(found, data):
        raise InputError(TOO_DEEP)
    return ParsedObject(text, found, None, data)


def parse_finite_object(data: bytes) -> ParsedObject:
    """Leaves NaN and infinities out of objects; in arrays null. Raises InputError."""
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
    """Reads the whole text. Raises InputError, with the place; also for a name twice."""
    walked = walk_whole(text)
    return ParsedObject(
        text, {name: value.value for name, value in walked.values.items()}, walked
    )


def _spliced(data: bytes, name: str, new: str) -> bytes | None:
    """A large object with another value for a member that is a string, in one copy; None unless
    it is plain that the first such name is the member's: no object but the whole begins before
    it, or it stands there but once, as `_only_name` has it.
    """
    quoted = f'"{name}"'.encode()
    at = data.find(quoted)
    after = at + len(quoted)
    if at < 1 or data[at - 1] == _BACKSLASH:
        return None
    if data.count(b"{", 0, at) != 1 and (data.find(quoted, after) >= 0 or b"\\u00" in data):
        return None
    value = _STRING_BYTES(data, after)
    if value is None:
        return None
    view = memoryview(data)
    return b"".join((view[: value.start(1)], new.encode(), view[value.end(1) :]))


def _only_place(text: str, name: str) -> tuple[int, int] | None:
    early = _early_member(name)(text)
    if early is not None:
        return early.span(1)
    place = _only_name(text, name)
    found = _STRING_VALUE(text, place[1]) if place else None
    return found.span(1) if found else None


@lru_cache(maxsize=16)
def _early_member(name: str) -> Callable[[str], re.Match[str] | None]:
    member = rf'"{_LETTERS}*"{_COLON}(?:"{_LETTERS}{{0,200}}"|[-+.\w]+){_WHITE},{_WHITE}'
    wanted = rf'"{name}"{_COLON}("(?:[^"\\]|\\.)*")'
    return re.compile(rf"{_WHITE}\{{{_WHITE}(?:{member})*{wanted}").match


def _only_name(text: str, name: str) -> tuple[int, int] | None:
    """The span of a member's name in quotes, if it stands in the text but once.

    That one place is then the member's: it has to be somewhere, and only letters written as
    escapes could hide it.
    """
    quoted = f'"{name}"'
    at = text.find(quoted)
    after = at + len(quoted)
    if at < 0 or text.find(quoted, after) >= 0 or ("\\u" in text and _ESCAPED_LETTER(text)):
        return None
    return at, after


def apply_edits(text: str, edits: Iterable[TextEdit]) -> bytes:
    """Replaces each span, and keeps all else byte for byte. Spans must not overlap."""
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
