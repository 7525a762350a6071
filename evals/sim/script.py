"""A script is what a simulated model says at certain points of a conversation, such as a
demo's: each line says what has to stand in it, and the text or the tool call that follows.

What the answer takes from the conversation it takes by named groups of the patterns: a model
that was not shown the message says nothing of it.
"""

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from string import Template
from typing import Any

from harness.domain.errors import InputError


@dataclass(frozen=True, slots=True)
class ScriptLine:
    """One line; the first that fits is said."""

    # Patterns that must be found in the newest message, and in the ones before it; empty for
    # any. Named groups fill `$name` in the answer.
    newest: str = ""
    earlier: str = ""
    text: str = ""
    tool: str = ""  # called instead of saying the text, where the request offers it
    arguments: Mapping[str, Any] = field(default_factory=dict)


def find_line(
    script: Sequence[ScriptLine], texts: Sequence[str], tools: Container[str]
) -> ScriptLine | None:
    """The line for this point of a conversation, with its `$name`s filled, or None.

    texts: of all messages. tools: names of those that the request offers.
    """
    *before, last = texts
    history = "\n".join(before)
    for line in script:
        newest, earlier = re.search(line.newest, last), re.search(line.earlier, history)
        if newest and earlier and (not line.tool or line.tool in tools):
            values = {**earlier.groupdict(), **newest.groupdict()}
            text, arguments = _filled(line.text, values), _filled(line.arguments, values)
            return replace(line, text=text, arguments=arguments)
    return None


def _filled(value: Any, values: Mapping[str, str | None]) -> Any:
    """The value with `$name` replaced in its texts."""
    if isinstance(value, str):
        return Template(value).safe_substitute(values)
    if isinstance(value, Mapping):
        return {key: _filled(inner, values) for key, inner in value.items()}
    if isinstance(value, Sequence):
        return [_filled(inner, values) for inner in value]
    return value


def parse_script(value: object, place: str) -> tuple[ScriptLine, ...]:
    """Parses the lines of a script. Raises InputError with the place."""
    if not isinstance(value, list):
        raise InputError(f"{place}: must be a list of lines")
    return tuple(_parse_line(line, f"{place}.{number}") for number, line in enumerate(value))


def _parse_line(value: object, place: str) -> ScriptLine:
    if not isinstance(value, dict):
        raise InputError(f"{place}: must be an object")
    try:
        line = ScriptLine(**value)
        for pattern in (line.newest, line.earlier):
            re.compile(pattern)
    except (TypeError, re.error) as error:
        raise InputError(f"{place}: {error}") from None
    if bool(line.text) == bool(line.tool):
        raise InputError(f"{place}: needs either `text` or `tool`")
    return line
