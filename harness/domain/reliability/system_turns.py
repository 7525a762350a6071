"""System turns of a conversation as a target takes them: first and in one, or as the user's. A
refusal says which (`refused_system_turns`). Pure.
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

# Of Anthropic's older models, its followers, and templates: Claude Code instructs later, too.
_LATER: Final = re.compile(
    r"role\W+system\W+(is not supported|the messages api)|system messages? must be (at the "
    r"beginning|first)|(expected|should be) [`']user[`'] or [`']assistant[`']",
    re.IGNORECASE,
)
# Of Gemma's template, on any server, and of Bedrock's older models: nobody instructs.
_NONE: Final = re.compile(
    r"system role not supported|support system (messages|prompts|instructions)|"
    r"developer instruction is not enabled",
    re.IGNORECASE,
)


class SystemTurns(StrEnum):
    FIRST = "first"  # what instructs later is the user's
    NONE = "none"  # what instructs first is the user's, too


def refused_system_turns(message: str) -> SystemTurns | None:
    """What system turns a target takes, by the message of its refusal; None for another one."""
    if _NONE.search(message):
        return SystemTurns.NONE
    return SystemTurns.FIRST if _LATER.search(message) else None


def system_first(messages: list[Any]) -> list[Any]:
    """Joins a chat's first system turns, and writes each later one as the user's."""
    found: list[Any] = []
    for message in messages:
        if not _instructs(message) or not found:
            found.append(message)
        elif len(found) == 1 and _instructs(found[0]):
            found[0] = {**found[0], "content": _joined(found[0], message)}
        elif message.get("content"):
            found.append({"role": "user", "content": message["content"]})
    return found


def without_system(messages: list[Any]) -> list[Any]:
    """Writes a chat whose instructions begin the user's first turn."""
    first, *others = system_first(messages) or [None]
    if not _instructs(first):
        return messages
    said = {**first, "role": "user"}
    if others and isinstance(others[0], dict) and others[0].get("role") == "user":
        said, others = {**others[0], "content": _joined(first, others[0])}, others[1:]
    return [said, *others]


def _instructs(message: Any) -> bool:
    return isinstance(message, dict) and message.get("role") in ("system", "developer")


def _joined(*messages: Mapping[str, Any]) -> Any:
    said = [message.get("content") or "" for message in messages]
    if all(isinstance(content, str) for content in said):
        return "\n\n".join(said)
    texts = [[{"type": "text", "text": c}] if isinstance(c, str) else c for c in said]
    return [part for parts in texts for part in parts]
