import json
from pathlib import Path
from typing import Any, Final

import pytest

from harness.frame.failures import FailureClass
from harness.providers.models.capabilities import Endpoint
from router.frame.body import read_request
from router.frame.failure import UpstreamFailed
from router.frame.json_spans import parse_object
from router.protocols.answers import (
    ENDS,
    AnswerEnding,
    ending_failure,
    read_ending,
)
from router.protocols.chat.stream import ChatStream
from router.protocols.endpoints import DIALECTS
from router.protocols.event_stream import Irregularity, StreamFilter
from router.protocols.messages.dialect import MessagesStream
from router.protocols.responses.dialect import ResponsesStream
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import completion, event
from tests.support.router.asgi_router import ASK, Place
from tests.support.router.live_router import FALLBACK, INCUMBENT

F = FailureClass
E = AnswerEnding
STREAM = ASK[:-1] + b',"stream":true}'


def whole(
    endpoint: Endpoint,
    said: str,
    reason: str,
) -> dict[str, Any]:
    match endpoint:
        case Endpoint.MESSAGES:
            block = [{"type": "text", "text": said}] if said else []
            return {
                "type": "message",
                "content": block,
                "stop_reason": reason,
            }
        case Endpoint.RESPONSES:
            part = {"type": "output_text", "text": said}
            item = [{"type": "message", "content": [part]}] if said else []
            return {"status": reason, "output": item}
        case _:
            message = {"role": "assistant", "content": said}
            return {"choices": [{"message": message, "finish_reason": reason}]}


def build_turn(body: dict[str, Any]) -> ScriptedTurn:
    return ScriptedTurn(steps=(json.dumps(body).encode(),))


@pytest.mark.req("B3", "B8")
@pytest.mark.parametrize(
    ("reason", "ending"),
    [
        ("stop", E.GOOD),
        ("tool_use", E.GOOD),
        ("length", E.CUT),
        ("model_length", E.CUT),
        ("MAX_TOKENS", E.CUT),
        ("SAFETY", E.REFUSED),
        ("content_filter", E.REFUSED),
        ("insufficient_system_resource", E.FAILED),
        ("abort", E.FAILED),
        ("function_call_filter: MALFORMED_FUNCTION_CALL", E.FAILED),
        ("content_filter: PROHIBITED_CONTENT", E.REFUSED),
        ("a word of tomorrow", E.UNKNOWN),
        (None, E.UNKNOWN),
    ],
)
def test_a_reason_to_end_means_what_the_table_says(
    reason: object, ending: AnswerEnding
) -> None:
    assert read_ending(reason) is ending


def test_a_word_means_the_same_at_every_provider_that_has_it() -> None:
    words = [word for table in ENDS.values() for word in table]

    assert len(words) == len(set(words))
    assert all(word == word.lower() for word in words)


@pytest.mark.req("B3", "B8")
@pytest.mark.parametrize(
    ("reason", "has_output", "failure"),
    [
        ("stop", True, None),
        ("stop", False, F.EMPTY),
        ("of tomorrow", True, None),
        ("of tomorrow", False, F.ABORTED),
        # A model that thought until the limit, and a filter, said what there is to say.
        ("length", False, None),
        ("SAFETY", False, None),
        ("error", True, F.ABORTED),
        ("insufficient_system_resource", True, F.ABORTED),
    ],
)
def test_an_end_is_a_failure_where_its_user_gets_nothing(
    reason: str,
    failure: FailureClass | None,
    *,
    has_output: bool,
) -> None:
    assert ending_failure(reason, has_output=has_output, silence=False) is failure


@pytest.mark.req("B3", "B8")
@pytest.mark.parametrize(
    ("endpoint", "reason"),
    [
        (Endpoint.CHAT, "stop"),
        (Endpoint.MESSAGES, "end_turn"),
        (Endpoint.RESPONSES, "completed"),
    ],
)
@pytest.mark.parametrize("said", ["", " \n"])
def test_a_whole_answer_that_says_nothing_or_thinks_alone_is_none_unless_silence_is_one(
    endpoint: Endpoint,
    reason: str,
    said: str,
) -> None:
    dialect = DIALECTS[endpoint]
    with pytest.raises(UpstreamFailed, match="without words"):
        dialect.checked(parse_object(json.dumps(THOUGHT[endpoint]).encode()))
    silent = parse_object(json.dumps(whole(endpoint, said, reason)).encode())

    with pytest.raises(UpstreamFailed, match="without words") as caught:
        dialect.checked(silent)
    assert caught.value.failure is F.EMPTY
    dialect.checked(silent, silence=True)
    dialect.checked(parse_object(json.dumps(whole(endpoint, "a", reason)).encode()))


def test_a_word_that_nothing_is_known_of_is_irregular() -> None:
    for endpoint in (Endpoint.CHAT, Endpoint.MESSAGES, Endpoint.RESPONSES):
        answer = parse_object(json.dumps(whole(endpoint, "a", "of tomorrow")).encode())

        DIALECTS[endpoint].checked(answer)
        assert DIALECTS[endpoint].irregularity(answer) is Irregularity.UNKNOWN_END


@pytest.mark.req("B3", "B8")
@pytest.mark.parametrize(
    "given",
    [
        build_turn(whole(Endpoint.CHAT, "", "stop")),
        build_turn(whole(Endpoint.CHAT, "half of it", "error")),
    ],
)
async def test_what_gives_its_user_nothing_is_answered_by_the_next_target_and_counts(
    tmp_path: Path, given: ScriptedTurn
) -> None:
    place = Place(tmp_path, {INCUMBENT: given, FALLBACK: completion()}, fallback=True)

    status, headers = await place.ask(times=10)

    assert (status, headers[b"x-swapproof-target"]) == (
        200,
        f"up/{FALLBACK}".encode(),
    )
    assert await place.state() == 2


THOUGHT: dict[Endpoint, dict[str, Any]] = {
    Endpoint.CHAT: whole(Endpoint.CHAT, " \n", "stop"),
    Endpoint.MESSAGES: {
        "type": "message",
        "content": [
            {
                "type": "thinking",
                "thinking": "hm",
                "signature": "s",
            }
        ],
        "stop_reason": "end_turn",
    },
    Endpoint.RESPONSES: {
        "status": "completed",
        "output": [{"type": "reasoning", "id": "r"}],
    },
}
THOUGHT[Endpoint.CHAT]["choices"][0]["message"]["reasoning_content"] = "hm"


@pytest.mark.req("B8")
def test_a_stream_of_thoughts_alone_or_that_its_provider_aborts_fails_at_its_end() -> None:
    block = {"type": "thinking", "thinking": ""}
    thought = {"type": "thinking_delta", "thinking": "hm"}
    streams: list[tuple[StreamFilter, list[tuple[str, dict[str, Any]]]]] = [
        (
            MessagesStream('"m"'),
            [
                ("message_start", {"message": {"usage": {}}}),
                (
                    "content_block_start",
                    {"index": 0, "content_block": block},
                ),
                ("content_block_delta", {"index": 0, "delta": thought}),
                ("message_delta", {"delta": {"stop_reason": "end_turn"}}),
            ],
        ),
        (
            ResponsesStream('"m"'),
            [
                ("response.reasoning_text.delta", {"delta": "hm"}),
                (
                    "response.completed",
                    {"response": THOUGHT[Endpoint.RESPONSES]},
                ),
            ],
        ),
    ]
    for stream, events in streams:
        for kind, fields in events:
            said = json.dumps({"type": kind, **fields})
            stream.feed(f"event: {kind}\ndata: {said}\n\n".encode())
        assert stream.failure_class is F.EMPTY

    for name, end, failure in (
        ("reasoning_content", "stop", F.EMPTY),
        ("content", "abort", F.ABORTED),
    ):
        chat = ChatStream('"m"', show_usage=False)
        chat.feed(event({name: "hm"}))
        chat.feed(event(finish=end))
        assert chat.failure_class is failure


@pytest.mark.req("B8")
@pytest.mark.parametrize(
    "said",
    [
        # llama.cpp until 2025 and llamafile, SGLang, TGI, Ollama
        b'error: {"code":400,"message":"full","type":"exceed_context_size_error"}',
        b'data: {"error":{"code":400,"message":"Input exceeds the maximum allowed length"}}',
        b'data: {"error":"`inputs` must have less than 8 tokens","error_type":"validation"}',
        b'data: {"error":"the input length exceeds the context length"}',
    ],
)
def test_own_servers_say_in_the_stream_that_a_prompt_is_too_long(said: bytes) -> None:
    stream = ChatStream('"m"', show_usage=False)

    assert stream.feed(said + b"\n\n") == b""
    assert stream.failure_class is F.CONTEXT_WINDOW


BLANK: Final[dict[Endpoint, list[tuple[str, dict[str, Any]]]]] = {
    Endpoint.CHAT: [
        ("", {"choices": [{"index": 0, "delta": {"content": "\n"}}]}),
        (
            "",
            {
                "choices": [
                    {
                        "index": 0,
                        "delta": {},
                        "finish_reason": "stop",
                    }
                ]
            },
        ),
    ],
    Endpoint.MESSAGES: [
        ("message_start", {"message": {"usage": {}}}),
        (
            "content_block_start",
            {"index": 0, "content_block": {"type": "text", "text": ""}},
        ),
        (
            "content_block_delta",
            {"index": 0, "delta": {"type": "text_delta", "text": "\n"}},
        ),
        ("message_delta", {"delta": {"stop_reason": "end_turn"}}),
    ],
    Endpoint.RESPONSES: [
        ("response.output_text.delta", {"delta": "\n"}),
        ("response.output_text.done", {"text": "\n"}),
        (
            "response.completed",
            {"response": whole(Endpoint.RESPONSES, "\n", "completed")},
        ),
    ],
}


@pytest.mark.req("B8")
@pytest.mark.parametrize("endpoint", BLANK)
def test_a_stream_of_blanks_alone_can_still_go_to_the_next_target(endpoint: Endpoint) -> None:
    request = read_request(b'{"model":"r","stream":true}', endpoint)
    stream = DIALECTS[endpoint].stream(request, '"m"')

    for kind, fields in BLANK[endpoint]:
        repeats = 9 if fields is BLANK[endpoint][-2][1] else 1
        said = json.dumps({"type": kind, **fields} if kind else fields)
        stream.feed(f"event: {kind}\ndata: {said}\n\n".encode() * repeats)

    assert (stream.failure_class, stream.committed) == (F.EMPTY, False)


@pytest.mark.req("B8")
@pytest.mark.parametrize(
    ("said", "failure"),
    [
        (("", "yes"), None),
        (("yes", ""), None),
        (("", ""), F.EMPTY),
    ],
    ids=["the second speaks", "the first speaks", "both think alone"],
)
def test_of_several_choices_one_may_think_alone(
    said: tuple[str, str], failure: FailureClass | None
) -> None:
    stream = ChatStream('"m"', show_usage=False, choice_count=2)
    choices = []
    for number, words in enumerate(said):
        message: dict[str, Any] = {
            "reasoning_content": "hm",
            "content": words,
        }
        stream.feed(event(message, index=number))
        stream.feed(event(finish="stop", index=number))
        choices.append(
            {
                "index": number,
                "message": message,
                "finish_reason": "stop",
            }
        )
    members = parse_object(json.dumps({"choices": choices}).encode())

    assert stream.failure_class is failure
    assert stream.ended is (failure is None)
    if failure is None:
        DIALECTS[Endpoint.CHAT].checked(members)
    else:
        with pytest.raises(UpstreamFailed, match="without words"):
            DIALECTS[Endpoint.CHAT].checked(members)
