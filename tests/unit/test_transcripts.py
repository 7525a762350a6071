import json
from typing import Any

import pytest

from harness.frame.redaction import Redactor
from router.protocols.transcript import build_transcript

pytestmark = pytest.mark.req("F9")

TOOL = {
    "type": "function",
    "function": {"name": "mail", "parameters": {"type": "object"}},
}
CALL = {
    "id": "c1",
    "type": "function",
    "function": {"name": "mail", "arguments": '{"to": "a"}'},
}
ASKED = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Write to a."},
]


def events(
    *data: dict[str, Any],
    done: bool = False,
    end: str = "\n\n",
) -> str:
    lines = [f"event: {event.get('type')}\ndata: {json.dumps(event)}" for event in data]
    return end.join([": keep-alive", *lines, *(["data: [DONE]"] if done else []), ""])


def chunk(**delta: Any) -> dict[str, Any]:
    reason = delta.pop("finish_reason", None)
    return {
        "choices": [
            {
                "index": 0,
                "delta": delta,
                "finish_reason": reason,
            }
        ]
    }


def block(
    index: int,
    what: str,
    **given: Any,
) -> dict[str, Any]:
    return {
        "type": f"content_block_{what}",
        "index": index,
        **given,
    }


def read(
    endpoint: str,
    asked: dict[str, Any],
    answer: str | dict[str, Any],
) -> dict[str, Any]:
    stream = isinstance(answer, str)
    text = answer if isinstance(answer, str) else json.dumps(answer)
    return build_transcript(endpoint, json.dumps(asked), text, stream=stream)


def test_a_chat_streamed_in_pieces_is_what_it_would_have_been_whole() -> None:
    asked = {
        "model": "chat",
        "messages": ASKED,
        "tools": [TOOL],
        "user": "kim",
        "store": True,
    }
    message = {
        "role": "assistant",
        "content": "Sure.",
        "tool_calls": [CALL],
    }
    whole = {
        "choices": [
            {
                "index": 0,
                "message": message,
                "finish_reason": "tool_calls",
            }
        ]
    }
    first = {
        "index": 0,
        "id": "c1",
        "function": {"name": "mail", "arguments": '{"to"'},
    }
    streamed = events(
        chunk(role="assistant", content=""),
        chunk(content="Su"),
        chunk(content="re."),
        {"choices": [{"index": 1, "delta": {"content": "another choice"}}]},
        chunk(tool_calls=[first]),
        chunk(tool_calls=[{"index": 0, "function": {"arguments": ': "a"}'}}]),
        chunk(finish_reason="tool_calls"),
        {"choices": [], "usage": {"prompt_tokens": 3}},
        done=True,
    )

    found = read("chat", asked, whole)

    assert read("chat", asked, streamed) == found
    assert read("chat", asked, streamed.replace("\n", "\r\n")) == found
    # Neither the user nor anything else that is not asked or answered.
    assert found == {
        "messages": ASKED,
        "tools": [TOOL],
        "answer": {**message, "finish_reason": "tool_calls"},
    }


def test_anthropics_messages_become_a_chats() -> None:
    asked = {
        "model": "chat",
        "system": [{"type": "text", "text": "Be kind."}],
        "messages": [
            {"role": "user", "content": "Write to a."},
            {
                "role": "assistant",
                "content": [
                    {
                        "type": "tool_use",
                        "id": "c1",
                        "name": "mail",
                        "input": {"to": "a"},
                    }
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "c1",
                        "content": "sent",
                    },
                    {"type": "image", "source": {"data": "AAAA"}},
                    {"type": "text", "text": "Thanks"},
                ],
            },
        ],
        "tools": [{"name": "mail", "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "any"},
    }
    content: list[dict[str, Any]] = [
        {"type": "text", "text": "Done."},
        {
            "type": "tool_use",
            "id": "c2",
            "name": "mail",
            "input": {"to": "b"},
        },
    ]
    empty = {"type": "text", "text": ""}
    streamed = events(
        {"type": "message_start", "message": {}},
        block(0, "start", content_block=empty),
        block(0, "delta", delta={"type": "text_delta", "text": "Done."}),
        block(1, "start", content_block={**content[1], "input": {}}),
        block(1, "delta", delta={"partial_json": '{"to":'}),
        block(1, "delta", delta={"partial_json": ' "b"}'}),
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
        {"type": "message_stop"},
    )

    found = read("messages", asked, {"content": content, "stop_reason": "tool_use"})

    assert read("messages", asked, streamed) == found
    assert found["messages"] == [
        *ASKED,
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [CALL],
        },
        {
            "role": "tool",
            "tool_call_id": "c1",
            "content": "sent",
        },
        {"role": "user", "content": "[image left out]\nThanks"},
    ]
    assert found["tools"] == [TOOL]
    assert found["tool_choice"] == "required"
    answer = found["answer"]
    assert (answer["content"], answer["finish_reason"]) == (
        "Done.",
        "tool_use",
    )
    assert answer["tool_calls"][0]["function"] == {
        "name": "mail",
        "arguments": '{"to": "b"}',
    }


def test_openais_responses_become_a_chats() -> None:
    schema = {
        "type": "json_schema",
        "name": "reply",
        "schema": {"type": "object"},
    }
    asked = {
        "model": "chat",
        "instructions": "Be kind.",
        "input": [
            {
                "role": "user",
                "content": [{"type": "input_text", "text": "Write to a."}],
            },
            {
                "type": "function_call",
                "call_id": "c1",
                "name": "mail",
                "arguments": '{"to": "a"}',
            },
            {
                "type": "function_call_output",
                "call_id": "c1",
                "output": "sent",
            },
        ],
        "tools": [
            {
                "type": "function",
                "name": "mail",
                "parameters": {"type": "object"},
            }
        ],
        "text": {"format": schema},
    }
    output = [
        {"type": "reasoning", "summary": []},
        {
            "type": "message",
            "content": [{"type": "output_text", "text": "Done."}],
        },
    ]
    whole = {"output": output, "status": "completed"}

    found = read("responses", asked, whole)

    streamed = events({"type": "response.completed", "response": whole})
    assert read("responses", asked, streamed) == found
    assert found["messages"] == [
        *ASKED,
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [CALL],
        },
        {
            "role": "tool",
            "tool_call_id": "c1",
            "content": "sent",
        },
    ]
    assert found["response_format"]["json_schema"] == {
        "name": "reply",
        "schema": schema["schema"],
    }
    assert found["answer"]["content"] == "Done."
    assert read("responses", {"input": "Hi"}, whole)["messages"] == [
        {"role": "user", "content": "Hi"}
    ]


def test_what_is_no_text_is_left_out_by_name() -> None:
    picture = {
        "type": "image_url",
        "image_url": {"url": "data:image/png;base64,AAAA"},
    }
    asked = {"messages": [{"role": "user", "content": [picture]}]}
    whole = {"choices": [{"message": {"content": "A cat."}, "finish_reason": "stop"}]}

    found = read("chat", asked, whole)

    left = {"type": "text", "text": "[image_url left out]"}
    assert found["messages"] == [{"role": "user", "content": [left]}]


def test_a_key_behind_a_hosted_tools_block_is_redacted_and_files_are_left_out_by_name() -> None:
    key = "sk-sg-abcdefgh12345678"
    hit = {
        "type": "web_search_result",
        "title": "found",
        "url": "https://files.test/hit",
    }
    hosted = {
        "type": "web_search_tool_result",
        "tool_use_id": "s1",
        "content": [hit],
    }
    spoken = [hosted, {"type": "text", "text": key}]
    sources: list[dict[str, Any]] = [
        {
            "type": "text",
            "media_type": "text/plain",
            "data": "A secret plan.",
        },
        {"type": "url", "url": "https://files.test/plan"},
        {
            "type": "base64",
            "media_type": "application/pdf",
            "data": "QUJDRA==",
        },
        {"type": "file", "file_id": "file_1"},
        {
            "type": "content",
            "content": [{"type": "text", "text": "A secret part."}],
        },
    ]
    documents = [
        {
            "type": "document",
            "title": "Plan",
            "source": source,
        }
        for source in sources
    ]
    pictures = [{"type": "image", "source": source} for source in sources[1:4]]
    result = {
        "type": "tool_result",
        "tool_use_id": "c1",
        "content": documents,
    }
    asked = {
        "system": pictures,
        "messages": [
            {"role": "user", "content": [*documents, *pictures]},
            {"role": "assistant", "content": spoken},
            {"role": "user", "content": [result]},
        ],
    }
    whole = {"content": spoken, "stop_reason": "end_turn"}

    found = Redactor().redact(read("messages", asked, whole)).value

    no_documents = "\n".join(["[document left out]"] * 5)
    no_pictures = "\n".join(["[image left out]"] * 3)
    said = "[web_search_tool_result left out]\n[KEY_1]"
    assert found == {
        "messages": [
            {"role": "system", "content": no_pictures},
            {"role": "user", "content": f"{no_documents}\n{no_pictures}"},
            {"role": "assistant", "content": said},
            {
                "role": "tool",
                "tool_call_id": "c1",
                "content": no_documents,
            },
        ],
        "answer": {
            "role": "assistant",
            "content": said,
            "finish_reason": "end_turn",
        },
    }
    parts = [
        {
            "type": "input_file",
            "file_data": "QUJDRA==",
            "filename": "plan.pdf",
        },
        {"type": "input_image", "image_url": "https://files.test/plan"},
    ]
    call = {"type": "web_search_call", "action": {"query": key}}
    turns = read(
        "responses",
        {"input": [{"role": "user", "content": parts}, call]},
        {"output": []},
    )
    assert [turn["content"] for turn in turns["messages"]] == [
        "[input_file left out]\n[input_image left out]",
        "[web_search_call left out]",
    ]
