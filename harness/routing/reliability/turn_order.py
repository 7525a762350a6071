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


def _compile_pattern(*words: str) -> re.Pattern[str]:
    return re.compile("|".join(words), re.IGNORECASE)


_REFUSAL_PATTERNS: Final[Mapping[TurnOrder, re.Pattern[str]]] = {
    # From DeepSeek.
    TurnOrder.NO_DEVELOPER: _compile_pattern("unknown variant `developer`"),
    # From Gemma's template on any server, and Bedrock's older models.
    TurnOrder.NO_SYSTEM: _compile_pattern(
        "system role not supported",
        "support system (messages|prompts|instructions)",
        "developer instruction is not enabled",
    ),
    # From Anthropic's older models, compatible servers and templates, for later system turns.
    TurnOrder.SYSTEM_FIRST: _compile_pattern(
        r"role\W+system\W+(is not supported|the messages api)",
        "system messages? must be (at the beginning|first)",
        r"(expected|should be) [`']user[`'] or [`']assistant[`']",
    ),
    # From Gemma's and Mistral's templates, and Perplexity.
    TurnOrder.ALTERNATE: _compile_pattern(
        "roles must alternate",
        "should alternate with",
        "unexpected role 'user' after role",
    ),
}


def refused_order(message: str) -> TurnOrder | None:
    """Returns the turn order that a refusal demands; None for another refusal."""
    return next(
        (order for order, words in _REFUSAL_PATTERNS.items() if words.search(message)),
        None,
    )


def in_order(messages: Turns, order: TurnOrder) -> Turns:
    """Returns the turns in an order that the target accepts; their texts stay the same."""
    return _REORDER[order](messages)


def _system_first(messages: Turns) -> Turns:
    """Joins the first system turns. Changes later system turns into user turns."""
    turns: Turns = []
    for message in messages:
        if not _is_instruction(message) or not turns:
            turns.append(message)
        elif len(turns) == 1 and _is_instruction(turns[0]):
            turns[0] = {**turns[0], "content": _join_contents(turns[0], message)}
        elif message.get("content"):
            turns.append({"role": "user", "content": message["content"]})
    return turns


def _without_developer(messages: Turns) -> Turns:
    """Changes developer turns into system turns, as `_system_first` orders them."""
    return _system_first(
        [
            {**message, "role": "system"} if _is_instruction(message) else message
            for message in messages
        ]
    )


def _without_system(messages: Turns) -> Turns:
    """Changes system turns into user turns; joins the first with a following user turn."""
    first_turn, *other_turns = _system_first(messages) or [None]
    if not _is_instruction(first_turn):
        return messages
    turn = {**first_turn, "role": "user"}
    if _role(other_turns[:1]) == "user":
        turn = {**other_turns[0], "content": _join_contents(first_turn, other_turns[0])}
        other_turns = other_turns[1:]
    return [turn, *other_turns]


def _alternate(messages: Turns) -> Turns:
    """Joins turns of one role; inserts ANSWER between a tool's result and a user's turn."""
    turns: Turns = []
    for message in messages:
        previous_role = _role(turns[-1:])
        role = _role([message])
        has_tool_calls = any("tool_calls" in turn for turn in (*turns[-1:], message))
        if previous_role == role and role in ("user", "assistant") and not has_tool_calls:
            turns[-1] = {**turns[-1], "content": _join_contents(turns[-1], message)}
            continue
        if (previous_role, role) == ("tool", "user"):
            turns.append(ANSWER)
        turns.append(message)
    return turns


_REORDER: Final[Mapping[TurnOrder, Callable[[Turns], Turns]]] = {
    TurnOrder.SYSTEM_FIRST: _system_first,
    TurnOrder.NO_DEVELOPER: _without_developer,
    TurnOrder.NO_SYSTEM: _without_system,
    TurnOrder.ALTERNATE: _alternate,
}


def _role(turns: Turns) -> object:
    return turns[0].get("role") if turns and isinstance(turns[0], dict) else None


def _is_instruction(message: Any) -> bool:
    return _role([message]) in ("system", "developer")


def _join_contents(*messages: Mapping[str, Any]) -> Any:
    """Joins the contents of turns: texts by an empty line, parts one after another."""
    contents = [message.get("content") or "" for message in messages]
    if all(isinstance(content, str) for content in contents):
        return "\n\n".join(contents)
    parts_of_contents = [
        [{"type": "text", "text": c}] if isinstance(c, str) else c for c in contents
    ]
    return [part for parts in parts_of_contents for part in parts]
