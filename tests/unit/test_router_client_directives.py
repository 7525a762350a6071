import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from harness.routing.settings import AnsweredModel, RouterSettings
from router.request.client_directives import client_headers
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import (
    DONE,
    ROLE,
    broken_stream,
    completion,
    error,
    event,
    streamed,
)
from tests.support.router.asgi_router import ASK, AUTH, CHAT, Door
from tests.support.router.live_router import INCUMBENT, QUICK, snapshot
from tests.wire.server import Json

BEATING = replace(QUICK, heartbeat_s=0.05)
COMMENT = b": keep-alive\n"
STREAM = ASK[:-1] + b',"stream":true}'

pytestmark = pytest.mark.req("A1", "B8")


def read_stream(raw: bytes) -> list[Json]:
    """The events' data, as a client reads them for which each empty line ends an event."""
    blocks = raw.removesuffix(b"\n\n").split(b"\n\n")
    told = [line for line in raw.splitlines() if line.startswith(b"data:")]
    assert len(told) == len(blocks)
    return [json.loads(line.removeprefix(b"data:")) for line in told if line != b"data: [DONE]"]


class Answer(NamedTuple):
    status: int
    headers: dict[bytes, bytes]
    content: bytes


async def ask(
    folder: Path,
    turn: ScriptedTurn,
    settings: RouterSettings = BEATING,
    *,
    path: str = CHAT,
    body: bytes = STREAM,
    **directives: bytes,
) -> Answer:
    door = Door(folder, lambda _: turn, settings, first=snapshot("http://up"))
    named = [(b"x-swapproof-" + name.encode(), value) for name, value in directives.items()]
    return Answer(*await door.call(path, body, headers=(AUTH, *named)))


def late_by(pause_s: float, turn: ScriptedTurn) -> ScriptedTurn:
    return replace(turn, steps=(pause_s, *turn.steps))


async def test_a_stream_that_is_silent_for_long_gets_comments_before_and_between_its_events(
    tmp_path: Path,
) -> None:
    words = event({"content": "one"}), 0.2, event({"content": "two"})
    found = await ask(
        tmp_path,
        broken_stream(0.2, ROLE, *words, event(finish="stop"), DONE),
    )

    assert found.status == 200
    before, between = found.content.split(b'"one"')
    assert before.startswith(COMMENT)
    assert COMMENT in between
    events = found.content.replace(COMMENT, b"").split(b"\n\n")
    assert [
        b"one" in events[1],
        b"two" in events[2],
        events[-2],
    ] == [
        True,
        True,
        DONE.strip(),
    ]
    # Its head went out before anybody had answered.
    assert b"x-swapproof-target" not in found.headers
    assert found.headers[b"x-swapproof-route"] == b"support"


async def test_a_stream_is_silent_while_its_provider_sends_nothing_for_the_client(
    tmp_path: Path,
) -> None:
    """Like usage that the client did not ask for, or an event in many small pieces."""
    first = event({"content": "one"})
    second = event({"content": "two"})
    trickle = tuple(step for byte in second[:10] for step in (bytes([byte]), 0.02))
    end = event(finish="stop"), DONE
    found = await ask(tmp_path, broken_stream(ROLE, first, *trickle, second[10:], *end))

    assert COMMENT in found.content.split(b'"one"')[1].split(b'"two"')[0]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, STREAM),
        (
            "/v1/responses",
            b'{"model":"support","stream":true,"input":"hello"}',
        ),
    ],
    ids=["chat", "responses"],
)
async def test_a_client_for_which_each_empty_line_ends_an_event_reads_the_stream(
    tmp_path: Path,
    path: str,
    body: bytes,
) -> None:
    busy = b": busy\n\n", b"event: ping\n\n", b"id: 1\n\n", b"data:\n\n"
    said = event({"content": "hi"}), event(finish="stop")
    if path != CHAT:
        delta = json.dumps({"type": "response.output_text.delta", "delta": "hi"})
        end = json.dumps({"type": "response.completed", "response": {"output": []}})
        said = f"data: {delta}\n\n".encode(), f"data: {end}\n\n".encode()
    turn = broken_stream(*busy, 0.2, *busy, 0.2, b"id: 2\n" + said[0], 0.2, said[1], DONE)

    found = await ask(
        tmp_path,
        turn,
        path=path,
        body=body,
    )

    assert COMMENT in found.content
    assert '"hi"' in json.dumps(read_stream(found.content))


@pytest.mark.parametrize(
    "turn",
    [late_by(0.2, error(400, "no such thing")), broken_stream(0.2, ROLE)],
    ids=["refused", "broken"],
)
async def test_what_fails_after_a_heartbeat_ends_in_an_error_event(
    tmp_path: Path, turn: ScriptedTurn
) -> None:
    found = await ask(tmp_path, turn)

    assert found.status == 200
    *comments, last, _, end = found.content.split(b"\n")
    # No empty line: there some readers would dispatch an event of nothing.
    assert set(comments) == {COMMENT.strip()}
    assert end == b""
    assert json.loads(last.removeprefix(b"data: "))["error"]["message"]
    assert b"[DONE]" not in found.content


async def test_a_quick_answer_has_no_comments_and_all_its_headers(tmp_path: Path) -> None:
    found = await ask(tmp_path, streamed("hi"), replace(QUICK, heartbeat_s=5.0))

    assert COMMENT not in found.content
    assert found.headers[b"x-swapproof-target"] == f"up/{INCUMBENT}".encode()


@pytest.mark.parametrize(
    ("beat_s", "heartbeat"),
    [(0.05, b"off"), (0.0, b"as you like")],
    ids=["client", "settings"],
)
async def test_heartbeats_can_be_switched_off(
    tmp_path: Path,
    beat_s: float,
    heartbeat: bytes,
) -> None:
    settings = replace(QUICK, heartbeat_s=beat_s)
    found = await ask(tmp_path, late_by(0.2, streamed("hi")), settings, heartbeat=heartbeat)

    assert COMMENT not in found.content
    assert b"hi" in found.content


async def test_a_client_may_lower_the_time_for_its_request(tmp_path: Path) -> None:
    late = late_by(0.8, completion())
    short = await ask(
        tmp_path,
        late,
        body=ASK,
        timeout=b"0.2",
    )
    plenty = await ask(
        tmp_path,
        late,
        body=ASK,
        timeout=b"3600",
    )

    assert short.status == 502
    told: dict[str, Any] = json.loads(short.content)["error"]
    assert told["attempts"][0]["failure"] == "timeout"
    assert plenty.status == 200


@pytest.mark.parametrize(
    ("turn", "body", "name"),
    [
        (streamed("hi"), STREAM, b'"model": "m"'),
        (completion(model="m-2026-01"), ASK, b'"model" : "m-2026-01"'),
    ],
)
async def test_the_providers_own_model_name_is_left_where_the_settings_say_so(
    tmp_path: Path,
    turn: ScriptedTurn,
    body: bytes,
    name: bytes,
) -> None:
    own = replace(QUICK, response_model=AnsweredModel.PROVIDER)

    assert name in (await ask(tmp_path, turn, own, body=body)).content


async def test_a_head_gives_the_provider_and_the_tracer_each_their_own_headers(
    tmp_path: Path,
) -> None:
    scopes: list[Any] = []

    class Spans:
        def begin(self, observed: Any) -> Any:
            scopes.append(observed)
            raise RuntimeError("this test traces nothing")

        def close(self) -> None: ...

    messages = "/v1/messages"
    body = b'{"model":"support","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}'
    parent = (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    headers = (AUTH, (b"anthropic-beta", b"a-beta"), parent)
    door = Door(tmp_path, tracing=Spans())
    for _ in range(2):
        await door.call(messages, body, headers=headers)

    for observed in scopes:
        assert client_headers(observed.scope, {parent[0]: b""}) == (parent,)
        assert (b"anthropic-beta", b"a-beta") in observed.passed_up
    assert len(scopes) == 2
