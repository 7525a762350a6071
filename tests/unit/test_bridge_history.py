import json
from typing import Any

import pytest

from harness.providers.models.capabilities import Endpoint
from router.conversation.chat_history import move_chat
from router.conversation.intake import INTAKES, mark_piece
from router.conversation.native_histories import move_response
from router.frame.failure import Untranslatable
from router.frame.json_spans import parse_object
from router.upstream.endpoint_translation import (
    UNTRANSLATABLE_FIELDS,
    translate_message,
    translate_response,
)

pytestmark = pytest.mark.req("B7")
Json = dict[str, Any]
MINE = "aaaaaaaa"
OTHER = "bbbbbbbb"
USER: Json = {"role": "user", "content": "Go on."}
TEXT: Json = {"type": "text", "text": "What is it?"}
READ: Json = {"name": "read", "input_schema": {"type": "object"}}
SEARCH: Json = {"type": "web_search_20250305", "name": "web_search"}
THINKS: Json = {"thinking": {"type": "enabled", "budget_tokens": 2048}}
CALL: Json = {
    "id": "c",
    "type": "function",
    "function": {"name": "read", "arguments": "{}"},
}
RESULT: Json = {
    "type": "tool_result",
    "tool_use_id": "c",
    "content": "1",
}
FUNCTION: Json = {
    "type": "function",
    "name": "read",
    "parameters": {"type": "object"},
}
OUTPUT: Json = {
    "type": "function_call_output",
    "call_id": "c",
    "output": "1",
}
CALLED: Json = {
    "role": "assistant",
    "reasoning_content": "I read it.",
    "tool_calls": [CALL],
}
CHOICE: Json = {
    "index": 0,
    "message": CALLED,
    "finish_reason": "tool_calls",
}
ANSWER: Json = {
    "id": "x",
    "model": "m",
    "choices": [CHOICE],
}


def message_body(*messages: Json, **more: Any) -> bytes:
    return json.dumps(
        {
            "model": "m",
            "max_tokens": 9,
            "messages": messages,
            **more,
        }
    ).encode()


def turns(
    body: bytes,
    kind: str = "custom",
    maker: str = MINE,
) -> list[Json]:
    found: list[Json] = json.loads(translate_message(body, kind, maker).body)["messages"]
    return found


def assistant(*blocks: Json) -> Json:
    return {"role": "assistant", "content": list(blocks)}


def hosted(kind: str, content: object) -> Json:
    return {
        "type": kind,
        "tool_use_id": "s",
        "content": content,
    }


PAGE = "https://page.example"
SEARCHED = {
    "type": "server_tool_use",
    "id": "s",
    "name": "web_search",
    "input": {"query": "q1"},
}
HIT = {
    "type": "web_search_result",
    "title": "A title",
    "url": PAGE,
    "encrypted_content": "SECRET",
}
RAN = {
    "type": "code_execution_result",
    "stdout": "42",
    "stderr": "",
}
ASKED = {
    "type": "mcp_tool_use",
    "id": "s",
    "name": "read",
    "server_name": "files",
}
FOUND = [{"type": "text", "text": "found"}]


@pytest.mark.parametrize(
    ("blocks", "words"),
    [
        (
            [SEARCHED, hosted("web_search_tool_result", [HIT])],
            ["web_search", "q1", "A title", PAGE],
        ),
        ([hosted("code_execution_tool_result", RAN)], ["42"]),
        (
            [ASKED, hosted("mcp_tool_result", FOUND)],
            ["files", "read", "found"],
        ),
    ],
)
def test_what_a_hosted_tool_left_is_said_as_text(blocks: list[Json], words: list[str]) -> None:
    said = {"type": "text", "text": "So it is."}
    translated = translate_message(message_body(USER, assistant(*blocks, said), USER), "custom")
    text = json.loads(translated.body)["messages"][1]["content"]
    assert all(word in text for word in [*words, "So it is."])
    assert "SECRET" not in text
    assert set(translated.dropped) == {f"messages.{block['type']}" for block in blocks}


def test_a_result_may_hold_what_a_search_found() -> None:
    found = {
        "type": "search_result",
        "source": PAGE,
        "title": "A title",
        "content": FOUND,
    }
    use = {
        "type": "tool_use",
        "id": "c",
        "name": "read",
        "input": {},
    }
    body = message_body(
        USER,
        assistant(use),
        {"role": "user", "content": [{**RESULT, "content": [found]}]},
    )
    *_, result = turns(body)
    assert all(word in result["content"] for word in (PAGE, "A title", "found"))


@pytest.mark.parametrize(
    "source", [{"type": "file", "file_id": "f"}, {"type": "url", "url": f"{PAGE}/a.pdf"}]
)
def test_a_file_of_an_earlier_turn_is_named_and_one_of_this_turn_is_refused(
    source: Json,
) -> None:
    filed = {"role": "user", "content": [{"type": "document", "source": source}]}
    assert translate_message(message_body(filed, assistant(), USER), "custom").dropped == (
        "messages.document",
    )
    for sent in ([filed], [USER, assistant(), filed, USER]):
        with pytest.raises(Untranslatable, match="document"):
            translate_message(message_body(*sent), "custom")


def test_so_it_is_in_a_response_whose_tools_still_run_and_in_a_chat() -> None:
    part = {"type": "input_file", "file_id": "f"}
    called = {
        "type": "function_call",
        "call_id": "c",
        "name": "read",
        "arguments": "{}",
    }
    filed = {"role": "user", "content": [part]}
    for items, is_refused in (
        ([filed, called, OUTPUT], False),
        ([filed, USER], True),
    ):
        raw = json.dumps({"model": "m", "input": items}).encode()
        if is_refused:
            with pytest.raises(Untranslatable, match="input_file"):
                translate_response(raw, "custom")
        else:
            assert translate_response(raw, "custom").dropped == ("input.input_file",)
    chat = {
        "role": "user",
        "content": [{"type": "file", "file": {"file_id": "f"}}],
    }
    body = json.dumps({"messages": [chat, {"role": "assistant", "content": "a"}, chat]})
    moved = move_chat(body.encode(), INTAKES["anthropic"])
    kinds = [turn["content"][0]["type"] for turn in json.loads(moved.body)["messages"][::2]]
    assert (kinds, moved.dropped) == (["text", "file"], ("messages.file",))


def test_a_container_binds_only_with_the_skills_that_it_is_to_have() -> None:
    body = message_body(USER, container="container_1")
    assert translate_message(body, "custom").dropped == ("container",)
    with pytest.raises(Untranslatable, match="container"):
        translate_message(
            message_body(USER, container={"skills": [{"skill_id": "pdf"}]}),
            "custom",
        )


def test_a_hosted_tool_beside_others_is_left_out_and_alone_it_binds() -> None:
    translated = translate_message(message_body(USER, tools=[READ, SEARCH]), "custom")
    assert len(json.loads(translated.body)["tools"]) == 1
    assert translated.dropped == ("tools.web_search_20250305",)
    for body in (
        {"tools": [SEARCH]},
        {
            "tools": [READ, SEARCH],
            "tool_choice": {"type": "tool", "name": "web_search"},
        },
    ):
        held = UNTRANSLATABLE_FIELDS[Endpoint.MESSAGES](body.get)
        assert held == "a tool of type 'web_search_20250305'"
        with pytest.raises(Untranslatable, match="web_search_20250305"):
            translate_message(message_body(USER, **body), "custom")


@pytest.mark.parametrize("kind", ["deepseek", "custom"])
def test_a_messages_reasoning_comes_back_to_its_maker_alone(kind: str) -> None:
    first = translate_message(message_body(USER, tools=[READ], **THINKS), kind, MINE)
    content = json.loads(first.whole(parse_object(json.dumps(ANSWER).encode())))["content"]
    body = message_body(
        USER,
        assistant(*content),
        {"role": "user", "content": [RESULT]},
        **THINKS,
    )
    assert turns(body, kind)[1]["reasoning_content"] == "I read it."
    assert "reasoning_content" not in turns(body, kind, OTHER)[1]
    assert "reasoning_content" not in turns(body, "groq")[1]


def test_a_responses_reasoning_comes_back_to_its_maker_alone() -> None:
    request: Json = {
        "model": "m",
        "input": [USER],
        "reasoning": {"summary": "auto"},
    }
    first = translate_response(json.dumps(request).encode(), "deepseek", MINE)
    output = json.loads(first.whole(parse_object(json.dumps(ANSWER).encode())))["output"]
    again = json.dumps({**request, "input": [USER, *output, OUTPUT]}).encode()
    for maker, thought in ((MINE, "I read it."), (OTHER, None)):
        turn = json.loads(translate_response(again, "deepseek", maker).body)["messages"][1]
        assert turn.get("reasoning_content") == thought
        assert turn["tool_calls"] == [CALL]


@pytest.mark.parametrize("streamed", [False, True])
def test_signed_thinking_goes_through_a_response_and_back_to_the_chat_that_it_came_from(
    *, streamed: bool
) -> None:
    asked: Json = {
        "model": "m",
        "reasoning": {"effort": "low", "summary": "auto"},
        "tools": [FUNCTION],
    }
    signed = {
        "type": "thinking",
        "thinking": "hm",
        "signature": mark_piece("c2ln", MINE),
    }
    message = {
        "role": "assistant",
        "reasoning_content": "hm",
        "thinking_blocks": [signed],
    }
    head = {"id": "chat_1", "model": "m"}
    first = translate_response(json.dumps({**asked, "input": "hi"}).encode(), "anthropic")
    if streamed:
        deltas = [
            ({"reasoning_content": "hm"}, None),
            ({"thinking_blocks": [signed]}, None),
            ({"tool_calls": [{**CALL, "index": 0}]}, None),
            ({}, "tool_calls"),
        ]
        choices = [
            {
                "index": 0,
                "delta": d,
                "finish_reason": reason,
            }
            for d, reason in deltas
        ]
        chunks = [json.dumps({**head, "choices": [choice]}) for choice in choices]
        reader = first.events()
        raw = reader.feed("".join(f"data: {chunk}\n\n" for chunk in chunks).encode())
        last = (raw + reader.end()).rpartition(b"data: ")[2]
        output = json.loads(last)["response"]["output"]
    else:
        choice = {
            "message": {**message, "tool_calls": [CALL]},
            "finish_reason": "tool_calls",
        }
        whole = json.dumps({**head, "choices": [{"index": 0, **choice}]}).encode()
        output = json.loads(first.whole(parse_object(whole)))["output"]

    again = {**asked, "input": [USER, *output, OUTPUT]}
    turns = json.loads(translate_response(json.dumps(again).encode(), "anthropic").body)
    (answer,) = (turn for turn in turns["messages"] if turn["role"] == "assistant")
    assert answer["thinking_blocks"] == [signed]
    # Another target's: its maker's mark is there, so it stays behind.
    moved = move_response(json.dumps(again).encode(), OTHER)
    assert all(item.get("type") != "reasoning" for item in json.loads(moved.body)["input"])


PICTURE = "data:image/png;base64,AAAA"
SCHEMA: Json = {
    "type": "object",
    "properties": {"colour": {"type": "string"}},
}


def test_what_a_message_says_survives() -> None:
    source = {
        "type": "base64",
        "media_type": "image/png",
        "data": "AAAA",
    }
    cat: Json = {"role": "assistant", "content": "A cat."}
    asked = message_body(
        {
            "role": "user",
            "content": [{"type": "image", "source": source}, TEXT],
        },
        cat,
        USER,
        system=[
            {
                "type": "text",
                "text": "x-anthropic-billing-header: cc_version=1.a;",
            },
            {"type": "text", "text": "One."},
            {"type": "text", "text": "Two."},
        ],
        stop_sequences=["END"],
        temperature=0.5,
        seed=7,
        speed="fast",
        fallbacks=[],
        tools=[{**READ, "description": "Of a file"}],
        tool_choice={
            "type": "tool",
            "name": "read",
            "disable_parallel_tool_use": True,
        },
        output_config={"format": {"type": "json_schema", "schema": SCHEMA}},
        thinking={"type": "enabled", "budget_tokens": 4000},
    )
    chat = json.loads(translate_message(asked, "custom").body)

    assert chat.pop("response_format")["json_schema"]["schema"] == SCHEMA
    parameters = READ["input_schema"]
    function = {
        "name": "read",
        "description": "Of a file",
        "parameters": parameters,
    }
    assert chat == {
        "model": "m",
        "max_tokens": 9,
        "temperature": 0.5,
        "seed": 7,
        "stop": ["END"],
        "reasoning_effort": "medium",
        "messages": [
            {"role": "system", "content": "One.\n\nTwo."},
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": PICTURE}},
                    TEXT,
                ],
            },
            cat,
            USER,
        ],
        "tools": [{"type": "function", "function": function}],
        "tool_choice": {"type": "function", "function": {"name": "read"}},
        "parallel_tool_calls": False,
    }


def test_what_a_response_says_survives() -> None:
    wanted = {
        "name": "c",
        "schema": {
            **SCHEMA,
            "required": [*SCHEMA["properties"]],
            "additionalProperties": False,
        },
        "strict": True,
    }
    seen = {"type": "input_image", "image_url": PICTURE}
    content = [{"type": "input_text", "text": "What is it?"}, seen]
    asked = {
        "model": "m",
        "input": [
            {"role": "developer", "content": "Short."},
            {"role": "user", "content": content},
        ],
        "text": {"format": {"type": "json_schema", **wanted}},
        "max_output_tokens": 50,
        "temperature": 0.5,
        "reasoning": {"effort": "low"},
        "store": True,
        "include": ["reasoning.encrypted_content"],
    }
    translated = translate_response(json.dumps(asked).encode(), "custom")

    assert json.loads(translated.body) == {
        "model": "m",
        "temperature": 0.5,
        "max_tokens": 50,
        "reasoning_effort": "low",
        "messages": [
            {"role": "system", "content": "Short."},
            {
                "role": "user",
                "content": [
                    TEXT,
                    {"type": "image_url", "image_url": {"url": PICTURE}},
                ],
            },
        ],
        "response_format": {"type": "json_schema", "json_schema": wanted},
    }
    choice = {
        "message": {"role": "assistant", "content": "Half"},
        "finish_reason": "length",
    }
    cut = json.dumps(
        {
            "id": "x",
            "model": "m",
            "choices": [{"index": 0, **choice}],
        }
    ).encode()
    answer = json.loads(translated.whole(parse_object(cut)))
    assert (answer["status"], answer["store"]) == ("incomplete", False)
    assert answer["incomplete_details"] == {"reason": "max_output_tokens"}


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"tools": [{"type": "web_search"}]}, "web_search"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
    ],
)
def test_what_no_chat_can_say_of_a_response_is_named(fields: Json, named: str) -> None:
    assert named in UNTRANSLATABLE_FIELDS[Endpoint.RESPONSES](fields.get)
    with pytest.raises(Untranslatable, match=named):
        translate_response(
            json.dumps(
                {
                    "model": "m",
                    "input": "a",
                    **fields,
                }
            ).encode(),
            "groq",
        )


@pytest.mark.parametrize(("enabled", "named"), [(True, True), (False, False)])
def test_citations_that_a_chat_cannot_give_are_named(*, enabled: bool, named: bool) -> None:
    source = {"type": "text", "media_type": "text/plain", "data": "The sky is red."}
    cited = {"type": "document", "source": source, "citations": {"enabled": enabled}}
    message = {"role": "user", "content": [cited, TEXT]}

    translated = translate_message(message_body(message), "custom")

    assert ("citations" in translated.dropped) is named
