"""Marks a request whose answer continues the last turn, in the form that its target takes.

Claude, Groq and llama.cpp continue a last turn of the assistant without a mark. Mistral and
DeepSeek need `prefix` in that turn, Moonshot and Qwen need `partial`, vLLM and SGLang need
fields of the request. The target's form is one of its abilities
(`harness.providers.models.abilities`).
"""

import json
from collections.abc import Callable
from typing import Any, Final

from harness.providers.models.capabilities import Prefill
from router.frame.body import iter_objects, to_json

Json = dict[str, Any]
# A request without this text has no turn of the assistant.
ANSWER: Final = '"assistant"'
_TURN_MARKS: Final = ("prefix", "partial")
_CONTINUES: Final = "continue_final_message"
_NO_NEW_TURN: Final[Json] = {_CONTINUES: True, "add_generation_prompt": False}


def is_open_answer(turn: object) -> bool:
    """Tells whether a turn is a text of the assistant's. A turn with calls does not count."""
    if not isinstance(turn, dict) or turn.get("role") != "assistant" or turn.get("tool_calls"):
        return False
    content = turn.get("content")
    if isinstance(content, str):
        return bool(content)
    blocks = list(iter_objects(content))
    called = any(str(block.get("type")).endswith("tool_use") for block in blocks)
    return not called and any(block.get("text") for block in blocks)


def is_prefill_marked(turn: object, field: Callable[[str], object]) -> bool:
    """Tells whether a chat says that its answer continues the last turn.

    turn: the last one. field: returns a field of the request.
    """
    marked = isinstance(turn, dict) and any(turn.get(name) is True for name in _TURN_MARKS)
    return marked or field(_CONTINUES) is True


def mark_prefill(body: bytes, form: Prefill) -> bytes:
    """Marks a chat that continues its last turn, in a target's form. A target whose form is
    unknown gets the client's own marks.
    """
    if form is Prefill.UNKNOWN:
        return body
    request: Json = json.loads(body)
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages or not is_open_answer(messages[-1]):
        return body
    turn: Json = messages[-1]
    for name in _TURN_MARKS:
        turn.pop(name, None)
    for name in _NO_NEW_TURN:
        request.pop(name, None)
    if form is Prefill.PREFIX:
        turn["prefix"] = True
    elif form is Prefill.PARTIAL:
        turn["partial"] = True
    elif form is Prefill.FLAGS:
        request |= _NO_NEW_TURN
    return to_json(request).encode()
