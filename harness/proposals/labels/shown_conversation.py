"""Writes a conversation and an answer as texts that a labeller reads. Pure."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from harness.frame.formatting import format_quantity
from harness.frame.plain_data import canonical_json
from harness.routing.capture import message_text

# A person reads about this much before a choice that should take 20 s.
MOST_CHARACTERS: Final = 6_000
_LAST_FIRST: Final = "(the last message comes first)"
_ANSWER_FIELDS: Final = frozenset({"content", "tool_calls"})


def write_conversation(messages: Sequence[Mapping[str, Any]]) -> str:
    """Writes a request's messages, each below its role, the last message first: both answers
    are answers to it, and a page or a terminal shows the top of a long text.

    A line counts the earlier messages that find no place in MOST_CHARACTERS. The last message
    is always shown, but at most its last MOST_CHARACTERS. A single message has no role.
    """
    if len(messages) == 1:
        return _cut_start(_write_message(messages[0]))
    shown = [_LAST_FIRST]
    left = MOST_CHARACTERS
    for message in reversed(messages):
        text = f"{str(message.get('role')).upper()}\n{_write_message(message)}"
        if len(shown) > 1 and len(text) > left:
            break
        left -= len(text)
        shown.append(_cut_start(text))
    if left_out := len(messages) - len(shown) + 1:
        shown.append(f"({format_quantity(left_out, 'earlier message')} left out)")
    return "\n\n".join(shown)


def _cut_start(text: str) -> str:
    """Cuts the start of a text that is longer than MOST_CHARACTERS, and says so."""
    if len(text) <= MOST_CHARACTERS:
        return text
    left_out = format_quantity(len(text) - MOST_CHARACTERS, "character")
    return f"({left_out} of this message left out)\n{text[-MOST_CHARACTERS:]}"


def _write_message(message: Mapping[str, Any]) -> str:
    calls = message.get("tool_calls")
    return _write_parts(message_text(message.get("content")), calls)


def _write_parts(text: str, calls: object) -> str:
    """Writes a text, and each call of a function as `calls NAME(ARGUMENTS)`."""
    lines = [text] if text.strip() else []
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function", call) if isinstance(call, Mapping) else {}
        arguments = function.get("arguments")
        written = arguments if isinstance(arguments, str) else canonical_json(arguments or {})
        lines.append(f"calls {function.get('name')}({written})")
    return "\n".join(lines)


def write_answer(answer: str) -> str:
    """Writes an answer with calls of functions as people read it; other answers as they are."""
    if not answer.startswith("{"):
        return answer
    try:
        value = json.loads(answer)
    except ValueError:
        return answer
    if value.keys() != _ANSWER_FIELDS or not value["tool_calls"]:
        return answer
    return _write_parts(str(value["content"] or ""), value["tool_calls"])
