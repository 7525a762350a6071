import asyncio
import contextlib
import json
import tempfile
from pathlib import Path
from typing import Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.frame.errors import InputError
from harness.providers.models.capabilities import Endpoint
from harness.providers.target import RequestPatch, Target
from harness.routing.reliability.breaker import (
    BreakerPolicy,
    BreakerState,
    WhenAllOpen,
)
from harness.routing.reliability.retry import RetryPolicy
from harness.routing.settings import RouterSettings
from harness.routing.table import Canary, Route, choose_arm
from router.conversation.intake import AnswerIds
from router.frame.body import read_request
from router.frame.failure import UpstreamFailed
from router.frame.json_spans import parse_object
from router.protocols.endpoints import DIALECTS
from router.request.client_directives import sticky_key
from router.request.needs import detect_needs
from tests.support.providers.scripted_transport import (
    ScriptedEvent,
    ScriptedTurn,
)
from tests.support.providers.scripted_upstream import (
    ROLE,
    broken_stream,
    completion,
    error,
    event,
    streamed,
)
from tests.support.router.asgi_router import ASK, Place, leaving
from tests.support.router.live_router import CANDIDATE, FALLBACK, INCUMBENT

STREAM: Final = ASK[:-1] + b',"stream":true}'
HALF: Final = event({"content": "half"})
TURNS: Final = {
    "whole": completion(),
    "stream": streamed("a"),
    "500": error(500),
    "503": error(503),
    "429": error(429),
    "429 for long": ScriptedTurn(429, {"retry-after": "600"}, error(429).steps),
    "400": error(400),
    "401": error(401),
    "refused": ScriptedTurn(refuse=True),
    "reset": ScriptedTurn(steps=(ScriptedEvent.RESET,)),
    "garbage": ScriptedTurn(steps=(b"<html>",)),
    "role, then reset": broken_stream(ROLE, ScriptedEvent.RESET),
    "half a stream": broken_stream(ROLE, HALF),
    "half, then reset": broken_stream(ROLE, HALF, ScriptedEvent.RESET),
}
HANGS: Final = (
    ScriptedTurn(hang=True),
    broken_stream(ROLE, HALF, ScriptedEvent.HANG),
)
turns = st.sampled_from(sorted(TURNS))
MOST: Final = 4


@st.composite
def steps(draw: st.DrawFn) -> tuple[str, str, str, bool, float, bool]:
    pause = draw(st.sampled_from([0.0, 0.0, 10.0, 130.0, 1000.0]))
    leaves = draw(st.integers(0, 9)) == 0
    return (
        draw(turns),
        draw(turns),
        draw(turns),
        draw(st.booleans()),
        pause,
        leaves,
    )


@pytest.mark.req("A5", "B4")
@given(
    st.lists(steps(), min_size=1, max_size=25),
    st.sampled_from(WhenAllOpen),
    st.sampled_from([0, 10_000]),
    st.sampled_from(
        [
            (),
            ("UP_KEY_2",),
            ("UP_KEY_2", "UP_KEY_3"),
        ]
    ),
)
@settings(max_examples=60, deadline=None)
def test_every_ticket_and_connection_returns_and_no_request_asks_too_often(
    script: list[tuple[str, str, str, bool, float, bool]],
    when_all_open: WhenAllOpen,
    weight_bps: int,
    more_keys: tuple[str, ...],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_play(Path(folder), script, when_all_open, weight_bps, more_keys))


async def _play(
    folder: Path,
    script: list[tuple[str, str, str, bool, float, bool]],
    when_all_open: WhenAllOpen,
    weight_bps: int,
    more_keys: tuple[str, ...],
) -> None:
    chosen = RouterSettings(
        total_timeout_s=30.0,
        breaker=BreakerPolicy(when_all_open=when_all_open),
        retry=RetryPolicy(
            base_s=0,
            cap_s=0,
            attempts=MOST,
            attempt_s=0,
        ),
    )
    place = Place(
        folder,
        {},
        chosen,
        fallback=True,
        weight_bps=weight_bps,
        more_keys=more_keys,
    )
    router = place.app
    for candidate, incumbent, fallback, streams, pause, leaves in script:
        before = place.asked.total()
        place.clock.advance(pause)
        place.script = {
            CANDIDATE: TURNS[candidate],
            INCUMBENT: TURNS[incumbent],
            FALLBACK: TURNS[fallback],
        }
        body = STREAM if streams else ASK
        if leaves:
            place.script = dict.fromkeys(place.script, HANGS[streams])
            await leaving(place, body)
        else:
            status, headers = await place.ask(body)
            asked = place.asked.total() - before
            assert headers[b"x-swapproof-attempts"] == str(asked).encode()
            assert status in (200, 400, 429, 502, 503)
            assert asked <= MOST
        probing = [
            breaker
            for breaker in router._health._breakers.values()
            if breaker.probe_since is not None
        ]
        assert not probing
        assert place.transport.open_replies == 0
    _, _, text = await place.call("/metrics", method="GET")
    counted = sum(
        float(line.rpartition(" ")[2])
        for line in text.decode().splitlines()
        if line.startswith("swapproof_attempts_total")
    )
    assert counted == place.asked.total()
    states = {router._health.state(breaker) for breaker in router._health._breakers}
    assert states <= set(BreakerState)


NAMES = (
    "arguments call_id choices code content content_block delta error finish_reason format "
    "function functions id image_url index input input_tokens instructions item "
    "max_output_tokens max_tokens message messages metadata model output output_index "
    "output_tokens parallel_tool_calls prompt_cache_key prompt_tokens response "
    "response_format role status stop_reason stream stream_options system temperature text "
    "tool_calls tool_choice tools type usage user user_id"
)
WORDS = (
    "assistant content_block_delta content_block_start developer error function_call "
    "image_url input_text json_schema message_delta message_start message_stop ping "
    "response.completed response.created response.failed response.output_item.added "
    "response.output_text.delta support system text tool_use user \ud800"
)
ASKED = read_request(b'{"model":"r","stream":true}', Endpoint.CHAT)
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(-9, 9)
    | st.text(max_size=3)
    | st.sampled_from([1.5, 10**30])
)
values = st.recursive(
    leaves | st.sampled_from(WORDS.split()),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(NAMES.split()), inner, max_size=4)
    ),
    max_leaves=12,
)
objects = st.dictionaries(st.sampled_from(NAMES.split()), values, max_size=6)
endpoints = pytest.mark.parametrize("endpoint", DIALECTS)
pytestmark = pytest.mark.req("A1", "B8")


@endpoints
@given(events=st.lists(objects, max_size=4))
def test_any_stream_of_objects_is_read_or_refused(
    endpoint: Endpoint, events: list[dict[str, object]]
) -> None:
    stream = DIALECTS[endpoint].stream(ASKED, '"r"')

    for read in events:
        if not (stream.failure or stream.finished):
            stream.feed(f"data: {json.dumps(read)}\n\n".encode())
    if not (stream.failure or stream.finished):
        stream.end()

    assert stream.finished or stream.failure
    assert min(stream.used()[:-1]) >= 0


@endpoints
@given(answer=objects)
def test_any_whole_answer_is_read_or_refused(
    endpoint: Endpoint, answer: dict[str, object]
) -> None:
    with contextlib.suppress(UpstreamFailed):
        DIALECTS[endpoint].checked(parse_object(json.dumps(answer).encode()))
    AnswerIds("{}").mend(answer)


PATCHED = Target(
    "p",
    "m",
    {"max_tokens": 5, "temperature": 0},
    request_patch=RequestPatch(
        prompt_addendum="Be brief.",
        response_format={"type": "json_object"},
        parameters={"top_p": 1, "stream_options": {"a": 1}},
    ),
)
ROUTE = Route("r", 1, "inc", Canary("can", 5000, "salt", "r-1"))


def refuse(constant: str) -> None:
    raise AssertionError(constant)


@endpoints
@pytest.mark.parametrize("target", [Target("p", "m"), PATCHED], ids=["plain", "patched"])
@example(body={"tool_choice": {"a": 1.5}, "text": {"a": 1.5}}, huge=True)
@given(body=objects, huge=st.booleans())
def test_any_body_is_refused_or_sent_on(
    endpoint: Endpoint,
    target: Target,
    body: dict[str, object],
    *,
    huge: bool,
) -> None:
    text = json.dumps({"model": "support", **body}).encode()
    text = text.replace(b"1.5", b"1e999") if huge else text
    try:
        request = read_request(text, endpoint)
    except InputError:
        return

    key = sticky_key(request, None, "k-1")
    choose_arm(ROUTE, key)
    detect_needs(request)
    for serialize in (False, True):
        sent = DIALECTS[endpoint].patched(request, target, serialize_tools=serialize)
        assert json.loads(sent, parse_constant=refuse)["model"] == "m"
