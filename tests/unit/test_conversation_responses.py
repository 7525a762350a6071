"""What the items of a response carry to a target that speaks that protocol."""

import json
from typing import Any

import pytest

from router.conversation.makers import own_id
from router.conversation.response_history import move_response, without_reasoning
from router.frame.failure import Untranslatable

pytestmark = pytest.mark.req("B7")
MINE, OTHER = "aaaaaaaa", "bbbbbbbb"
OUTPUT = {"type": "function_call_output", "call_id": "c", "output": "1"}


def reasoning(id_: str, encrypted: str = "") -> dict[str, Any]:
    item: dict[str, Any] = {"type": "reasoning", "id": id_, "summary": []}
    return item | {"encrypted_content": encrypted} if encrypted else item


def call(id_: str, call_id: str = "c") -> dict[str, Any]:
    return {"type": "function_call", "id": id_, "call_id": call_id, "name": "f"}


def move(*items: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    body = json.dumps({"input": list(items), **more}).encode()
    found: list[dict[str, Any]] = json.loads(move_response(body, MINE).body)["input"]
    return found


def test_ids_that_a_translation_wrote_reach_no_provider() -> None:
    items = [reasoning(own_id("rs", OTHER, "c_0")), call(own_id("fc", OTHER, "c_1")), OUTPUT]
    (called, output) = move(*items)
    assert "id" not in called
    assert output == OUTPUT


def test_reasoning_that_is_stored_nowhere_is_left_out_and_stored_reasoning_stays() -> None:
    assert move(reasoning("rs_1"), call("fc_1"), store=False)[0]["type"] == "function_call"
    assert move(reasoning("rs_1"), call("fc_1"))[0] == reasoning("rs_1")


def test_an_id_of_reasoning_without_a_turn_is_left_for_the_provider_to_refuse() -> None:
    asked = {"role": "user", "content": "hi"}
    assert move(reasoning("rs_1"), asked, store=False) == [reasoning("rs_1"), asked]
    body = json.dumps({"input": [reasoning("rs_1"), asked]}).encode()
    assert json.loads(without_reasoning(body).body)["input"] == [reasoning("rs_1"), asked]


def test_what_refers_to_an_answer_of_a_translation_is_refused_with_the_way_out() -> None:
    ours = own_id("msg", MINE, "c_0")
    for request in (
        {"previous_response_id": own_id("resp", MINE, "c")},
        {"input": [{"type": "item_reference", "id": ours}]},
    ):
        with pytest.raises(Untranslatable, match="store: false"):
            move_response(json.dumps(request).encode(), MINE)


def test_long_ids_of_calls_are_rewritten_and_others_go_byte_for_byte() -> None:
    long = "c" * 65
    called, output = move(call("fc_1", long), {**OUTPUT, "call_id": long})
    assert called["call_id"] == output["call_id"]
    assert len(called["call_id"]) <= 64

    body = json.dumps({"input": [call("fc_1"), OUTPUT], "reasoning": {}}, indent=1).encode()
    assert move_response(body, MINE).body == body
