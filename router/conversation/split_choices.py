"""Joins an answer whose text and calls came as several choices.

GitHub Copilot answers so for some models of Anthropic, although the client asked for one
choice: https://github.com/zeroclaw-labs/zeroclaw/pull/2136. Most clients read only the first.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from router.frame.body import list_objects

# A body that may ask for several choices. A text with this member only prevents a repair.
_SEVERAL: Final = re.compile(r'"n"\s*+:\s*+(?!1\s*[,}]|null\b)').search
_CALLS: Final = "tool_calls"


def may_ask_for_several(request_body: str) -> bool:
    """Returns whether the answer's choices may be alternatives."""
    return _SEVERAL(request_body) is not None


def join_choices(choices: Sequence[Mapping[Any, Any]]) -> dict[str, Any]:
    """Returns one choice with the members of all.

    The first choice that has a text, thinking or another member decides it. The calls of all
    choices follow each other.

    Args:
        choices: at least one.
    """
    joined: dict[str, Any] = {}
    message: dict[str, Any] = {}
    calls: list[Any] = []
    reasons: list[object] = []
    for choice in choices:
        joined = {**choice, **joined}
        part = choice.get("message")
        reasons.append(choice.get("finish_reason"))
        if isinstance(part, Mapping):
            calls += list_objects(part.get(_CALLS))
            message = {**part, **_filled(message)}
    if calls:
        message[_CALLS] = calls
    joined["message"] = message
    joined["finish_reason"] = _CALLS if _CALLS in reasons else reasons[0]
    return joined


def _filled(message: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in message.items() if value not in (None, "", [])}
