import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.frame.people.limits import KeyLimits
from tests.support.providers.scripted_transport import (
    ScriptedEvent,
    ScriptedTurn,
)
from tests.support.providers.scripted_upstream import (
    DONE,
    ROLE,
    broken_stream,
    completion,
    event,
    streamed,
)
from tests.support.router.asgi_router import ASK, CHAT, Door, Place
from tests.support.router.live_router import INCUMBENT, snapshot

pytestmark = pytest.mark.req("A1", "B8")

HUGE = b"9" * 400


def asking(more: bytes) -> bytes:
    return ASK[:-1] + b"," + more + b"}"


@pytest.mark.parametrize("count", [HUGE, b"1" + b"0" * 30, b"-1", b"1e999", b'"7"'])
async def test_a_count_of_tokens_that_cannot_be_is_missing_and_the_prompt_is_estimated(
    tmp_path: Path, count: bytes
) -> None:
    told = completion().steps[0]
    assert isinstance(told, bytes)
    turn = ScriptedTurn(
        steps=(told.replace(b'"prompt_tokens":7', b'"prompt_tokens":' + count),)
    )
    door = Door(tmp_path, lambda _: turn)

    status, _, _ = await door.call(CHAT, ASK)
    door.recorder.flush()

    assert status == 200
    [row] = door.kept.traffic
    # The text of the message, `hi`, is about one token.
    assert (row.requests, row.input_tokens, row.bounded) == (1, 1, 1)


async def test_no_limit_of_output_is_too_large_for_a_keys_rate(tmp_path: Path) -> None:
    first = snapshot("http://up")
    key = replace(first.keys[0], limits=KeyLimits(tokens_per_min=1000))
    door = Door(tmp_path, first=replace(first, keys=(key,)))

    status, _, _ = await door.call(CHAT, asking(b'"max_tokens":' + HUGE))

    assert status == 200


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (b'{ "a" : 1e999 }', b'{ "a" : 1e999 ,"include_usage":true}'),
        (
            b'{"include_usage":false, "a":1}',
            b'{"include_usage":true, "a":1}',
        ),
        (b"{ }", b'{ "include_usage":true}'),
        (b"null", b'{"include_usage":true}'),
        (b"[1]", b'{"include_usage":true}'),
    ],
)
async def test_a_streams_other_options_stay_byte_for_byte(
    tmp_path: Path,
    given: bytes,
    sent: bytes,
) -> None:
    door = Door(tmp_path, lambda _: streamed("a"))

    status, _, _ = await door.call(CHAT, asking(b'"stream":true,"stream_options":' + given))

    assert status == 200
    assert door.transport.seen[0].body.endswith(b'"stream_options":' + sent + b"}")


@pytest.mark.parametrize(
    "told",
    [
        b'{"error":{"message":"no","a":NaN}}',
        '{"a":1}'.encode("utf-16"),
        b"12",
        b"",
        b"<p>",
    ],
)
async def test_a_refusal_that_clients_cannot_read_is_put_in_openais_shape(
    tmp_path: Path, told: bytes
) -> None:
    door = Door(tmp_path, lambda _: ScriptedTurn(status=400, steps=(told,)))

    status, _, body = await door.call(CHAT, ASK)

    assert status == 400
    error = json.loads(body.decode())["error"]
    assert error["code"] == "bad_request"
    assert error["message"]


TOO_LONG = {
    "message": "This model's maximum context length is 9 tokens",
    "code": 400,
}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_prompt_too_long_that_is_told_in_a_200_harms_no_circuit(
    tmp_path: Path, *, stream: bool
) -> None:
    told = json.dumps({"error": TOO_LONG}).encode()
    turn = (
        broken_stream(ROLE, b"data: " + told + b"\n\n")
        if stream
        else ScriptedTurn(steps=(told,))
    )
    place = Place(tmp_path, {INCUMBENT: turn})

    status, _ = await place.ask(asking(b'"stream":true') if stream else ASK, times=6)

    assert (status, await place.state()) == (400, 0)


@pytest.mark.parametrize("beside", [True, False], ids=["the last choice", "nothing"])
async def test_usage_beside_the_last_choice_or_alone_is_counted_and_sent_only_if_asked(
    tmp_path: Path, *, beside: bool
) -> None:
    usage = b'"usage": {"prompt_tokens": 7}}\n\n'
    last = event(finish="stop")
    ends = [last.replace(b"}\n\n", b", " + usage)]
    if not beside:
        ends = [last, b'data: {"choices": [], ' + usage]
    door = Door(
        tmp_path,
        lambda _: broken_stream(event({"content": "a"}), *ends, DONE),
    )
    asked = b'"stream":true,"stream_options":{"include_usage":true}'

    _, _, plain = await door.call(CHAT, asking(b'"stream":true'))
    _, _, shown = await door.call(CHAT, asking(asked))
    door.recorder.flush()

    assert (b'"usage": null' in plain) is beside
    assert b"prompt_tokens" not in plain
    assert b'"usage": {"prompt_tokens": 7}' in shown
    assert sum(row.input_tokens for row in door.kept.traffic) == 14


@pytest.mark.parametrize("status", [400, 429, 503])
@pytest.mark.parametrize("end", [ScriptedEvent.HANG, ScriptedEvent.RESET])
async def test_a_refusal_is_known_by_its_status_when_its_words_do_not_come(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    end: ScriptedEvent,
) -> None:
    monkeypatch.setattr("router.upstream.reply_reading.ERROR_WAIT_S", 0.05)
    door = Door(
        tmp_path,
        lambda _: ScriptedTurn(status=status, steps=(b'{"err', end)),
    )

    answered, _, body = await door.call(CHAT, ASK)

    assert answered == (502 if status == 503 else status)
    found = {
        400: b"status 400",
        429: b"rate_limited",
        503: b"overloaded",
    }
    assert found[status] in body


async def test_a_stream_of_nothing_but_comments_is_no_answer(tmp_path: Path) -> None:
    steps = [b": " + b"x" * 60_000 + b"\n\n"] * 100
    door = Door(
        tmp_path,
        lambda _: broken_stream(ROLE, *steps, event({"content": "late"})),
    )

    status, _, body = await door.call(CHAT, asking(b'"stream":true'))

    assert status == 502
    assert b"malformed" in body
