"""Recognizes a refusal of the order of turns, and writes the turns in an accepted order. The
texts stay the same. Pure.

The patterns are the words of known providers' chat templates.
"""

import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Final

Turns = list[Any]
# Inserted between a tool's result and the user's next turn.
ANSWER: Final = {"role": "assistant", "content": "OK."}


class TurnOrder(StrEnum):
    """An order of turns that some targets' templates demand."""

    SYSTEM_FIRST = "system_first"  # later system turns become user turns
    NO_DEVELOPER = "no_developer"  # developer turns become system turns, in SYSTEM_FIRST
    NO_SYSTEM = "no_system"  # all system turns become user turns
    ALTERNATE = "alternate"  # user and model alternate; a model turn follows a tool's result


def _pattern(*words: str) -> re.Pattern[str]:
    return re.compile("|".join(words), re.IGNORECASE)


_REFUSED: Final[Mapping[TurnOrder, re.Pattern[str]]] = {
    # From DeepSeek.
    TurnOrder.NO_DEVELOPER: _pattern("unknown variant `developer`"),
    # From Gemma's template on any server, and Bedrock's older models.
    TurnOrder.NO_SYSTEM: _pattern(
        "system role not supported",
        "support system (messages|prompts|instructions)",
        "developer instruction is not enabled",
    ),
    # From Anthropic's older models, compatible servers and templates, for later system turns.
    TurnOrder.SYSTEM_FIRST: _pattern(
        r"role\W+system\W+(is not supported|the messages api)",
        "system messages? must be (at the beginning|first)",
        r"(expected|should be) [`']user[`'] or [`']assistant[`']",
    ),
    # From Gemma's and Mistral's templates, and Perplexity.
    TurnOrder.ALTERNATE: _pattern(
        "roles must alternate",
        "should alternate with",
        "unexpected role 'user' after role",
    ),
}


def refused_order(message: str) -> TurnOrder | None:
    """Returns the turn order that a refusal demands; None for another refusal."""
    return next(
        (order for order, words in _REFUSED.items() if words.search(message)),
        None,
    )


def in_order(messages: Turns, order: TurnOrder) -> Turns:
    """Returns the turns in an order that the target accepts; their texts stay the same."""
    return _WRITE[order](messages)


def _system_first(messages: Turns) -> Turns:
    """Joins the first system turns. Changes later system turns into user turns."""
    found: Turns = []
    for message in messages:
        if not _instructs(message) or not found:
            found.append(message)
        elif len(found) == 1 and _instructs(found[0]):
            found[0] = {**found[0], "content": _joined(found[0], message)}
        elif message.get("content"):
            found.append({"role": "user", "content": message["content"]})
    return found


def _without_developer(messages: Turns) -> Turns:
    """Changes developer turns into system turns, as `_system_first` orders them."""
    return _system_first(
        [
            {**message, "role": "system"} if _instructs(message) else message
            for message in messages
        ]
    )


def _without_system(messages: Turns) -> Turns:
    """Changes system turns into user turns; joins the first with a following user turn."""
    first, *rest = _system_first(messages) or [None]
    if not _instructs(first):
        return messages
    turn = {**first, "role": "user"}
    if _role(rest[:1]) == "user":
        turn = {**rest[0], "content": _joined(first, rest[0])}
        rest = rest[1:]
    return [turn, *rest]


def _alternate(messages: Turns) -> Turns:
    """Joins turns of one role; inserts ANSWER between a tool's result and a user's turn."""
    found: Turns = []
    for message in messages:
        before = _role(found[-1:])
        role = _role([message])
        calls = any("tool_calls" in turn for turn in (*found[-1:], message))
        if before == role and role in ("user", "assistant") and not calls:
            found[-1] = {**found[-1], "content": _joined(found[-1], message)}
            continue
        if (before, role) == ("tool", "user"):
            found.append(ANSWER)
        found.append(message)
    return found


_WRITE: Final[Mapping[TurnOrder, Callable[[Turns], Turns]]] = {
    TurnOrder.SYSTEM_FIRST: _system_first,
    TurnOrder.NO_DEVELOPER: _without_developer,
    TurnOrder.NO_SYSTEM: _without_system,
    TurnOrder.ALTERNATE: _alternate,
}


def _role(turns: Turns) -> object:
    return turns[0].get("role") if turns and isinstance(turns[0], dict) else None


def _instructs(message: Any) -> bool:
    return _role([message]) in ("system", "developer")


def _joined(*messages: Mapping[str, Any]) -> Any:
    """Joins the contents of turns: texts by an empty line, parts one after another."""
    contents = [message.get("content") or "" for message in messages]
    if all(isinstance(content, str) for content in contents):
        return "\n\n".join(contents)
    texts = [[{"type": "text", "text": c}] if isinstance(c, str) else c for c in contents]
    return [part for parts in texts for part in parts]
