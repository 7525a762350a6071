"""Codex lets the provider compact a conversation, which no translated target can.

https://github.com/router-for-me/CLIProxyAPI/pull/5516
"""

import json
from typing import Any

import pytest

from harness.providers.models.capabilities import Endpoint
from router.frame.failure import Untranslatable
from router.protocols.responses.response_request import untranslatable_field
from router.upstream.endpoint_translation import native_need, translate_response

pytestmark = pytest.mark.req("B7", "A4")
USER: dict[str, Any] = {"type": "message", "role": "user", "content": "q"}
SUMMARY = {"type": "compaction", "id": "cmp_1", "encrypted_content": "c2VhbGVk"}
ANSWER = {"type": "message", "role": "assistant", "content": "a"}
CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
RESULT = {"type": "function_call_output", "call_id": "c", "output": "r"}


@pytest.mark.parametrize(
    ("items", "need"),
    [
        ([USER, {"type": "compaction_trigger"}], "responses:compaction_trigger"),
        ([SUMMARY, USER], "responses:compaction"),
        ([USER, SUMMARY, USER], "responses:compaction"),
        ([USER, ANSWER, SUMMARY, USER], ""),
        ([USER, CALL, RESULT, SUMMARY, USER], ""),
        ([USER], ""),
    ],
)
def test_only_a_native_target_can_read_a_summary_in_place_of_the_history(
    items: list[dict[str, Any]], need: str
) -> None:
    assert native_need(Endpoint.RESPONSES, {"input": items}.get) == need


@pytest.mark.parametrize("item", [SUMMARY, {"type": "compaction_trigger"}])
def test_a_refused_compaction_names_the_way_out(item: dict[str, Any]) -> None:
    body = {"model": "m", "input": [USER, item]}

    with pytest.raises(Untranslatable, match="add a target to the route that speaks Responses"):
        translate_response(json.dumps(body).encode(), "groq")


def test_a_summary_beside_its_history_is_left_out_and_named() -> None:
    body = {"model": "m", "input": [USER, ANSWER, SUMMARY, USER]}

    chat = translate_response(json.dumps(body).encode(), "groq")

    assert [m["role"] for m in json.loads(chat.body)["messages"]] == [
        "user",
        "assistant",
        "user",
    ]
    assert "input.compaction" in chat.dropped
    assert untranslatable_field(body.get) == ""
