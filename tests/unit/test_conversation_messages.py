"""What a Messages history carries to a target that speaks that protocol."""

import json
from typing import Any

import pytest

from harness.domain.routing.target import RequestPatch, Target
from router.conversation.makers import maker_of, mark_piece
from router.conversation.message_history import move_message

pytestmark = pytest.mark.req("B7")
MINE, OTHER = (maker_of(Target("p", model)) for model in ("one", "other"))
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": ""}
SIGNED = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
TEXT: dict[str, Any] = {"type": "text", "text": "a"}
USE: dict[str, Any] = {"type": "tool_use", "id": "a", "name": "f", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "a", "content": "1"}
ENABLED = {"type": "enabled", "budget_tokens": 1024}


def signed_by(maker: str) -> dict[str, Any]:
    return {**SIGNED, "signature": mark_piece("c2ln", maker)}


def left(*turns: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """turns: of the assistant and the user by turns."""
    roles = ("assistant", "user")
    messages = [{"role": roles[n % 2], "content": turn} for n, turn in enumerate(turns)]
    asked = {"model": "m", "thinking": ENABLED, "messages": messages, **more}
    found: dict[str, Any] = json.loads(move_message(json.dumps(asked).encode(), MINE).body)
    return found


def contents(asked: dict[str, Any]) -> list[Any]:
    return [message["content"] for message in asked["messages"]]


def test_another_addendum_to_the_prompt_is_another_maker() -> None:
    plain = Target("p", "m")
    warm = Target("p", "m", {"temperature": 1})
    brief = Target("p", "m", request_patch=RequestPatch(prompt_addendum="Be brief."))
    assert maker_of(plain) == maker_of(warm) != maker_of(brief)


def test_thinking_without_a_signature_is_left_out_and_unmarked_thinking_is_tried() -> None:
    found = left([THOUGHT, TEXT], [TEXT], [SIGNED, TEXT])
    assert contents(found) == [[TEXT], [TEXT], [SIGNED, TEXT]]
    assert found["thinking"] == ENABLED


def test_within_a_tool_loop_without_thinking_a_request_asks_for_no_budget() -> None:
    for turn in ([THOUGHT, USE], [signed_by(OTHER), USE], [USE], [TEXT, USE]):
        found = left(turn, [RESULT])
        assert USE in found["messages"][0]["content"]
        assert "thinking" not in found
    assert left([signed_by(MINE), USE], [RESULT])["thinking"] == ENABLED
    assert left([USE], [RESULT, TEXT], [TEXT], [TEXT])["thinking"] == ENABLED
    assert left([USE], [RESULT], thinking={"type": "adaptive"})["thinking"]


def test_what_has_none_stays_as_it_is_byte_for_byte() -> None:
    for body in (
        b'{ "a" : 1 }',
        b'{"messages":[{"role":"user","content":"\\"signature\\":\\"\\""}]}',
        b'{ "messages": [{"role":"user","content":[{"type":"x","signature":""}]}] }',
    ):
        assert move_message(body, MINE).body == body
