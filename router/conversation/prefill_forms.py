"""Marks a request if its answer continues the last turn, in the form that its target accepts.

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
_CONTINUE_FLAG: Final = "continue_final_message"
_CONTINUE_FLAGS: Final[Json] = {_CONTINUE_FLAG: True, "add_generation_prompt": False}


def is_open_answer(turn: object) -> bool:
    """Returns whether a turn is only a text of the assistant, without calls."""
    if not isinstance(turn, dict) or turn.get("role") != "assistant" or turn.get("tool_calls"):
        return False
    content = turn.get("content")
    if isinstance(content, str):
        return bool(content)
    blocks = list(iter_objects(content))
    has_call = any(str(block.get("type")).endswith("tool_use") for block in blocks)
    return not has_call and any(block.get("text") for block in blocks)


def is_prefill_marked(turn: object, field: Callable[[str], object]) -> bool:
    """Returns whether a chat says that its answer continues the last turn.

    Args:
        turn: the last one.
        field: returns a field of the request.
    """
    has_turn_mark = isinstance(turn, dict) and any(
        turn.get(name) is True for name in _TURN_MARKS
    )
    return has_turn_mark or field(_CONTINUE_FLAG) is True


def mark_prefill(body: bytes, form: Prefill) -> bytes:
    """Marks a chat that continues its last turn, in a target's form.

    A target with an unknown form gets the client's own marks.
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
    for name in _CONTINUE_FLAGS:
        request.pop(name, None)
    if form is Prefill.PREFIX:
        turn["prefix"] = True
    elif form is Prefill.PARTIAL:
        turn["partial"] = True
    elif form is Prefill.FLAGS:
        request |= _CONTINUE_FLAGS
    return to_json(request).encode()
