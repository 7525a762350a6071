"""Pieces of calls in streams: Google's pieces by path, and names with a template's tokens."""

import json
from typing import Any

import pytest

from harness.providers.models.capabilities import Endpoint
from router.conversation.intake import AnswerIds, clean_name
from router.frame.body import read_request
from router.frame.failure import UpstreamFailed
from router.protocols.chat.dialect import CHAT
from router.upstream.translate.gemini_calls import GeminiCalls

pytestmark = pytest.mark.req("A8")
Json = dict[str, Any]


def event(call: Json, **more: object) -> Json:
    return {"candidates": [{"content": {"parts": [{"functionCall": call, **more}]}}]}


def parts(joined: Json) -> list[Json]:
    found: list[Json] = joined["candidates"][0]["content"]["parts"]
    return found


def piece(path: str, **value: object) -> Json:
    return event({"partialArgs": [{"jsonPath": path, **value}], "willContinue": True})


@pytest.mark.parametrize("content", ["null", '{"parts": [{"text": ""}]}'])
@pytest.mark.parametrize(("reason", "calls"), [("STOP", 1), ("MAX_TOKENS", 0)])
def test_a_call_without_a_last_piece_is_complete_at_the_answers_end(
    content: str, reason: str, calls: int
) -> None:
    joiner = GeminiCalls()
    joiner.join(event({"name": "f", "willContinue": True}))
    joiner.join(piece("$.a", stringValue="b"))
    end = {"content": json.loads(content), "finishReason": reason}
    last: Json = {"candidates": [end]}
    joiner.join(last)

    given = last["candidates"][0]["content"] or {"parts": []}
    made = [part["functionCall"] for part in given["parts"] if "functionCall" in part]
    assert made == [{"name": "f", "args": {"a": "b"}}] * calls


def test_pieces_by_path_become_one_call_with_all_arguments() -> None:
    calls = GeminiCalls()
    events = [
        event({"name": "plan", "willContinue": True}, thoughtSignature="c2ln"),
        piece("$.days[1].place", stringValue="Os"),
        piece("$.days[1].place", stringValue="lo"),
        piece("$.days[0]['far away']", boolValue=False),
        piece("$.budget", numberValue=12.5),
        piece("$.note", nullValue=None),
        event({}),
    ]
    for sent in events:
        calls.join(sent)

    whole = {
        "name": "plan",
        "args": {
            "days": [{"far away": False}, {"place": "Oslo"}],
            "budget": 12.5,
            "note": None,
        },
    }
    assert [parts(sent) for sent in events[:-1]] == [[]] * 6
    assert parts(events[-1]) == [{"functionCall": whole, "thoughtSignature": "c2ln"}]


def test_a_call_without_a_last_piece_ends_with_the_next_call() -> None:
    calls = GeminiCalls()
    first = event({"name": "f", "willContinue": True})
    second = event({"name": "g", "args": {"a": 1}})
    calls.join(first)
    calls.join(second)

    assert [part["functionCall"]["name"] for part in parts(second)] == ["f", "g"]


def test_a_path_that_does_not_fit_makes_the_answer_malformed() -> None:
    calls = GeminiCalls()
    calls.join(event({"name": "f", "willContinue": True}))
    calls.join(piece("$.a", stringValue="x"))

    with pytest.raises(UpstreamFailed, match="path"):
        calls.join(piece("$.a.b", stringValue="y"))


@pytest.mark.parametrize(
    ("name", "clean"),
    [("json<|channel|>commentary", "json"), ("json", "json"), ("<|call|>", "<|call|>")],
)
def test_a_tools_name_loses_a_templates_token(name: str, clean: str) -> None:
    call: Json = {"id": "c", "type": "function", "function": {"name": name, "arguments": "{}"}}

    changed = AnswerIds("").mend_call(call, 0)

    assert clean_name(name) == call["function"]["name"] == clean
    assert changed is ("<|" in name)


def test_a_client_gets_calls_without_an_index_in_order_and_complete() -> None:
    deltas = [
        [
            {"id": "a", "function": {"name": "f<|channel|>x", "arguments": '{"a":'}},
            {"id": "b", "function": {"name": "g", "arguments": '{"b":'}},
        ],
        [
            {"index": 1, "function": {"arguments": "2}"}},
            {"index": 0, "function": {"arguments": "1}"}},
        ],
    ]
    chunks: list[Json] = [
        {"id": "1", "choices": [{"index": 0, "delta": {"tool_calls": calls}}]}
        for calls in deltas
    ]
    chunks.append({"id": "1", "choices": [{"index": 0, "finish_reason": "tool_calls"}]})
    data = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    request = read_request(b'{"model": "m", "messages": []}', Endpoint.CHAT)

    stream = CHAT.stream(request, None)
    sent = stream.feed(data.encode()) + stream.end()

    joined: dict[int, list[str]] = {}
    for line in sent.decode().splitlines():
        if line.startswith("data: {"):
            choice = json.loads(line[6:])["choices"][0]
            for call in choice.get("delta", {}).get("tool_calls", ()):
                function = call["function"]
                pieces = joined.setdefault(call["index"], [])
                pieces += [function.get("name", ""), function.get("arguments", "")]
    assert not stream.failure
    assert {n: "".join(p) for n, p in joined.items()} == {0: 'f{"a":1}', 1: 'g{"b":2}'}
