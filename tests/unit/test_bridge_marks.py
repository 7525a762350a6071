"""Marks for the prompt's cache, from a message's request into a chat's."""

from typing import Any, Final

import pytest

from router.protocols.chat_way import ChatWay
from router.protocols.messages.message_request import chat_body
from router.upstream.translate.request_screening import screen_request

MARK: Final[dict[str, Any]] = {"cache_control": {"type": "ephemeral"}}
TEXT: Final = {"type": "text", "text": "a"}
USE: Final = {"type": "tool_use", "id": "t", "name": "f", "input": {"cache_control": 1}}
RESULT: Final = {"type": "tool_result", "tool_use_id": "t", "content": "rain"}


def body(mark: dict[str, Any]) -> dict[str, Any]:
    return {
        "model": "m",
        "system": [TEXT, {**TEXT, **mark}],
        "tools": [{"name": "f", "input_schema": {"type": "object"}, **mark}],
        "messages": [
            {"role": "user", "content": [{**TEXT, **mark}]},
            {"role": "assistant", "content": [{**TEXT, **mark}, {**USE, **mark}]},
            {"role": "user", "content": [{**RESULT, **mark}]},
        ],
    }


@pytest.mark.req("B7")
def test_a_mark_stands_in_the_chat_where_it_stood_in_the_message() -> None:
    chat: Any = chat_body(body(MARK), ChatWay())

    marked = {"type": "text", "text": "a", **MARK}
    system, user, assistant, result = chat["messages"]
    assert system["content"] == [TEXT, marked]
    assert user["content"] == [marked]
    assert assistant["content"] == [marked]
    assert assistant["tool_calls"][0]["cache_control"] == MARK["cache_control"]
    assert result["content"] == [{"type": "text", "text": "rain", **MARK}]
    assert chat["tools"][0]["cache_control"] == MARK["cache_control"]
    screen_request(chat, "bedrock")


def test_without_marks_texts_stay_texts() -> None:
    chat: Any = chat_body(body({}), ChatWay())

    assert [message["content"] for message in chat["messages"]] == ["a\n\na", "a", "a", "rain"]
    assert '"cache_control":' not in str(chat["tools"])
