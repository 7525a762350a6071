"""A chat that is asked by Responses: what its request becomes, and what its answer says."""

import json
from collections.abc import Sequence
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.conversation.intake import RESPONSE_FORMAT, mark_piece
from router.frame.failure import Untranslatable, UpstreamFailed
from router.frame.json_spans import parse_object
from router.protocols.chat.answer_reader import ChatStreamReader
from router.protocols.chat.stream import ChatStream
from router.protocols.messages.answer_writer import MessageEventWriter
from router.upstream.endpoint_translation import translate_chat, translate_message
from tests.wire import responses
from tests.wire.conversations import PIXEL
from tests.wire.server import Json, Reply, Usage

USER: Final[Json] = {"role": "user", "content": "hi"}
PICTURE: Final = f"data:image/png;base64,{PIXEL}"
PDF: Final = "data:application/pdf;base64,JVBERi0="
SCHEMA: Final = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL: Final[Json] = {
    "type": "function",
    "function": {"name": "weather", "description": "Looks.", "parameters": SCHEMA},
}
GRAMMAR: Final = {"syntax": "regex", "definition": "[a-z]+"}
CUSTOM: Final[Json] = {
    "type": "custom",
    "custom": {"name": "patch", "format": {"type": "grammar", "grammar": GRAMMAR}},
}


def asked(*messages: Json, thinking: bool = False, **more: Any) -> tuple[Json, Sequence[str]]:
    chat = {"model": "gpt-5.6", "messages": messages or (USER,), "tools": [TOOL], **more}
    made = translate_chat(json.dumps(chat).encode(), signs=True, thinking=thinking)
    body: Json = json.loads(made.body)
    responses.read(body, "openai")  # the strict provider takes it
    return body, made.dropped


def test_each_field_has_its_name_by_responses() -> None:
    form = {"name": "c", "schema": SCHEMA}
    body, dropped = asked(
        max_completion_tokens=200,
        reasoning_effort="high",
        verbosity="low",
        response_format={"type": "json_schema", "json_schema": form},
        parallel_tool_calls=False,
        temperature=0.5,
        top_p=0.9,
        user="u",
        metadata={"a": "b"},
        service_tier="flex",
        prompt_cache_key="k",
        stream=True,
        stream_options={"include_usage": True},
        seed=7,
        logprobs=True,
        presence_penalty=0.1,
        n=1,
        thinking=True,
    )

    assert body == {
        "model": "gpt-5.6",
        "input": [USER],
        "tools": [
            {
                "type": "function",
                "name": "weather",
                "description": "Looks.",
                "parameters": SCHEMA,
                "strict": False,
            }
        ],
        "max_output_tokens": 200,
        "reasoning": {"effort": "high", "summary": "auto"},
        "text": {
            "verbosity": "low",
            "format": {"type": "json_schema", **form, "strict": False},
        },
        "parallel_tool_calls": False,
        "temperature": 0.5,
        "top_p": 0.9,
        "user": "u",
        "metadata": {"a": "b"},
        "service_tier": "flex",
        "prompt_cache_key": "k",
        "stream": True,
        "store": False,
        "include": ["reasoning.encrypted_content"],
    }
    assert set(dropped) == {"endpoint.responses", "seed", "logprobs", "presence_penalty"}


def test_a_history_becomes_items_in_order() -> None:
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"city":"Lima"}'},
    }
    patch = {"id": "call_2", "type": "custom", "custom": {"name": "patch", "input": "abc"}}
    mine = {"type": "redacted_thinking", "data": "gAAAAABopenai", "format": RESPONSE_FORMAT}
    foreign = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
    content = [
        {"type": "text", "text": "Look"},
        {"type": "image_url", "image_url": {"url": PICTURE, "detail": "low"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": PDF}},
    ]
    body, dropped = asked(
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
        {"role": "user", "name": "ada", "content": content},
        {
            "role": "assistant",
            "content": "I look.",
            "tool_calls": [call, patch],
            "thinking_blocks": [foreign, mine],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "21 C"},
        {
            "role": "tool",
            "tool_call_id": "call_2",
            "content": [{"type": "text", "text": "done"}],
        },
        {"role": "assistant", "content": None, "refusal": "I cannot."},
        USER,
        tools=[TOOL, CUSTOM],
    )

    assert body["input"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": [{"type": "input_text", "text": "Be kind."}]},
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "Look"},
                {"type": "input_image", "image_url": PICTURE, "detail": "low"},
                {"type": "input_file", "filename": "a.pdf", "file_data": PDF},
            ],
        },
        {"type": "reasoning", "summary": [], "encrypted_content": "gAAAAABopenai"},
        {"role": "assistant", "content": "I look."},
        {
            "type": "function_call",
            "call_id": "call_1",
            "name": "weather",
            "arguments": '{"city":"Lima"}',
        },
        {"type": "custom_tool_call", "call_id": "call_2", "name": "patch", "input": "abc"},
        {"type": "function_call_output", "call_id": "call_1", "output": "21 C"},
        {
            "type": "custom_tool_call_output",
            "call_id": "call_2",
            "output": [{"type": "input_text", "text": "done"}],
        },
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "I cannot."}]},
        USER,
    ]
    assert body["tools"][1] == {
        "type": "custom",
        "name": "patch",
        "format": {"type": "grammar", **GRAMMAR},
    }
    assert "messages.name" in dropped


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("required", "required"),
        (
            {"type": "function", "function": {"name": "weather"}},
            {"type": "function", "name": "weather"},
        ),
        ({"type": "custom", "custom": {"name": "patch"}}, {"type": "custom", "name": "patch"}),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "required",
                    "tools": [{"type": "function", "function": {"name": "weather"}}],
                },
            },
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "function", "name": "weather"}],
            },
        ),
    ],
)
def test_a_choice_of_tools_has_its_form_by_responses(given: object, sent: object) -> None:
    body, _ = asked(tools=[TOOL, CUSTOM], tool_choice=given)
    assert body["tool_choice"] == sent


@pytest.mark.parametrize(
    "more",
    [
        {"n": 2},
        {"stop": ["END"]},
        {"audio": {"voice": "alloy"}, "modalities": ["text", "audio"]},
        {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
        {"messages": [{"role": "function", "name": "f", "content": "1"}]},
    ],
)
def test_a_chat_without_a_counterpart_is_not_translated(more: Json) -> None:
    chat = {"model": "m", "messages": [USER], "tools": [TOOL], **more}
    with pytest.raises(Untranslatable):
        translate_chat(json.dumps(chat).encode(), signs=True, thinking=False)


def answer_of(response: Json, *tools: Json) -> Json:
    chat = {"model": "m", "messages": [USER], "tools": [TOOL, *tools]}
    made = translate_chat(json.dumps(chat).encode(), signs=True, thinking=True)
    found: Json = json.loads(made.whole(parse_object(json.dumps(response).encode())))
    return found


def chunks_of(events: Sequence[bytes], cut: int = 7, *tools: Json) -> list[Json]:
    """Returns the chunks of a stream, each as the router's own filter takes it."""
    chat = {"model": "m", "messages": [USER], "tools": [TOOL, *tools], "stream": True}
    made = translate_chat(json.dumps(chat).encode(), signs=True, thinking=True)
    reader = made.events()
    raw = b"".join(events)
    out = b"".join(reader.feed(raw[at : at + cut]) for at in range(0, len(raw), cut))
    out += reader.end()
    if reader.failure is not None:
        raise reader.failure
    lines = [line.removeprefix(b"data: ") for line in out.split(b"\n\n") if line]
    return [json.loads(line) for line in lines if line != b"[DONE]"]


def joined(chunks: Sequence[Json]) -> Json:
    """Joins chunks as OpenAI's clients do."""
    message: Json = {"content": None, "refusal": None}
    finish = None
    usage = None
    calls: dict[int, Json] = {}
    for chunk in chunks:
        usage = chunk.get("usage") or usage
        for choice in chunk["choices"]:
            finish = choice["finish_reason"] or finish
            delta = choice["delta"]
            for name in ("content", "refusal", "reasoning_content"):
                if delta.get(name):
                    message[name] = (message.get(name) or "") + delta[name]
            message.setdefault("thinking_blocks", []).extend(delta.get("thinking_blocks", ()))
            for piece in delta.get("tool_calls", ()):
                kind = piece.get("type") or calls[piece["index"]]["type"]
                known = calls.setdefault(piece["index"], {**piece, kind: {}})
                for name, text in piece[kind].items():
                    known[kind][name] = known[kind].get(name, "") + text
    if calls:
        message["tool_calls"] = [
            {name: value for name, value in call.items() if name != "index"}
            for call in calls.values()
        ]
    if not message.get("thinking_blocks"):
        message.pop("thinking_blocks", None)
    return {"message": message, "finish": finish, "usage": usage}


WORDS: Final = st.text("ab \n{}é", max_size=12)
REPLIES: Final = st.builds(
    Reply,
    text=WORDS,
    reasoning=WORDS,
    calls=st.lists(
        st.tuples(
            st.sampled_from(["weather", "time"]), st.dictionaries(WORDS, WORDS, max_size=2)
        ),
        max_size=3,
    ).map(tuple),
    stop=st.sampled_from(["end", "length", "refusal"]),
    usage=st.just(Usage(30, 20, cached=10, reasoning=5)),
)


@given(REPLIES, st.integers(1, 200))
def test_a_streamed_answer_says_what_the_whole_answer_says(reply: Reply, cut: int) -> None:
    asked = {"model": "m", "include": ["reasoning.encrypted_content"], "store": False}
    response = responses.whole(reply, {**asked, "input": "hi"}, "openai")
    for item in response["output"]:
        if "encrypted_content" in item:  # the router below has marked it
            item["encrypted_content"] = mark_piece(item["encrypted_content"], "abcdefgh")
    whole = answer_of(response)
    (choice,) = whole["choices"]
    streamed = joined(chunks_of(responses.events(response), cut))

    message = {name: value for name, value in choice["message"].items() if name != "role"}
    assert streamed["message"] == message
    assert streamed["finish"] == choice["finish_reason"]
    assert streamed["usage"] == whole["usage"]
    assert (message["content"] or "") == reply.text
    assert message.get("reasoning_content", "") == reply.reasoning
    made = [call["function"] for call in message.get("tool_calls", ())]
    assert [(c["name"], json.loads(c["arguments"])) for c in made] == [*reply.calls]
    assert bool(message.get("thinking_blocks")) is bool(reply.reasoning)
    usual = "tool_calls" if reply.calls else "stop"
    reasons = {"end": usual, "length": "length", "refusal": "content_filter"}
    assert choice["finish_reason"] == reasons[reply.stop]


def event(kind: str, **members: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **members})}\n\n".encode()


def begun(**more: object) -> bytes:
    response = {"id": "resp_1", "model": "m", "created_at": 1, "status": "in_progress"}
    return event("response.created", response={**response, **more})


def ended(*output: Json) -> bytes:
    response = {"id": "resp_1", "model": "m", "status": "completed", "output": output}
    return event("response.completed", response=response)


def call(number: int, arguments: str) -> Json:
    return {
        "id": f"fc_{number}",
        "type": "function_call",
        "call_id": f"call_{number}",
        "name": "weather",
        "arguments": arguments,
    }


def test_calls_whose_events_are_mixed_or_missing_arrive_whole() -> None:
    """Gateways send the events of two calls in turns, or only their end."""
    kind = "response.function_call_arguments.delta"
    chunks = chunks_of(
        [
            begun(),
            event("response.output_item.added", output_index=0, item=call(0, "")),
            event("response.output_item.added", output_index=1, item=call(1, "")),
            event(kind, output_index=0, delta='{"a":'),
            event(kind, output_index=1, delta='{"b":2}'),
            event("response.output_item.done", output_index=1, item=call(1, '{"b":2}')),
            event(kind, output_index=0, delta="1"),
            event("response.output_item.done", output_index=0, item=call(0, '{"a":1}')),
            ended(call(0, '{"a":1}'), call(1, '{"b":2}'), call(2, "{}")),
        ]
    )

    made = joined(chunks)["message"]["tool_calls"]
    assert [(c["id"], c["function"]["arguments"]) for c in made] == [
        ("call_0", '{"a":1}'),
        ("call_1", '{"b":2}'),
        ("call_2", "{}"),
    ]


def said(*texts: str) -> Json:
    content = [{"type": "output_text", "text": text} for text in texts]
    return {"type": "message", "role": "assistant", "content": content}


def piece(place: int, part: int, text: str) -> bytes:
    kind = "response.output_text.delta"
    return event(kind, output_index=place, content_index=part, delta=text)


@pytest.mark.parametrize(
    ("events", "output"),
    [
        ([piece(0, 0, "Hel")], [said("Hello")]),
        ([piece(0, 0, "Hel"), piece(0, 0, "lo")], [said("Hello")]),
        ([piece(0, 0, "Hel")], [said("Hello", "there")]),
        ([piece(0, 0, "Hello"), piece(0, 1, "there")], [said("Hello", "there")]),
        ([], [said("Hello")]),
    ],
)
def test_a_text_whose_events_are_few_arrives_whole(
    events: list[bytes], output: list[Json]
) -> None:
    done = [
        event("response.output_item.done", output_index=at, item=item)
        for at, item in enumerate(output)
    ]
    for stream in ([begun(), *events, *done, ended()], [begun(), *events, ended(*output)]):
        heard = joined(chunks_of(stream))["message"]["content"]
        whole = "".join(part["text"] for item in output for part in item["content"])
        assert heard.replace("\n\n", "") == whole


def test_a_text_behind_a_call_without_an_end_is_not_lost() -> None:
    kind = "response.function_call_arguments.delta"
    stream = [
        begun(),
        event("response.output_item.added", output_index=0, item=call(0, "")),
        event(kind, output_index=0, delta="{}"),
        event("response.output_item.done", output_index=1, item=said("Later")),
        ended(),
    ]
    message = joined(chunks_of(stream))["message"]
    assert (message["content"], len(message["tool_calls"])) == ("Later", 1)


def test_a_custom_tools_text_stays_text() -> None:
    item = {
        "type": "custom_tool_call",
        "id": "ctc_1",
        "call_id": "call_1",
        "name": "patch",
        "input": "abc",
    }
    wanted = [{"id": "call_1", "type": "custom", "custom": {"name": "patch", "input": "abc"}}]
    response = {"id": "resp_1", "model": "m", "status": "completed", "output": [item]}
    streamed = [
        begun(),
        event("response.output_item.added", output_index=0, item={**item, "input": ""}),
        event("response.custom_tool_call_input.delta", output_index=0, delta="ab"),
        event("response.output_item.done", output_index=0, item=item),
        ended(item),
    ]

    whole = answer_of(response, CUSTOM)["choices"][0]["message"]
    assert whole["tool_calls"] == wanted
    assert joined(chunks_of(streamed, 9, CUSTOM))["message"]["tool_calls"] == wanted


@pytest.mark.parametrize(
    "last",
    [
        event(
            "response.failed",
            response={"status": "failed", "error": {"code": "server_error", "message": "no"}},
        ),
        event("error", code="server_error", message="no", param=None),
        event("error", error={"code": "server_error", "message": "no"}),
    ],
)
def test_a_failure_in_a_stream_is_an_error_of_the_chat(last: bytes) -> None:
    chunks = chunks_of([begun(), last])
    assert chunks[-1]["error"]["code"] == "server_error"
    assert "choices" not in chunks[-1]


def test_a_stream_that_breaks_off_has_no_end() -> None:
    chunks = chunks_of([begun(), piece(0, 0, "So")])
    heard = ChatStream("null", show_usage=True)
    heard.feed(b"".join(f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks))
    heard.end()
    assert heard.failure == "the stream ended without a finish_reason"


@pytest.mark.parametrize(
    "response",
    [
        {"error": {"code": "server_error", "message": "no"}},
        {"status": "completed"},
        {"status": "failed", "output": []},
        {"status": "completed", "output": [{"type": "function_call", "arguments": "{}"}]},
    ],
)
def test_an_answer_that_is_none_fails(response: Json) -> None:
    with pytest.raises(UpstreamFailed):
        answer_of(response)


def test_reasoning_without_a_summary_comes_back_from_a_message() -> None:
    """OpenAI sends no summary of short reasoning; the message's thinking is then empty."""
    sealed = mark_piece("gAAAAABopenai", "abcdefgh")
    item = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": sealed}
    done = event("response.output_item.done", output_index=0, item=item)
    chunks = chunks_of([begun(), done, ended(item, call(1, "{}"))])
    reader = ChatStreamReader(MessageEventWriter(), thinking=True)
    lines = [f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks]
    told = b"".join(reader.feed(line) for line in lines) + reader.end()
    (signature,) = [
        json.loads(line[6:])["delta"]["signature"]
        for line in told.split(b"\n")
        if b"signature_delta" in line and line.startswith(b"data: ")
    ]
    thought = {"type": "thinking", "thinking": "", "signature": signature}
    again = {
        "model": "m",
        "messages": [USER, {"role": "assistant", "content": [thought]}, USER],
    }

    chat = json.loads(translate_message(json.dumps(again).encode(), "openai").body)
    (block,) = chat["messages"][1]["thinking_blocks"]
    assert block == {"type": "redacted_thinking", "data": sealed, "format": RESPONSE_FORMAT}
