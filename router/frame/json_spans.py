"""Parses a JSON object, finds its members in its text, and replaces single values there."""

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
# Each costs a step here: without a limit a body of a few MiB would hold up all others.
MAX_MEMBERS: Final = 1000
TOO_DEEP: Final = f"nested deeper than {MAX_DEPTH} levels"


class JsonSpan(NamedTuple):
    """A parsed value and where it stands: text[start:end]."""

    value: object
    start: int
    end: int


class ObjectSpans(NamedTuple):
    values: dict[str, JsonSpan]
    close: int  # the index of its closing brace


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


_STRICT: Final = json.JSONDecoder(parse_constant=_refuse)
_PARSE: Final = _STRICT.raw_decode
# What `_PARSE` calls, without the call in between.
_SCAN: Final = json.scanner.make_scanner(_STRICT)  # type: ignore[arg-type]  # as json does
_SPACE: Final = re.compile(r"[ \t\n\r]*").match
# A name without escapes, which are rare, up to its value; and what follows a value: the end of
# the object, which leaves the group empty, or another such name.
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
            value, _, end = _parse(text, at)  # says what is wrong with it
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
    """A parsed object. found: its members. `values` walks the text when it is first asked."""

    __slots__ = ("_walked", "found", "get", "text")

    def __init__(
        self, text: str, found: Mapping[str, object], walked: ObjectSpans | None = None
    ) -> None:
        self.text = text
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
            span = _string_span(self.text, name)
            if span is not None:
                return JsonSpan(value, *span)
        return self.values.get(name)

    def with_text(self, name: str, new: str) -> bytes | None:
        """Sets a string quickly; None where its place is not plain. name: of ASCII letters.
        new: as JSON.
        """
        value, text = self.get(name), self.text
        if self._walked is not None or not isinstance(value, str):
            return None
        # As nearly all write it, without another call.
        for key in (f'"{name}":', f'"{name}": '):
            before, found, after = text.partition(f'{key}"{value}"')
            if found and before[-1] != "\\" and before.count("{") == 1:
                return f"{before}{key}{new}{after}".encode()
        span = _string_span(text, name)
        return None if span is None else f"{text[: span[0]]}{new}{text[span[1] :]}".encode()

    def renamed(self, old: str, new: str) -> "ParsedObject":
        """Renames a member; every other byte stays. old: of ASCII letters. new: not there."""
        colon = _string_span(self.text, old, _COLON)
        if colon is None:
            # Its name may be full of escapes.
            after = self.text.rindex('"', 0, self.values[old].start) + 1
            start = self.text.rindex('"', 0, after - 1)
        else:
            start, after = colon[0] - len(old) - 2, colon[0]
        text = f'{self.text[:start]}"{new}"{self.text[after:]}'
        found = {new if name == old else name: value for name, value in self.found.items()}
        return ParsedObject(text, found)

    @property
    def values(self) -> dict[str, JsonSpan]:
        if self._walked is None:
            self._walked = walk_whole(self.text)
        return self._walked.values

    @property
    def close(self) -> int:
        return self.text.rindex("}")


class TextEdit(NamedTuple):
    start: int
    end: int
    text: str


def member_edit(members: ParsedObject, name: str, value: str) -> TextEdit:
    place = members.values[name]
    return TextEdit(place.start, place.end, value)


Match = Callable[[str, int], re.Match[str] | None]
_COLON: Final[Match] = re.compile(r"([ \t\n\r]*:)").match
_STRING_VALUE: Final[Match] = re.compile(r'[ \t\n\r]*:[ \t\n\r]*("(?:[^"\\]|\\.)*")').match
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
    return ParsedObject(text, found)


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


def _string_span(text: str, name: str, value: Match = _STRING_VALUE) -> tuple[int, int] | None:
    """Where the value of a member stands; None unless it is plain that the first such name is
    the member's: no object but the whole begins before it, or it stands there but once. It has
    to be somewhere, and only letters written as escapes could hide it.
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
