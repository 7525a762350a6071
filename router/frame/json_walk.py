"""Walks JSON text and finds where each member or element stands."""

import json
import json.scanner
import re
from typing import Final, NamedTuple, NoReturn

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
