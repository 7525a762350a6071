"""What a chat's answer says arrives in the other protocols, however the bytes are cut."""

import json
from typing import Any

import pytest
from anthropic.lib.streaming._messages import accumulate_event
from hypothesis import given
from hypothesis import strategies as st

from router.frame.failure import UpstreamFailed
from router.frame.json_spans import parse_object
from router.protocols.chat.stream_reader import ChatStreamReader
from router.protocols.messages.answer_writer import MessageEventWriter
from router.protocols.messages.stream import MessagesStream
from router.protocols.responses.stream import ResponsesStream
from router.protocols.usage import TokenUsage
from router.upstream.endpoint_translation import translate_message, translate_response
from tests.support.providers import strict_chat

TEXTS = st.text(min_size=1, max_size=12)
ARGUMENTS = st.dictionaries(TEXTS, st.one_of(TEXTS, st.integers(-9, 9), st.none()), max_size=3)
NAMES = st.sampled_from(["f", "weather", "look_up"])


@st.composite
def draw_message(draw: Any) -> dict[str, Any]:
    """A chat's message: text, thoughts, calls."""
    calls = draw(st.lists(st.tuples(NAMES, ARGUMENTS), max_size=3))
    message: dict[str, Any] = {"role": "assistant", "content": draw(st.none() | TEXTS)}
    thoughts = draw(st.none() | TEXTS)
    if thoughts:
        message["reasoning_content"] = thoughts
    if calls:
        message["tool_calls"] = [
            {
                "id": f"call_{number}",
                "type": "function",
                "function": {"name": name, "arguments": json.dumps(arguments)},
            }
            for number, (name, arguments) in enumerate(calls)
        ]
    return message


def deltas(message: dict[str, Any], *, mixed: bool) -> list[dict[str, Any]]:
    """mixed: pieces of several calls in turns."""
    found: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    for name in ("reasoning_content", "content"):
        found += [{name: piece} for piece in message.get(name) or ""]
    calls = message.get("tool_calls", [])
    begun, rest = [], []
    for index, call in enumerate(calls):
        function = call["function"]
        begun.append(
            {"index": index, "id": call["id"], "function": {**function, "arguments": ""}}
        )
        rest.append(
            [{"index": index, "function": {"arguments": c}} for c in function["arguments"]]
        )
    if mixed:
        longest = max((len(call) for call in rest), default=0)
        turns = [call[n] for n in range(longest) for call in rest if n < len(call)]
        ordered = [*begun, *turns]
    else:
        ordered = [call for b, r in zip(begun, rest, strict=True) for call in (b, *r)]
    return [*found, *({"tool_calls": [call]} for call in ordered)]


def as_stream(message: dict[str, Any], *, mixed: bool) -> bytes:
    events = [
        strict_chat.chunk([{"index": 0, "delta": delta, "finish_reason": None}])
        for delta in deltas(message, mixed=mixed)
    ]
    last = strict_chat.chunk([{"index": 0, "delta": {}, "finish_reason": finish(message)}])
    counted = strict_chat.chunk([], strict_chat.USAGE)
    return b"".join([*events, last, counted, b"data: [DONE]\n\n"])


def finish(message: dict[str, Any]) -> str:
    return "tool_calls" if message.get("tool_calls") else "stop"


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places})
    return [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True)]


def accumulated(events: bytes) -> Any:
    """As the official client puts a stream together."""
    snapshot: Any = None
    bufs: dict[int, bytes] = {}
    for part in events.decode().split("\n\n"):
        if part:
            data = json.loads(part.partition("data: ")[2])
            snapshot = accumulate_event(event=data, current_snapshot=snapshot, json_bufs=bufs)
    return snapshot


def plain(message: dict[str, Any]) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    if message.get("reasoning_content"):
        found.append(("thinking", message["reasoning_content"]))
    if message["content"]:
        found.append(("text", message["content"]))
    for call in message.get("tool_calls", []):
        function = call["function"]
        found.append(
            ("tool_use", call["id"], function["name"], json.loads(function["arguments"]))
        )
    return found


def blocks(message: dict[str, Any]) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    for item in message["content"]:
        match item["type"]:
            case "tool_use":
                found.append(("tool_use", item["id"], item["name"], item["input"]))
            case kind:
                found.append((kind, item[kind]))
    return found


@given(
    message=draw_message(),
    mixed=st.booleans(),
    places=st.lists(st.integers(0, 10**6), max_size=8),
)
def test_streamed_messages_say_what_the_chat_said_however_it_is_cut(
    *, message: dict[str, Any], mixed: bool, places: list[int]
) -> None:
    events = ChatStreamReader(MessageEventWriter(), thinking=True)
    out = b"".join(
        [events.feed(piece) for piece in cut(as_stream(message, mixed=mixed), places)]
    )
    out += events.end()

    final = accumulated(out).model_dump()
    assert blocks(final) == plain(message)
    assert final["stop_reason"] == ("tool_use" if message.get("tool_calls") else "end_turn")
    # The router's own filter takes it for whole.
    filter_ = MessagesStream(None)
    filter_.silence = True
    filter_.feed(out)
    assert filter_.finished
    assert filter_.usage is None
    assert filter_.used() == TokenUsage(20, 9, 8)


def response_of(events: bytes) -> tuple[list[str], dict[str, Any]]:
    """The kinds of events, and the response that the last one carries.

    Checks what the official clients and others need: numbers in order, each item opened before
    its pieces and closed after them, and pieces that add up to what the end says.
    """
    kinds: list[str] = []
    pieces: dict[str, str] = {}
    opened: list[str] = []
    data: dict[str, Any] = {}
    for number, part in enumerate(events.decode().split("\n\n")[:-1]):
        data = json.loads(part.partition("data: ")[2])
        kinds.append(data["type"])
        assert data["sequence_number"] == number
        if data["type"] == "response.output_item.added":
            assert data["output_index"] == len(opened)
            opened.append(data["item"]["id"])
        elif "item_id" in data:
            assert data["item_id"] == opened[-1]
        if data["type"].endswith(".delta"):
            pieces[opened[-1]] = pieces.get(opened[-1], "") + data["delta"]
    for item in data["response"]["output"]:
        whole = item.get("arguments") or (item.get("content") or item.get("summary"))[0]["text"]
        assert pieces.get(item["id"], "{}") == whole
    assert [item["id"] for item in data["response"]["output"]] == opened
    return kinds, data["response"]


@given(
    message=draw_message(),
    mixed=st.booleans(),
    places=st.lists(st.integers(0, 10**6), max_size=8),
)
def test_streamed_responses_say_what_the_chat_said_however_it_is_cut(
    *, message: dict[str, Any], mixed: bool, places: list[int]
) -> None:
    asked = b'{"model":"m","input":"a","reasoning":{"summary":"auto"}}'
    translated = translate_response(asked, "custom")
    events = translated.events()
    out = b"".join(
        [events.feed(piece) for piece in cut(as_stream(message, mixed=mixed), places)]
    )
    out += events.end()

    kinds, final = response_of(out)
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    assert items(final) == plain(message)
    (answer,) = strict_chat.whole(message, finish(message)).steps
    assert isinstance(answer, bytes)
    assert json.loads(translated.whole(parse_object(answer))) == final
    filter_ = ResponsesStream(None)
    filter_.silence = True
    filter_.feed(out)
    assert filter_.finished
    assert filter_.usage == TokenUsage(20, 9, 8)


def items(response: dict[str, Any]) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    for item in response["output"]:
        match item["type"]:
            case "function_call":
                arguments = json.loads(item["arguments"])
                found.append(("tool_use", item["call_id"], item["name"], arguments))
            case "reasoning":
                found.append(("thinking", item["summary"][0]["text"]))
            case _:
                found.append(("text", item["content"][0]["text"]))
    return found


@given(message=draw_message())
def test_a_whole_message_says_what_the_chat_said(message: dict[str, Any]) -> None:
    (answer,) = strict_chat.whole(message, finish(message)).steps
    assert isinstance(answer, bytes)
    thinking = b'{"model":"m","messages":[],"thinking":{"type":"adaptive"}}'
    translated = json.loads(translate_message(thinking, "custom").whole(parse_object(answer)))

    assert blocks(translated) == plain(message)
    assert translated["usage"]["input_tokens"] == 12


@given(message=draw_message())
def test_a_message_sent_back_is_what_the_chat_had_said(message: dict[str, Any]) -> None:
    """The next turn: the client repeats the answer, and the provider knows it again."""
    (answer,) = strict_chat.whole(message, finish(message)).steps
    assert isinstance(answer, bytes)
    asked = b'{"model":"m","messages":[]}'
    content = json.loads(translate_message(asked, "custom").whole(parse_object(answer)))[
        "content"
    ]
    again = {"model": "m", "messages": [{"role": "assistant", "content": content}]}

    (turn,) = json.loads(translate_message(json.dumps(again).encode(), "custom").body)[
        "messages"
    ]
    assert (turn["content"] or None) == message["content"]
    assert [json.loads(c["function"]["arguments"]) for c in turn.get("tool_calls", [])] == [
        json.loads(c["function"]["arguments"]) for c in message.get("tool_calls", [])
    ]


def test_thinking_that_nobody_asked_for_is_not_shown() -> None:
    events = ChatStreamReader(MessageEventWriter(), thinking=False)
    message = {"content": "a", "reasoning_content": "b"}
    out = events.feed(as_stream(message, mixed=False))
    assert b"thinking" not in out


def test_calls_of_providers_that_number_them_all_alike_are_told_apart() -> None:
    events = ChatStreamReader(MessageEventWriter(), thinking=False)
    calls = [
        {"index": 0, "id": i, "function": {"name": "f", "arguments": "{}"}} for i in ("a", "b")
    ]
    stream = b"".join(
        strict_chat.chunk([{"index": 0, "delta": {"tool_calls": [c]}, "finish_reason": None}])
        for c in calls
    )
    end = strict_chat.chunk([{"index": 0, "delta": {}, "finish_reason": "stop"}])
    final = accumulated(events.feed(stream + end) + events.end())
    assert [(use.id, use.name) for use in final.content] == [("a", "f"), ("b", "f")]
    assert final.stop_reason == "tool_use"


@pytest.mark.parametrize("arguments", ["{", "[1]", "NaN"])
def test_arguments_that_are_no_object_are_a_malformed_answer(arguments: str) -> None:
    function = {"name": "f", "arguments": arguments}
    message = {"content": None, "tool_calls": [{"id": "a", "function": function}]}
    (answer,) = strict_chat.whole(message, "tool_calls").steps
    assert isinstance(answer, bytes)
    with pytest.raises(UpstreamFailed, match="arguments"):
        translate_message(b'{"messages":[]}', "custom").whole(parse_object(answer))
