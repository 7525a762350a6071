"""A script is what a simulated model says at certain points of a conversation: each line has
patterns that must be found, and the text or the tool call that follows. Named groups of the
patterns fill `$name` in the answer.
"""

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import field, replace
from string import Template
from typing import Any

from pydantic.dataclasses import dataclass

from evals.sim.parsing import STRICT_FIELDS


@dataclass(frozen=True, slots=True, config=STRICT_FIELDS)
class ScriptLine:
    """One line; the model says the first that fits."""

    # Patterns for the newest message, and for the ones before it; empty for any.
    newest: str = ""
    earlier: str = ""
    text: str = ""
    tool: str = ""  # called instead of saying the text, where the request offers it
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            re.compile(self.newest), re.compile(self.earlier)
        except re.error as error:
            raise ValueError(str(error)) from None
        if bool(self.text) == bool(self.tool):
            raise ValueError("needs either `text` or `tool`")


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
