"""A conversation that was answered by a translation moves on to Anthropic."""

import json
from typing import Any

import pytest

from router.protocols.messages.unsigned_thinking import without_unsigned

pytestmark = pytest.mark.req("B7")
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": ""}
SIGNED = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
USE = {"type": "tool_use", "id": "a", "name": "f", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "a", "content": "1"}
ENABLED = {"type": "enabled", "budget_tokens": 1024}


def left(*turns: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """turns: of the assistant and the user by turns."""
    roles = ("assistant", "user")
    messages = [{"role": roles[n % 2], "content": turn} for n, turn in enumerate(turns)]
    asked = {"model": "m", "thinking": ENABLED, "messages": messages, **more}
    found: dict[str, Any] = json.loads(without_unsigned(json.dumps(asked).encode()))
    return found


def test_unsigned_thinking_is_left_out_and_signed_stays() -> None:
    text = {"type": "text", "text": "a"}
    found = left([THOUGHT, text], [text], [SIGNED, text])
    assert [message["content"] for message in found["messages"]] == [
        [text],
        [text],
        [SIGNED, text],
    ]
    assert found["thinking"] == ENABLED


def test_within_a_tool_loop_such_a_request_asks_for_no_thinking() -> None:
    found = left([THOUGHT, USE], [RESULT])
    assert found["messages"][0]["content"] == [USE]
    assert "thinking" not in found
    assert left([SIGNED, USE], [RESULT])["thinking"] == ENABLED
    assert left([THOUGHT, USE], [RESULT], thinking={"type": "adaptive"})["thinking"]


def test_what_has_none_stays_as_it_is_byte_for_byte() -> None:
    for body in (
        b'{ "a" : 1 }',
        b'{"messages":[{"role":"user","content":"\\"signature\\":\\"\\""}]}',
    ):
        assert without_unsigned(body) == body
    nested = b'{ "messages": [{"role":"user","content":[{"type":"x","signature":""}]}] }'
    assert without_unsigned(nested) == nested
