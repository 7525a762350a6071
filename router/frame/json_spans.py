"""Parses a JSON object, finds its members in the text, and replaces single values there.

`parse_object` alone reads values. The functions `member_spans` and `element_spans` find the
places of values that it has read, so they meet only valid JSON. A body nested deeper than
MAX_DEPTH, or an object with more than MAX_MEMBERS names, is refused. This module
knows no protocol: `body` does.
"""

import json
import json.scanner
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Final, NamedTuple, NoReturn

from jiter import from_json

from harness.frame.errors import InputError

MAX_DEPTH: Final = 64
# Each member costs time: without a limit, a body of a few MiB would delay all other requests.
MAX_MEMBERS: Final = 1000
TOO_DEEP: Final = f"nested deeper than {MAX_DEPTH} levels"
_TOO_MANY: Final = f"an object has more than {MAX_MEMBERS} names"


class JsonSpan(NamedTuple):
    """A parsed value and its place: text[start:end]."""

    value: object
    start: int
    end: int


class ObjectSpans(NamedTuple):
    """The members of an object by name, with their places."""

    values: dict[str, JsonSpan]
    close: int  # the index of the closing brace


# Returns the end of a value, in C. `str` leaves numbers as they are.
_SCAN: Final = json.scanner.make_scanner(
    json.JSONDecoder(parse_int=str, parse_float=str)  # type: ignore[arg-type]  # as json does
)
_SPACE: Final = re.compile(r"[ \t\n\r]*").match
# Matches a name without escapes, up to its value. _AFTER_VALUE matches the text after a
# value: the next name, or the object's end with an empty group.
_PLAIN: Final = r'"([^"\\\x00-\x1f]*)"[ \t\n\r]*:[ \t\n\r]*'
_PLAIN_NAME: Final = re.compile(_PLAIN).match
_AFTER_VALUE: Final = re.compile(rf"[ \t\n\r]*(?:}}|,[ \t\n\r]*{_PLAIN})").match


def member_spans(
    text: str,
    start: int,
    values: Mapping[str, object],
) -> ObjectSpans:
    """Finds the members of the parsed object that opens at text[start]. Raises InputError for
    a name that occurs twice, or too many names.
    """
    if len(values) > MAX_MEMBERS:
        raise InputError(_TOO_MANY)
    spans: dict[str, JsonSpan] = {}
    index = _skip_space(text, start + 1)
    if text[index] == "}":
        return ObjectSpans(spans, index)
    name, index = _read_name(text, index)
    while True:
        if name in spans:
            raise InputError(f"the name {name!r} occurs twice, again at character {index}")
        _, end = _SCAN(text, index)
        spans[name] = JsonSpan(values[name], index, end)
        after = _AFTER_VALUE(text, end)
        if after is None:
            name, index = _read_name(text, _skip_space(text, _skip_space(text, end) + 1))
            continue
        name = after[1]
        index = after.end()
        if name is None:
            return ObjectSpans(spans, index - 1)


def element_spans(
    text: str,
    start: int,
    values: Sequence[object],
) -> list[JsonSpan]:
    """Finds the elements of the parsed array that opens at text[start]."""
    spans: list[JsonSpan] = []
    end = start
    for value in values:
        index = _skip_space(text, _skip_space(text, end) + 1)
        _, end = _SCAN(text, index)
        spans.append(JsonSpan(value, index, end))
    return spans


def _read_name(text: str, index: int) -> tuple[str, int]:
    """Returns the name at text[index] and the index of its value."""
    plain = _PLAIN_NAME(text, index)
    if plain:
        return plain[1], plain.end()
    name, end = _SCAN(text, index)
    return name, _skip_space(text, _skip_space(text, end) + 1)


def _skip_space(text: str, index: int) -> int:
    match = _SPACE(text, index)
    return match.end() if match else index


class ParsedObject:
    """A parsed object. found: its members. `values` finds their places on its first use.

    Use `get` for a value, and `values` only for its place: most requests need no place.
    """

    __slots__ = ("_spans", "found", "get", "text")

    def __init__(self, text: str, found: Mapping[str, object]) -> None:
        self.text = text
        # Returns a member's value; None if it is null or absent.
        self.get: Callable[[str], object] = found.get
        self.found = found
        self._spans: dict[str, JsonSpan] | None = None

    def __contains__(self, name: str) -> bool:
        return name in self.found

    def text_place(self, name: str) -> JsonSpan | None:
        """Returns a member with its place, quickly if it is a string.

        Args:
            name: ASCII letters.
        """
        value = self.found.get(name)
        if self._spans is None and isinstance(value, str):
            span = _find_string_span(self.text, name)
            if span is not None:
                return JsonSpan(value, *span)
        return self.values.get(name)

    def with_text(self, name: str, new: str) -> bytes | None:
        """Replaces a string quickly. Returns None if its place is not obvious.

        Args:
            name: ASCII letters.
            new: as JSON.
        """
        text = self.text
        if self._spans is not None or not isinstance(self.found.get(name), str):
            return None
        span = _find_string_span(text, name)
        return None if span is None else f"{text[: span[0]]}{new}{text[span[1] :]}".encode()

    def renamed(self, old: str, new: str) -> "ParsedObject":
        """Renames a member; every other byte stays.

        Args:
            old: ASCII letters.
            new: absent so far.
        """
        colon = _find_string_span(self.text, old, _COLON)
        if colon is None:
            # The name may contain escapes.
            after = self.text.rindex('"', 0, self.values[old].start) + 1
            start = self.text.rindex('"', 0, after - 1)
        else:
            start = colon[0] - len(old) - 2
            after = colon[0]
        text = f'{self.text[:start]}"{new}"{self.text[after:]}'
        members = {new if name == old else name: value for name, value in self.found.items()}
        return ParsedObject(text, members)

    @property
    def values(self) -> dict[str, JsonSpan]:
        """The members with their places. Finding them takes as long as parsing the text."""
        if self._spans is None:
            self._spans = member_spans(self.text, self.text.index("{"), self.found).values
        return self._spans

    @property
    def close(self) -> int:
        """The index of the object's closing brace in the text."""
        return self.text.rindex("}")


class TextEdit(NamedTuple):
    """A replacement of text[start:end]; an insertion if both are equal."""

    start: int
    end: int
    text: str


def member_edit(
    members: ParsedObject,
    name: str,
    value: str,
) -> TextEdit:
    """Returns the edit that replaces a member's value.

    Args:
        value: as JSON.

    The member must exist.
    """
    place = members.values[name]
    return TextEdit(place.start, place.end, value)


Match = Callable[[str, int], re.Match[str] | None]
_COLON: Final[Match] = re.compile(r"([ \t\n\r]*:)").match
_STRING_VALUE: Final[Match] = re.compile(r'[ \t\n\r]*:[ \t\n\r]*("(?:[^"\\]|\\.)*")').match
_START: Final = itemgetter(0)
_NOT_STRUCTURE: Final = bytes(b for b in range(256) if b not in b'"[]{}')
_BRACES: Final = bytes.maketrans(b"[]", b"{}")
# The check counts all brackets of a body up to this length. In a longer body it searches for
# the first brackets, which reads fewer bytes.
_COUNTED_BYTES: Final = 4096
_MOST_BRACKETS: Final = MAX_DEPTH + 1  # the most brackets of a kind that the check counts
# With fewer bytes of text per member, it is faster to check the brackets.
_BYTES_PER_MEMBER: Final = 64


def _has_many_brackets(body: bytes) -> bool:
    """Returns whether a body may be nested too deep, by its number of opening brackets."""
    if len(body) <= _COUNTED_BYTES:
        # Each removed bracket shortens the text by one byte. CPython 3.11's `bytes.count` looks
        # at each byte, so it is slower than `replace`, which searches.
        length_without = len(body.replace(b"{", b"", _MOST_BRACKETS)) + len(
            body.replace(b"[", b"", _MOST_BRACKETS)
        )
        return 2 * len(body) - length_without > MAX_DEPTH
    brackets_left = MAX_DEPTH
    for bracket in (b"{", b"["):
        index = body.find(bracket)
        while index >= 0:
            if not brackets_left:
                return True
            brackets_left -= 1
            index = body.find(bracket, index + 1)
    return False


def _are_brackets_too_deep(body: bytes) -> bool:
    """Returns whether the brackets outside strings are nested deeper than MAX_DEPTH."""
    # This is exact for valid JSON; the parser refuses other text anyway.
    outside = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    brackets = b"".join(outside.translate(_BRACES, _NOT_STRUCTURE).split(b'"')[::2])
    for _ in range(MAX_DEPTH):
        if not brackets:
            return False
        brackets = brackets.replace(b"{}", b"")
    return bool(brackets)


def _are_values_too_deep(root: dict[str, object], body: bytes) -> bool:
    """Returns whether parsed values are nested too deep, level by level.

    If the values have many members, it checks the brackets of the body instead, which is
    faster.
    """
    level: list[dict[str, object] | list[object]] = [root]
    members_left = len(body) // _BYTES_PER_MEMBER
    for _ in range(MAX_DEPTH):
        members: list[object] = []
        for holder in level:
            members += holder.values() if isinstance(holder, dict) else holder
        members_left -= len(members)
        if members_left < 0:
            return _are_brackets_too_deep(body)
        level = [member for member in members if isinstance(member, dict | list)]
        if not level:
            return False
    return True


def parse_object(data: bytes) -> ParsedObject:
    """Parses the object that is the whole text. Raises InputError, also for a duplicate name
    among its members.
    """
    try:
        text = data.decode()
        # The next request seldom has the same texts, but often the same names.
        value = from_json(
            data,
            allow_inf_nan=False,
            catch_duplicate_keys=True,
            cache_mode="keys",
        )
    except ValueError:
        return _parse_strictly(data)
    if not isinstance(value, dict):
        raise InputError(_NOT_AN_OBJECT)
    if len(value) > MAX_MEMBERS:
        raise InputError(_TOO_MANY)
    length = len(data)
    if length <= _COUNTED_BYTES:
        # `_has_many_brackets`, inlined.
        length_without = len(data.replace(b"{", b"", _MOST_BRACKETS)) + len(
            data.replace(b"[", b"", _MOST_BRACKETS)
        )
        many_brackets = 2 * length - length_without > MAX_DEPTH
    else:
        many_brackets = _has_many_brackets(data)
    if many_brackets and _are_values_too_deep(value, data):
        raise InputError(TOO_DEEP)
    return ParsedObject(text, value)


_NOT_AN_OBJECT: Final = "expected an object at character 0"


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


_STRICT: Final = json.JSONDecoder(parse_constant=_refuse_constant)


def _parse_strictly(data: bytes) -> ParsedObject:
    """Reads a text that the native parser refuses, by the standard library.

    Either the text is invalid, and the error names the place. Or it is valid, but an inner
    object has a duplicate name, or a text has a lone surrogate.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"byte {error.start} is not UTF-8") from None
    if _has_many_brackets(data) and _are_brackets_too_deep(data):
        raise InputError(TOO_DEEP)
    try:
        value = _STRICT.decode(text)
    except RecursionError:
        raise InputError(TOO_DEEP) from None
    except ValueError as error:
        raise InputError(f"not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise InputError(_NOT_AN_OBJECT)
    parsed = ParsedObject(text, value)
    _ = parsed.values  # raises for a duplicate name
    return parsed


def parse_finite_object(data: bytes) -> ParsedObject:
    """Removes NaN and infinities from objects; in arrays makes them null. Raises InputError."""
    try:
        value = from_json(data, allow_inf_nan=True, catch_duplicate_keys=True)
    except ValueError as error:
        raise InputError(f"not valid JSON: {error}") from None
    return parse_object(json.dumps(_drop_non_finite(value), separators=(",", ":")).encode())


def _drop_non_finite(value: object) -> object:
    if isinstance(value, dict):
        kept = {name: item for name, item in value.items() if not _is_non_finite(item)}
        return {name: _drop_non_finite(item) for name, item in kept.items()}
    if isinstance(value, list):
        return [_drop_non_finite(item) for item in value]
    return None if _is_non_finite(value) else value


def _is_non_finite(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _find_string_span(
    text: str,
    name: str,
    match_value: Match = _STRING_VALUE,
) -> tuple[int, int] | None:
    """Returns the place of a member's value, or None if that is not obvious.

    It is obvious if no inner object begins before the first such name, or if the name occurs
    only once. The member must exist. The search does not find a name with escapes.
    """
    quoted = f'"{name}"'
    index = text.find(quoted)
    after = index + len(quoted)
    if index < 1 or text[index - 1] == "\\":
        return None
    if text.count("{", 0, index) != 1 and (text.find(quoted, after) >= 0 or "\\u00" in text):
        return None
    match = match_value(text, after)
    return match.span(1) if match else None


def apply_edits(text: str, edits: Iterable[TextEdit]) -> bytes:
    """Replaces the spans, which must not overlap. All other text stays unchanged."""
    edits = list(edits)
    if len(edits) == 1:
        start, end, new = edits[0]
        return f"{text[:start]}{new}{text[end:]}".encode()
    parts: list[str] = []
    copied_to = 0
    for start, end, new in sorted(edits, key=_START):
        parts += (text[copied_to:start], new)
        copied_to = end
    parts.append(text[copied_to:])
    return "".join(parts).encode()
