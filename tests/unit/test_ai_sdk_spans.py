import json

import pytest

from evals.suites.ai_sdk_spans import read_ai_sdk

pytestmark = pytest.mark.req("D8")
CALL = {
    "id": "c1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Oslo"}'},
}


def test_a_tool_loop_of_the_ai_sdk_is_a_chat() -> None:
    call = {"toolCallId": "c1", "toolName": "weather", "input": {"city": "Oslo"}}
    result = {
        "type": "tool-result",
        "toolCallId": "c1",
        "toolName": "weather",
        "output": {"type": "json", "value": {"degrees": 9}},
    }
    prompt = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Weather?"}]},
        {"role": "assistant", "content": [{"type": "tool-call", **call}]},
        {"role": "tool", "content": [result]},
    ]
    tool = {"type": "function", "name": "weather", "inputSchema": {"type": "object"}}

    messages, answers, tools = read_ai_sdk(
        {
            "ai.prompt.messages": json.dumps(prompt),
            "ai.prompt.tools": [json.dumps(tool)],
            "ai.response.toolCalls": json.dumps([call]),
            "ai.response.finishReason": "tool-calls",
        }
    )

    assert messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": '{"degrees": 9}'},
    ]
    (answer,) = answers
    assert (answer["tool_calls"], answer["finish_reason"]) == ([CALL], "tool_calls")
    function = {"name": "weather", "parameters": {"type": "object"}}
    assert tools == [{"type": "function", "function": function}]


def test_a_picture_in_a_prompt_stays_a_part_without_its_data() -> None:
    parts = [{"type": "text", "text": "What?"}, {"type": "file", "mediaType": "image/png"}]
    prompt = json.dumps([{"role": "user", "content": parts}])

    messages, answers, _ = read_ai_sdk({"ai.prompt.messages": prompt})

    assert messages[0]["content"] == [{"type": "text", "text": "What?"}, {"type": "file"}]
    assert not answers
