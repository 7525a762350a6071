"""Values that JSON allows and nobody expects, from clients and from providers."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.domain.key_limits import KeyLimits
from router.transport.scripted import Turn
from tests.router_door import ASK, CHAT, Door
from tests.router_upstream import ROLE, broken_stream, completion, event, streamed
from tests.router_world import snapshot

pytestmark = pytest.mark.req("A1", "B8")

HUGE = b"9" * 400


def asking(more: bytes) -> bytes:
    return ASK[:-1] + b"," + more + b"}"


@pytest.mark.parametrize("count", [HUGE, b"1" + b"0" * 30, b"-1", b"1e999", b'"7"'])
async def test_a_count_of_tokens_that_cannot_be_is_none(tmp_path: Path, count: bytes) -> None:
    told = completion().steps[0]
    assert isinstance(told, bytes)
    turn = Turn(steps=(told.replace(b'"prompt_tokens":7', b'"prompt_tokens":' + count),))
    door = Door(tmp_path, lambda _: turn)

    status, _, _ = await door.call(CHAT, ASK)
    door.recorder.flush()

    assert status == 200
    assert [(row.requests, row.input_tokens) for row in door.kept.traffic] == [(1, 0)]


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
        (b'{"include_usage":false, "a":1}', b'{"include_usage":true, "a":1}'),
        (b"{ }", b'{ "include_usage":true}'),
        (b"null", b'{"include_usage":true}'),
        (b"[1]", b'{"include_usage":true}'),
    ],
)
async def test_a_streams_other_options_stay_byte_for_byte(
    tmp_path: Path, given: bytes, sent: bytes
) -> None:
    door = Door(tmp_path, lambda _: streamed("a"))

    status, _, _ = await door.call(CHAT, asking(b'"stream":true,"stream_options":' + given))

    assert status == 200
    assert door.transport.seen[0].body.endswith(b'"stream_options":' + sent + b"}")


@pytest.mark.parametrize(
    "told",
    [b'{"error":{"message":"no","a":NaN}}', '{"a":1}'.encode("utf-16"), b"12", b"", b"<p>"],
)
async def test_a_refusal_that_clients_cannot_read_is_put_in_openais_shape(
    tmp_path: Path, told: bytes
) -> None:
    door = Door(tmp_path, lambda _: Turn(status=400, steps=(told,)))

    status, _, body = await door.call(CHAT, ASK)

    assert status == 400
    error = json.loads(body.decode())["error"]
    assert error["code"] == "bad_request"
    assert error["message"]


async def test_a_stream_of_nothing_but_comments_is_no_answer(tmp_path: Path) -> None:
    steps = [b": " + b"x" * 60_000 + b"\n\n"] * 100
    door = Door(tmp_path, lambda _: broken_stream(ROLE, *steps, event({"content": "late"})))

    status, _, body = await door.call(CHAT, asking(b'"stream":true'))

    assert status == 502
    assert b"malformed" in body
