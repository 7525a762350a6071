import contextlib
import json
from dataclasses import replace
from itertools import product, zip_longest
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.providers.models.capabilities import Endpoint, OptionalFeature, StrictSchema
from harness.providers.target import Provider, Target
from router.conversation.chat_history import move_chat
from router.conversation.intake import INTAKES
from router.conversation.native_histories import move_message, move_response
from router.frame.body import CHAT_PATH, read_request
from router.frame.failure import Untranslatable, UpstreamFailed
from router.frame.json_spans import ParsedObject, parse_object
from router.protocols.answers import TokenUsage
from router.protocols.chat.answer_reader import ChatStreamReader
from router.protocols.messages.answer_writer import MessageEventWriter
from router.protocols.messages.dialect import MessagesStream
from router.protocols.provider_refusals import Piece
from router.protocols.responses.dialect import ResponsesStream
from router.request.needs import remove_fields
from router.request.needs import used_features as hints_of
from router.upstream.endpoint_translation import (
    TRANSLATIONS,
    UNTRANSLATABLE_FIELDS,
    translate_message,
    translate_response,
)
from router.upstream.refused_pieces import without_piece
from router.upstream.transport import UpstreamRequest
from tests.support.providers.scripted_upstream import DONE
from tests.wire import chats
from tests.wire.server import Json, Reply
from tests.wire.tool_clients import accumulated

TEXTS = st.text(min_size=1, max_size=12)
ARGUMENTS = st.dictionaries(TEXTS, st.one_of(TEXTS, st.integers(-9, 9), st.none()), max_size=3)
NAMES = st.sampled_from(["f", "weather", "look_up"])


REPLIES = st.builds(
    Reply,
    text=st.just("") | TEXTS,
    reasoning=st.just("") | TEXTS,
    calls=st.lists(st.tuples(NAMES, ARGUMENTS), max_size=3).map(tuple),
    usage=st.just(chats.USAGE),
)
ANSWERS = REPLIES.map(
    lambda reply: chats.whole(replace(reply, stop="tools" if reply.calls else "end"))
)
Said = list[tuple[Any, ...]]


def message_of(answer: Json) -> Json:
    message: Json = answer["choices"][0]["message"]
    return message


def as_stream(answer: Json, *, mixed: bool) -> bytes:
    """Writes an answer as a stream.

    Args:
        mixed: pieces of several calls in turns.
    """
    message = message_of(answer)
    deltas: list[Json] = [{"role": "assistant", "content": ""}]
    for name in ("reasoning_content", "content"):
        deltas += [{name: piece} for piece in message.get(name) or ""]
    calls = []
    for index, call in enumerate(message.get("tool_calls", ())):
        function = call["function"]
        begun = {
            "index": index,
            "id": call["id"],
            "function": {**function, "arguments": ""},
        }
        rest = [{"index": index, "function": {"arguments": c}} for c in function["arguments"]]
        calls.append([begun, *rest])
    turns = zip_longest(*calls) if mixed else calls
    deltas += [{"tool_calls": [piece]} for turn in turns for piece in turn if piece]
    (choice,) = answer["choices"]
    ends = [
        {
            "index": 0,
            "delta": {},
            "finish_reason": choice["finish_reason"],
        }
    ]
    chunks: list[Json] = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    chunks += [{"choices": ends}, {"choices": [], "usage": answer["usage"]}]
    head = {name: answer[name] for name in ("id", "created", "model")}
    lines = [f"data: {json.dumps(head | chunk)}\n\n".encode() for chunk in chunks]
    return b"".join([*lines, DONE])


def as_whole(answer: Json) -> ParsedObject:
    return parse_object(json.dumps(answer).encode())


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places})
    return [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True)]


def plain(answer: Json) -> Said:
    message = message_of(answer)
    found: Said = []
    if message.get("reasoning_content"):
        found.append(("thinking", message["reasoning_content"]))
    if message["content"]:
        found.append(("text", message["content"]))
    for call in message.get("tool_calls", []):
        function = call["function"]
        found.append(
            (
                "tool_use",
                call["id"],
                function["name"],
                json.loads(function["arguments"]),
            )
        )
    return found


def blocks(message: Json) -> Said:
    found: Said = []
    for item in message["content"]:
        match item["type"]:
            case "tool_use":
                found.append(
                    (
                        "tool_use",
                        item["id"],
                        item["name"],
                        item["input"],
                    )
                )
            case kind:
                found.append((kind, item[kind]))
    return found


@given(
    answer=ANSWERS,
    mixed=st.booleans(),
    places=st.lists(st.integers(0, 10**6), max_size=8),
)
def test_streamed_messages_say_what_the_chat_said_however_it_is_cut(
    *,
    answer: Json,
    mixed: bool,
    places: list[int],
) -> None:
    events = ChatStreamReader(MessageEventWriter(), thinking=True)
    out = b"".join(
        [events.feed(piece) for piece in cut(as_stream(answer, mixed=mixed), places)]
    )
    out += events.end()

    final = accumulated(out).model_dump()
    assert blocks(final) == plain(answer)
    assert final["stop_reason"] == (
        "tool_use" if message_of(answer).get("tool_calls") else "end_turn"
    )
    # The router's own filter takes it for whole.
    filter_ = MessagesStream(None)
    filter_.silence = True
    filter_.feed(out)
    assert filter_.finished
    assert filter_.usage is None
    assert filter_.used() == TokenUsage(20, 9, 8)


def response_of(events: bytes) -> tuple[list[str], Json]:
    """The kinds of events, and the response that the last one carries.

    Checks what the official clients and others need: numbers in order, each item opened before
    its pieces and closed after them, and pieces that add up to what the end says.
    """
    kinds: list[str] = []
    pieces: dict[str, str] = {}
    opened: list[str] = []
    data: Json = {}
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
    answer=ANSWERS,
    mixed=st.booleans(),
    places=st.lists(st.integers(0, 10**6), max_size=8),
)
def test_streamed_responses_say_what_the_chat_said_however_it_is_cut(
    *,
    answer: Json,
    mixed: bool,
    places: list[int],
) -> None:
    asked = b'{"model":"m","input":"a","reasoning":{"summary":"auto"}}'
    translated = translate_response(asked, "custom")
    events = translated.events()
    out = b"".join(
        [events.feed(piece) for piece in cut(as_stream(answer, mixed=mixed), places)]
    )
    out += events.end()

    kinds, final = response_of(out)
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    assert items(final) == plain(answer)
    assert json.loads(translated.whole(as_whole(answer))) == final
    filter_ = ResponsesStream(None)
    filter_.silence = True
    filter_.feed(out)
    assert filter_.finished
    assert filter_.usage == TokenUsage(20, 9, 8)


def items(response: Json) -> Said:
    found: Said = []
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


@given(answer=ANSWERS)
def test_a_whole_message_says_what_the_chat_said(answer: Json) -> None:
    thinking = b'{"model":"m","messages":[],"thinking":{"type":"adaptive"}}'
    translated = json.loads(translate_message(thinking, "custom").whole(as_whole(answer)))

    assert blocks(translated) == plain(answer)
    assert translated["usage"]["input_tokens"] == 12


@given(answer=ANSWERS)
def test_a_message_sent_back_is_what_the_chat_had_said(answer: Json) -> None:
    """The next turn: the client repeats the answer, and the provider knows it again."""
    asked = b'{"model":"m","messages":[]}'
    content = json.loads(translate_message(asked, "custom").whole(as_whole(answer)))["content"]
    again = {
        "model": "m",
        "messages": [{"role": "assistant", "content": content}],
    }

    (turn,) = json.loads(translate_message(json.dumps(again).encode(), "custom").body)[
        "messages"
    ]
    assert (turn["content"] or None) == message_of(answer)["content"]
    assert [json.loads(c["function"]["arguments"]) for c in turn.get("tool_calls", [])] == [
        json.loads(c["function"]["arguments"]) for c in message_of(answer).get("tool_calls", [])
    ]


@pytest.mark.parametrize("arguments", ["{", "[1]", "NaN"])
def test_arguments_that_are_no_object_are_a_malformed_answer(arguments: str) -> None:
    answer = chats.whole(Reply(calls=(("f", {}),), stop="tools"))
    message_of(answer)["tool_calls"][0]["function"]["arguments"] = arguments
    with pytest.raises(UpstreamFailed, match="arguments"):
        translate_message(b'{"messages":[]}', "custom").whole(as_whole(answer))


WORDS = st.sampled_from(
    """assistant user tool system developer text thinking tool_use tool_result image document
    base64 url custom function auto enabled json_schema message function_call reasoning
    function_call_output input_text input_image input_file refusal length stop""".split()  # noqa: SIM905 - words
)
FIELDS = st.sampled_from(
    """messages content role type text source data media_type input name id tool_use_id
    is_error tools input_schema tool_choice thinking budget_tokens system stop_sequences
    signature function output_config format schema effort max_tokens input instructions
    call_id arguments output reasoning summary include cache_control image_url file_data choices
    message delta index tool_calls finish_reason stop_reason usage prompt_tokens
    completion_tokens_details created reasoning_content refusal error
    metadata parallel_tool_calls""".split()  # noqa: SIM905 - words
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1, 3)
    | st.floats(allow_nan=False, allow_infinity=False)
    | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=4),
    max_leaves=25,
)
BODIES = st.dictionaries(FIELDS, VALUES, max_size=6)
PROVIDER = Provider("p", "custom", "http://127.0.0.1:9/v1")
PIECES = list(Piece)
BRIDGED = pytest.mark.parametrize("endpoint", [Endpoint.MESSAGES, Endpoint.RESPONSES])


@BRIDGED
@given(body=BODIES, turns=st.none() | st.lists(BODIES, max_size=3))
def test_any_request(
    endpoint: Endpoint,
    body: dict[str, Any],
    turns: list[dict[str, Any]] | None,
) -> None:
    if turns is not None:
        body = {
            **body,
            "messages": turns,
            "input": turns,
        }
    text = json.dumps({"model": "m", **body}).encode()
    request = read_request(text, endpoint)
    UNTRANSLATABLE_FIELDS[endpoint](request.value)
    less = remove_fields(
        text,
        endpoint,
        hints_of(request, frozenset(OptionalFeature)),
        Target("p", "m"),
    )
    for intake in INTAKES.values():
        move_chat(text, intake)
    for path, refused in product((CHAT_PATH, "/messages", "/responses"), PIECES):
        without_piece(UpstreamRequest(PROVIDER, text, False, path=path), refused)  # noqa: FBT003 - no stream
    with contextlib.suppress(Untranslatable):
        move_response(text, "mine")
    for variant in (text, less, move_message(text, "").body):
        with contextlib.suppress(Untranslatable):
            assert (
                json.loads(
                    TRANSLATIONS[endpoint](variant, "custom", "mine", StrictSchema.UNKNOWN).body
                )["model"]
                == "m"
            )


@BRIDGED
@given(answers=st.lists(BODIES, min_size=1, max_size=4), choice=BODIES)
def test_any_answer(
    endpoint: Endpoint,
    answers: list[dict[str, Any]],
    choice: dict[str, Any],
) -> None:
    translated = TRANSLATIONS[endpoint](
        b'{"model":"m"}', "custom", "mine", StrictSchema.UNKNOWN
    )
    events = translated.events()
    for answer in (*answers, {**answers[0], "choices": [choice]}):
        with contextlib.suppress(UpstreamFailed):
            json.loads(translated.whole(parse_object(json.dumps(answer).encode())))
        with contextlib.suppress(UpstreamFailed):
            events.feed(f"data: {json.dumps(answer)}\n\n".encode())
    with contextlib.suppress(UpstreamFailed):
        events.feed(f"data: {json.dumps({'choices': [choice]})}\n\n".encode())
        events.end()
