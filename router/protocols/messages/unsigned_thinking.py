"""Takes thinking blocks without a signature (left by an answer that was translated) out of a
Messages request, as Anthropic refuses them; within a tool loop it turns thinking off.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from router.protocols.object_lists import iter_objects
from router.request.body_patch import to_json

_UNSIGNED: Final = re.compile(rb'"signature"\s*:\s*""').search


def without_unsigned(body: bytes) -> bytes:
    """A message's body without the thinking that Anthropic would refuse.

    In the middle of a tool loop it wants the turn's thinking back, or a request without any:
    such a request asks for none.
    """
    if not _UNSIGNED(body):
        return body
    asked: dict[str, Any] = json.loads(body)
    messages = list(iter_objects(asked.get("messages")))
    stripped = [_strip(message) for message in messages]
    last = max((n for n, block in enumerate(stripped) if block), default=None)
    if last is None:
        return body
    thinking = asked.get("thinking")
    enabled = isinstance(thinking, dict) and thinking.get("type") == "enabled"
    if enabled and _within_loop(messages, last):
        del asked["thinking"]
    return to_json(asked).encode()


def _strip(message: Mapping[str, object]) -> bool:
    """Whether any was taken out."""
    content = message.get("content")
    if not isinstance(content, list) or not any(_unsigned(part) for part in content):
        return False
    content[:] = [part for part in content if not _unsigned(part)] or [_SILENCE]
    return True


# A turn must say something.
_SILENCE: Final = {"type": "text", "text": "(no answer)"}


def _unsigned(block: object) -> bool:
    return (
        isinstance(block, dict)
        and block.get("type") == "thinking"
        and not block.get("signature")
    )


def _within_loop(messages: Sequence[Mapping[str, object]], turn: int) -> bool:
    """Whether no words of the user's came since: results of tools alone."""
    later = (message for message in messages[turn + 1 :] if message.get("role") == "user")
    return all(
        any(
            block.get("type") == "tool_result" for block in iter_objects(message.get("content"))
        )
        for message in later
    )
