"""What a client asks of the router by header, and how a stream that waits stays alive."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from harness.domain.settings import AnsweredModel, RouterSettings
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import (
    DONE,
    ROLE,
    Upstream,
    broken_stream,
    completion,
    error,
    event,
    running_upstream,
    streamed,
)
from tests.support.router.live_router import INCUMBENT, KEY, QUICK, running_router, snapshot
from tests.wire.server import Json

LONGEST_LINE: Final = 32 * 1024 * 1024


class GoStreamError(Exception):
    """The client ends here, and its caller gets this error."""


def read_stream(raw: bytes) -> list[Json]:
    """Returns the events' data. Raises GoStreamError."""
    found: list[Json] = []
    data = b""
    for line in raw.splitlines():
        name, _, value = line.partition(b":")
        if len(line) > LONGEST_LINE:
            raise GoStreamError("bufio.Scanner: token too long")
        if name == b"data":
            data += value.removeprefix(b" ") + b"\n"
        elif not line:
            if data.startswith(b"[DONE]"):
                break
            found.append(_event(data))
            data = b""
    return found


def _event(data: bytes) -> Json:
    try:
        event: Json = json.loads(data)
    except ValueError as error:
        raise GoStreamError(f"cannot unmarshal: {error}") from None
    if "error" in event:
        raise GoStreamError(f"received error while streaming: {event['error']}")
    return event


pytestmark = pytest.mark.req("A1", "B8")

HELLO = [{"role": "user", "content": "hello"}]
BEATING = replace(QUICK, heartbeat_s=0.05)
COMMENT = b": keep-alive\n"


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with running_upstream() as upstream:
        yield upstream


@contextmanager
def routed(
    upstream: Upstream, folder: Path, settings: RouterSettings, *, fallback: bool = False
) -> Iterator[httpx.Client]:
    first = snapshot(upstream.url, fallback=fallback)
    with (
        running_router(first, folder, settings) as world,
        httpx.Client(
            base_url=f"{world.url}/v1", headers={"authorization": f"Bearer {KEY}"}, timeout=60
        ) as client,
    ):
        yield client


def ask(client: httpx.Client, *, stream: bool = True, **headers: str) -> httpx.Response:
    body = {"model": "support", "messages": HELLO, "stream": stream}
    named = {f"x-swapgate-{name}": value for name, value in headers.items()}
    return client.post("/chat/completions", json=body, headers=named)


def late_by(pause_s: float, turn: ScriptedTurn) -> ScriptedTurn:
    return replace(turn, steps=(pause_s, *turn.steps))


def test_a_stream_that_is_silent_for_long_gets_comments_before_and_between_its_events(
    upstream: Upstream, tmp_path: Path
) -> None:
    words = event({"content": "one"}), 0.2, event({"content": "two"})
    steps = (0.2, ROLE, *words, event(finish="stop"), DONE)
    upstream.turns[INCUMBENT] = broken_stream(*steps)

    with routed(upstream, tmp_path, BEATING) as client:
        found = ask(client)

    assert found.status_code == 200
    before, between = found.content.split(b'"one"')
    assert before.startswith(COMMENT)
    assert COMMENT in between
    events = found.content.replace(COMMENT, b"").split(b"\n\n")
    assert [b"one" in events[1], b"two" in events[2], events[-2]] == [True, True, DONE.strip()]
    # Its head went out before anybody had answered.
    assert "x-swapgate-target" not in found.headers
    assert found.headers["x-swapgate-route"] == "support"


@pytest.mark.parametrize(
    ("path", "asked"),
    [("/chat/completions", {"messages": HELLO}), ("/responses", {"input": "hello"})],
    ids=["chat", "responses"],
)
def test_a_client_for_which_each_empty_line_ends_an_event_reads_the_stream(
    upstream: Upstream, tmp_path: Path, path: str, asked: dict[str, Any]
) -> None:
    busy = b": busy\n\n", b"event: ping\n\n", b"id: 1\n\n", b"data:\n\n"
    words = ROLE, *busy, 0.2, b"id: 2\n" + event({"content": "hi"})
    upstream.turns[INCUMBENT] = broken_stream(
        *busy, 0.2, *words, 0.2, event(finish="stop"), DONE
    )
    with routed(upstream, tmp_path, BEATING) as client:
        found = client.post(path, json={"model": "support", "stream": True, **asked})

    assert COMMENT in found.content
    assert '"hi"' in json.dumps(read_stream(found.content))


@pytest.mark.parametrize("failure", ["refused", "broken"])
def test_what_fails_after_a_heartbeat_ends_in_an_error_event(
    upstream: Upstream, tmp_path: Path, failure: str
) -> None:
    late = {
        "refused": late_by(0.2, error(400, "no such thing")),
        "broken": broken_stream(0.2, ROLE),
    }
    upstream.turns[INCUMBENT] = late[failure]

    with routed(upstream, tmp_path, BEATING) as client:
        found = ask(client)

    assert found.status_code == 200
    *comments, last, _, end = found.content.split(b"\n")
    # No empty line: there some readers would dispatch an event of nothing.
    assert set(comments) == {COMMENT.strip()}
    assert end == b""
    told = json.loads(last.removeprefix(b"data: "))["error"]
    assert told["message"]
    assert b"[DONE]" not in found.content


def test_a_quick_answer_has_no_comments_and_all_its_headers(
    upstream: Upstream, tmp_path: Path
) -> None:
    upstream.turns[INCUMBENT] = streamed("hi")
    with routed(upstream, tmp_path, replace(QUICK, heartbeat_s=5.0)) as client:
        found = ask(client)

    assert COMMENT not in found.content
    assert found.headers["x-swapgate-target"] == f"up/{INCUMBENT}"


@pytest.mark.parametrize("off", ["by the client", "by the settings"])
def test_heartbeats_can_be_switched_off(upstream: Upstream, tmp_path: Path, off: str) -> None:
    upstream.turns[INCUMBENT] = broken_stream(
        0.2, ROLE, event({"content": "hi"}), event(finish="stop"), DONE
    )
    settings = BEATING if off == "by the client" else replace(BEATING, heartbeat_s=0.0)
    with routed(upstream, tmp_path, settings) as client:
        found = ask(client, heartbeat="off" if off == "by the client" else "as you like")

    assert COMMENT not in found.content
    assert b"hi" in found.content


def test_a_client_may_lower_the_time_for_its_request(
    upstream: Upstream, tmp_path: Path
) -> None:
    upstream.turns[INCUMBENT] = late_by(0.8, completion())
    with routed(upstream, tmp_path, QUICK) as client:
        short = ask(client, stream=False, timeout="0.2")
        plenty = ask(client, stream=False, timeout="3600")

    assert short.status_code == 502
    assert short.json()["error"]["attempts"][0]["failure"] == "timeout"
    assert plenty.status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_the_providers_own_model_name_is_left_where_the_settings_say_so(
    upstream: Upstream, tmp_path: Path, *, stream: bool
) -> None:
    upstream.turns[INCUMBENT] = streamed("hi") if stream else completion(model="m-2026-01")
    own = replace(QUICK, response_model=AnsweredModel.PROVIDER)
    with routed(upstream, tmp_path, own) as client:
        found = ask(client, stream=stream)

    assert (b'"model": "m"' if stream else b'"model" : "m-2026-01"') in found.content
