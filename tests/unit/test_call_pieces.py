import json
from typing import Any

import pytest

from harness.frame.failures import FailureClass
from harness.providers.models.capabilities import Endpoint
from router.frame.body import read_request
from router.frame.failure import UpstreamFailed
from router.frame.json_spans import parse_object
from router.protocols.answer_signals import AnswerSignals, read_signals
from router.protocols.answers import BROKEN_CALL
from router.protocols.endpoints import DIALECTS
from router.protocols.event_stream import StreamFilter
from router.protocols.transcript import build_transcript
from router.upstream.endpoint_translation import (
    translate_message,
    translate_response,
)

Piece = dict[str, Any]
Calls = list[tuple[str, str]]
ASKED_MESSAGE = b'{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"a"}]}'
ASKED_RESPONSE = b'{"model":"m","input":"a"}'


def piece(
    name: str | None,
    arguments: str,
    **more: Any,
) -> Piece:
    function = (
        {"arguments": arguments} if name is None else {"name": name, "arguments": arguments}
    )
    return {
        "type": "function",
        **more,
        "function": function,
    }


ONE: Calls = [("find_town", '{"town":"Oslo"}')]
TWO: Calls = [("find_town", '{"n":1}'), ("find_town", '{"n":2}')]
STREAMS: list[tuple[list[Piece], Calls]] = [
    # The name in every piece, or in the last, empty one as well.
    (
        [
            piece(
                "find_town",
                '{"town":',
                index=0,
                id="t",
            ),
            piece(
                "find_town",
                '"Oslo"}',
                index=0,
                id="t",
            ),
            piece(
                "find_town",
                "",
                index=0,
                id="t",
            ),
        ],
        ONE,
    ),
    # The name in two pieces.
    (
        [
            piece(
                "find_",
                "",
                index=0,
                id="t",
            ),
            piece("town", '{"town":"Oslo"}', index=0),
        ],
        ONE,
    ),
    # Another id with each piece.
    (
        [
            piece(
                "find_town",
                "",
                index=0,
                id="t1",
            ),
            piece(
                None,
                '{"town":',
                index=0,
                id="t2",
            ),
            piece(
                None,
                '"Oslo"}',
                index=0,
                id="t3",
            ),
        ],
        ONE,
    ),
    # Two calls in one index: by id, with the same id, without ids, and without an index.
    *(
        (
            [
                piece("find_town", '{"n":1}', **first),
                piece(name, '{"n":2}', **second),
            ],
            TWO,
        )
        for name, first, second in (
            ("find_town", {"index": 0, "id": "a"}, {"index": 0, "id": "b"}),
            ("find_town", {"index": 0, "id": "a"}, {"index": 0, "id": "a"}),
            ("find_town", {"id": ""}, {"id": ""}),
            ("", {"index": 0, "id": "a"}, {"index": 0}),
        )
    ),
    # An empty object stands for the arguments that come (LiteLLM, before Anthropic's), or for
    # none, beside a call with its own name or id.
    (
        [
            piece(
                "find_town",
                "{}",
                index=0,
                id="t",
            ),
            piece(None, '{"town":', index=0),
            piece(None, '"Oslo"}', index=0),
        ],
        ONE,
    ),
    *(
        (
            [
                piece(
                    "f",
                    "{}",
                    index=0,
                    id="a",
                ),
                piece(*second, index=index, id="b"),
            ],
            [("f", "{}"), second],
        )
        for second, index in ((("g", '{"n":1}'), 0), (("f", "{}"), 1))
    ),
    # Arguments in pieces of two calls by turns.
    (
        [
            piece(
                "find_town",
                '{"n"',
                index=0,
                id="a",
            ),
            piece(
                "find_town",
                '{"n"',
                index=1,
                id="b",
            ),
            piece(None, ":1}", index=0),
            piece(None, ":2}", index=1),
        ],
        TWO,
    ),
]


def chunks(pieces: list[Piece]) -> list[dict[str, Any]]:
    deltas = [{"index": 0, "delta": {"tool_calls": [given]}} for given in pieces]
    ended = {
        "index": 0,
        "delta": {},
        "finish_reason": "tool_calls",
    }
    return [{"id": "c", "choices": [choice]} for choice in (*deltas, ended)]


def sent(pieces: list[Piece]) -> bytes:
    events = (f"data: {json.dumps(chunk)}\n\n" for chunk in chunks(pieces))
    return "".join((*events, "data: [DONE]\n\n")).encode()


def written(out: bytes) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in out.split(b"\n") if line.startswith(b"data: ")]


def calls_of_message(out: bytes) -> tuple[Calls, list[str]]:
    names = []
    arguments = dict[int, str]()
    ids = []
    for event in written(out):
        block = event.get("content_block", {})
        if block.get("type") == "tool_use":
            names.append(block["name"])
            ids.append(block["id"])
            arguments[event["index"]] = ""
        if event["type"] == "content_block_delta":
            arguments[event["index"]] += event["delta"]["partial_json"]
    return list(zip(names, arguments.values(), strict=True)), ids


@pytest.mark.req("B8", "F2")
@pytest.mark.parametrize(("pieces", "calls"), STREAMS)
def test_guardrails_captures_and_both_translations_read_the_same_calls(
    pieces: list[Piece], calls: Calls
) -> None:
    signals = AnswerSignals(keeps=True)
    for chunk in chunks(pieces):
        read_signals(signals, chunk["choices"][0], "delta")
    assert [(call.name, call.arguments) for call in signals.calls] == calls

    kept_answer = build_transcript(
        "chat", '{"messages":[]}', sent(pieces).decode(), stream=True
    )
    kept = [call["function"] for call in kept_answer["answer"]["tool_calls"]]
    assert [(call["name"], call["arguments"]) for call in kept] == calls

    message = translate_message(ASKED_MESSAGE, "custom").events()
    found, ids = calls_of_message(message.feed(sent(pieces)))
    assert found == calls
    assert len(set(ids)) == len(ids)
    assert all(ids)

    response = translate_response(ASKED_RESPONSE, "custom").events()
    (final,) = [
        event["response"]
        for event in written(response.feed(sent(pieces)))
        if event["type"] == "response.completed"
    ]
    assert [(item["name"], item["arguments"]) for item in final["output"]] == calls


@pytest.mark.req("B8")
def test_arguments_that_are_cut_never_end_well() -> None:
    cut = [
        piece(
            "find_town",
            '{"town":',
            index=0,
            id="t",
        )
    ]

    for translate, request in (
        (translate_message, ASKED_MESSAGE),
        (translate_response, ASKED_RESPONSE),
    ):
        events = translate(request, "custom").events()
        out = events.feed(sent(cut))

        assert events.failure is not None
        assert events.failure.detail == "a tool call whose arguments are not a JSON object"
        assert b"message_stop" not in out
        assert b"response.completed" not in out


def passed(endpoint: Endpoint, events: list[dict[str, Any]]) -> StreamFilter:
    request = read_request(b'{"model":"m","stream":true}', endpoint)
    stream = DIALECTS[endpoint].stream(request, None)
    for data in events:
        stream.feed(b"data: " + json.dumps(data).encode() + b"\n\n")
    return stream


@pytest.mark.req("B8")
@pytest.mark.parametrize(("pieces", "calls"), STREAMS)
def test_calls_that_are_passed_on_are_told_apart_by_their_index(
    pieces: list[Piece], calls: Calls
) -> None:
    request = read_request(b'{"model":"m","stream":true}', Endpoint.CHAT)
    stream = DIALECTS[Endpoint.CHAT].stream(request, None)
    out = stream.feed(sent(pieces))
    assert (stream.failure, stream.ended) == ("", True)

    # As a client joins them that knows of indexes alone.
    joined: dict[int, dict[str, str]] = {}
    for event in written(out.removesuffix(b"data: [DONE]\n\n")):
        for call in event["choices"][0]["delta"].get("tool_calls", ()):
            place = joined.setdefault(
                call["index"],
                {
                    "id": "",
                    "name": "",
                    "arguments": "",
                },
            )
            place["id"] += call.get("id") or ""
            for name, value in call["function"].items():
                place[name] += value or ""
    assert [(call["name"], call["arguments"]) for call in joined.values()] == calls
    assert list(joined) == list(range(len(calls)))
    assert len({call["id"] for call in joined.values()} - {""}) == len(calls)


CALL = {
    "type": "function_call",
    "name": "find_town",
    "call_id": "c",
    "arguments": '{"n":1',
}
TEXT = {"type": "message", "content": [{"type": "output_text", "text": "a"}]}


def broken_streams(*, cut: bool) -> list[tuple[Endpoint, list[dict[str, Any]]]]:
    ended, stopped = ("length", "max_tokens") if cut else ("tool_calls", "tool_use")
    chats = chunks(
        [
            piece(
                "find_town",
                '{"n":1',
                index=0,
                id="t",
            )
        ]
    )
    chats[-1]["choices"][0]["finish_reason"] = ended
    block = {
        "type": "tool_use",
        "id": "t",
        "name": "find_town",
        "input": {},
    }
    response: dict[str, Any] = {
        "status": "completed",
        "output": [TEXT, CALL],
    }
    if cut:
        response |= {
            "status": "incomplete",
            "incomplete_details": {"reason": "max_output_tokens"},
        }
    return [
        (Endpoint.CHAT, chats),
        (
            Endpoint.MESSAGES,
            [
                {
                    "type": "content_block_start",
                    "index": 0,
                    "content_block": block,
                },
                {
                    "type": "content_block_delta",
                    "index": 0,
                    "delta": {
                        "type": "input_json_delta",
                        "partial_json": '{"n":1',
                    },
                },
                {"type": "message_delta", "delta": {"stop_reason": stopped}},
            ],
        ),
        (
            Endpoint.RESPONSES,
            [
                {
                    "type": f"response.{response['status']}",
                    "response": response,
                }
            ],
        ),
    ]


@pytest.mark.req("B8")
@pytest.mark.parametrize("place", range(3), ids=["chat", "messages", "responses"])
def test_broken_arguments_that_are_passed_on_fail_but_for_what_a_limit_has_cut(
    place: int,
) -> None:
    endpoint, events = broken_streams(cut=False)[place]
    stream = passed(endpoint, events)
    assert (stream.failure, stream.failure_class) == (
        BROKEN_CALL,
        FailureClass.MALFORMED,
    )

    assert not passed(*broken_streams(cut=True)[place]).failure


@pytest.mark.req("B8")
@pytest.mark.parametrize("endpoint", [Endpoint.CHAT, Endpoint.RESPONSES])
def test_so_they_do_in_a_plain_answer(endpoint: Endpoint) -> None:
    called = {
        "content": "a",
        "tool_calls": [piece("find_town", '{"n":1', id="t")],
    }
    body: dict[str, Any] = {
        "choices": [{"message": called, "finish_reason": "tool_calls"}],
        "status": "completed",
        "output": [TEXT, CALL],
    }
    with pytest.raises(UpstreamFailed, match="not a JSON object"):
        DIALECTS[endpoint].checked(parse_object(json.dumps(body).encode()))


@pytest.mark.req("B8")
def test_events_without_data_or_of_a_filter_are_no_chunks() -> None:
    events = translate_message(ASKED_MESSAGE, "custom").events()
    filter_ = b'data: {"id":"","model":"","choices":[],"prompt_filter_results":[]}\n\n'
    words = b'data: {"id":"c9","choices":[{"index":0,"delta":{"content":"a"}}]}\r\n\r\n'

    out = events.feed(b"data:\n\n" + filter_ + b"retry: 9\n\n" + words)

    assert events.failure is None
    assert written(out)[0]["message"]["id"] == "msg_c9"


@pytest.mark.req("B8")
def test_an_answer_without_an_id_has_one_of_its_own() -> None:
    def own_id() -> str:
        events = translate_message(ASKED_MESSAGE, "custom").events()
        found = written(events.feed(b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'))
        return str(found[0]["message"]["id"])

    assert own_id() != own_id()
    assert len(own_id()) > len("msg_")
