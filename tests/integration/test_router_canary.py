"""A canary that fails harms no user, and is charged."""

import http.client
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from harness.domain.canary.guardrails import ArmSplit, ErrorTally, Guardrail, UnitRule
from harness.domain.canary.observation import TrafficMinute
from harness.domain.routing.table import RouteSettings
from tests.support.providers.scripted_transport import ScriptedEvent, ScriptedTurn
from tests.support.providers.scripted_upstream import (
    DONE,
    ROLE,
    Upstream,
    broken_stream,
    completion,
    error,
    event,
    streamed,
)
from tests.support.router.live_router import (
    CANDIDATE,
    FALLBACK,
    INCUMBENT,
    KEY,
    OPTED_OUT_KEY,
    World,
    running_router,
    snapshot,
    wait_until,
)
from tests.support.sampling import sampled

HTML = ScriptedTurn(headers={"content-type": "text/html"}, steps=(b"<html>Bad gateway</html>",))
NAN = ScriptedTurn(steps=(b'{"choices":[{"index":0}],"x":NaN}',))
DEEP = ScriptedTurn(steps=(b'{"choices":' + b"[" * 10_000 + b"]" * 10_000 + b"}",))
EMPTY = ScriptedTurn(steps=(b'{"choices":[]}',))
FAILURES = {
    "500": error(500),
    "503": error(503),
    "529": error(529),
    "429": error(429),
    "401": error(401),
    "404": error(404, code="model_not_found"),
    "reset": ScriptedTurn(steps=(ScriptedEvent.RESET,)),
    "reset in the body": ScriptedTurn(steps=(b'{"choices":[', ScriptedEvent.RESET)),
    "hang": ScriptedTurn(hang=True),
    "html": HTML,
    "nan": NAN,
    "deep": DEEP,
    "empty choices": EMPTY,
    "redirect": ScriptedTurn(302, {"location": "http://127.0.0.1:1/"}),
    "unknown encoding": ScriptedTurn(
        headers={"content-type": "application/json", "content-encoding": "br"}, steps=(b"x",)
    ),
}
# The classes of those that are not malformed answers.
CLASSES = {
    "500": "server",
    "503": "overloaded",
    "529": "overloaded",
    "429": "rate_limited",
    "401": "our_key",
    "404": "model_unknown: 404 model_not_found",
    "reset": "connect",
    "reset in the body": "connect",
    "hang": "timeout",
}
CALLERS = itertools.count()
# The other cells of the router's faults show the rest of them.
OF_TRANSPORT = ("429", "reset", "reset in the body", "hang", "redirect", "unknown encoding")
OF_STREAM = ("role, then a false end", "pings, then a hang", "no stream")
STREAM_FAILURES = {
    "role, then an error": broken_stream(ROLE, b'data: {"error":{"message":"boom"}}\n\n'),
    "role, then the end": broken_stream(ROLE),
    "role, then a false end": broken_stream(ROLE, DONE),
    "role, then a reset": broken_stream(ROLE, ScriptedEvent.RESET),
    "pings, then a hang": broken_stream(b": ping\n\n", ROLE, ScriptedEvent.HANG),
    "an error first": broken_stream(b'data: {"error":{"message":"boom"}}\n\n'),
    "garbage": broken_stream(b"data: {oops}\n\n"),
    "no stream": completion(),
    "500": error(500),
}


@pytest.fixture
def all_canary(upstream: Upstream, tmp_path: Path) -> Iterator[World]:
    """Every key is in the canary arm; the budget leaves three seconds for all attempts."""
    upstream.asked.clear()
    upstream.turns.clear()
    settings = RouteSettings(total_timeout_s=3.0)
    rule = UnitRule(block_size=1)
    first = snapshot(upstream.url, weight_bps=10_000, settings=settings, rule=rule)
    with running_router(first, tmp_path) as world:
        yield world


@pytest.fixture
def client(all_canary: World) -> Iterator[openai.OpenAI]:
    base = f"{all_canary.url}/v1"
    with openai.OpenAI(base_url=base, api_key=KEY, max_retries=0) as client:
        yield client


def ask(client: openai.OpenAI) -> tuple[str, dict[str, str]]:
    """The answer's text, and the truth headers."""
    raw = client.chat.completions.with_raw_response.create(
        model="support",
        messages=[{"role": "user", "content": "hi"}],
        user=f"user-{next(CALLERS)}",
    )
    text = raw.parse().choices[0].message.content or ""
    return text, {k: v for k, v in raw.headers.items() if k.startswith("x-swapgate-")}


def stream(client: openai.OpenAI) -> str:
    chunks = client.chat.completions.create(
        model="support",
        messages=[{"role": "user", "content": "hi"}],
        user=f"user-{next(CALLERS)}",
        stream=True,
    )
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def only_row(world: World) -> TrafficMinute:
    (row,) = world.wait_for_traffic(1)
    return row


def charged_units(world: World) -> tuple[int, int]:
    """Canary units and canary failures of the one block."""
    wait_until(lambda: world.store.blocks)
    (block,) = world.store.blocks.values()
    return block.canary_units, block.canary_failures


@pytest.mark.req("F3", "F4", "A5", "B3")
@pytest.mark.parametrize("failure", sampled(FAILURES, OF_TRANSPORT))
def test_a_canary_failure_is_answered_by_the_incumbent_and_charged_by_its_class(
    all_canary: World, client: openai.OpenAI, upstream: Upstream, failure: str
) -> None:
    upstream.turns = {CANDIDATE: FAILURES[failure], INCUMBENT: completion("from the incumbent")}

    text, headers = ask(client)

    assert text == "from the incumbent"
    assert headers["x-swapgate-arm"] == "canary"
    assert headers["x-swapgate-target"] == f"up/{INCUMBENT}"
    assert int(headers["x-swapgate-attempts"]) >= 2
    row = only_row(all_canary)
    assert (row.arm, row.requests, row.failed, row.charged) == ("canary", 1, 0, 1)
    assert charged_units(all_canary) == (1, 1)
    (block,) = all_canary.store.blocks.values()
    errors = block.counts[Guardrail.ERRORS]
    assert isinstance(errors, ErrorTally)
    assert errors.classes == {CLASSES.get(failure, "malformed"): ArmSplit(1, 1)}


@pytest.mark.req("F4", "B8")
@pytest.mark.parametrize("failure", sampled(STREAM_FAILURES, OF_STREAM))
def test_a_canary_stream_that_fails_before_its_first_token_is_answered_by_the_incumbent(
    all_canary: World, client: openai.OpenAI, upstream: Upstream, failure: str
) -> None:
    upstream.turns = {CANDIDATE: STREAM_FAILURES[failure], INCUMBENT: streamed("whole", "!")}

    assert stream(client) == "whole!"

    row = only_row(all_canary)
    assert (row.failed, row.charged, row.streams) == (0, 1, 1)
    assert charged_units(all_canary) == (1, 1)


@pytest.mark.req("F4")
def test_a_healthy_canary_answers_and_is_not_charged(
    all_canary: World, client: openai.OpenAI, upstream: Upstream
) -> None:
    upstream.turns = {CANDIDATE: completion("from the candidate")}

    text, headers = ask(client)

    assert text == "from the candidate"
    assert headers["x-swapgate-target"] == f"up/{CANDIDATE}"
    assert only_row(all_canary).charged == 0
    assert charged_units(all_canary) == (1, 0)


@pytest.mark.req("G3")
def test_a_key_that_opted_out_meets_the_routes_own_model_and_counts_in_no_block(
    all_canary: World, client: openai.OpenAI, upstream: Upstream
) -> None:
    upstream.turns = {CANDIDATE: completion("candidate"), INCUMBENT: completion("incumbent")}

    text, headers = ask(client.with_options(api_key=OPTED_OUT_KEY))

    assert text == "incumbent"
    assert headers["x-swapgate-arm"] == "incumbent"
    ask(client)
    assert charged_units(all_canary) == (1, 0)
    assert sum(block.units for block in all_canary.store.blocks.values()) == 1


@pytest.mark.req("F4", "A5")
def test_a_request_that_both_reject_charges_nobody(
    all_canary: World, client: openai.OpenAI, upstream: Upstream
) -> None:
    upstream.turns = {
        CANDIDATE: error(400, "says the candidate"),
        INCUMBENT: error(400, "says the incumbent"),
    }

    with pytest.raises(openai.BadRequestError, match="says the incumbent"):
        ask(client)

    row = only_row(all_canary)
    assert (row.failed, row.charged) == (0, 0)
    assert charged_units(all_canary) == (1, 0)
    assert len(upstream.asked) == 2


@pytest.mark.req("A4", "A5")
def test_when_all_fail_the_error_names_every_attempt_and_stops_the_clients_retries(
    upstream: Upstream, tmp_path: Path
) -> None:
    upstream.asked.clear()
    upstream.turns = {
        CANDIDATE: error(500, "sk-secret of the provider"),
        INCUMBENT: error(503),
        FALLBACK: HTML,
    }
    first = snapshot(upstream.url, weight_bps=10_000, fallback=True)
    with (
        running_router(first, tmp_path) as world,
        openai.OpenAI(base_url=f"{world.url}/v1", api_key=KEY) as client,
    ):
        with pytest.raises(openai.InternalServerError) as failed:
            ask(client)
        row = only_row(world)

    assert failed.value.status_code == 502
    assert failed.value.code == "all_targets_failed"
    assert isinstance(failed.value.body, dict)
    tried = [
        (attempt["target"], attempt["failure"]) for attempt in failed.value.body["attempts"]
    ]
    assert tried == [
        (f"up/{CANDIDATE}", "server"),
        (f"up/{CANDIDATE}", "server"),
        (f"up/{INCUMBENT}", "overloaded"),
        (f"up/{INCUMBENT}", "overloaded"),
        (f"up/{FALLBACK}", "malformed"),
    ]
    assert "sk-secret" not in failed.value.response.text
    assert failed.value.response.headers["x-swapgate-attempts"] == "5"
    assert len(upstream.asked) == 5
    assert (row.requests, row.failed, row.charged, row.target) == (1, 1, 1, "")


@pytest.mark.req("B8")
@pytest.mark.parametrize("streaming", [True, False])
def test_a_client_who_leaves_cancels_the_upstream_and_charges_nobody(
    all_canary: World, upstream: Upstream, client: openai.OpenAI, *, streaming: bool
) -> None:
    hanging = broken_stream(ROLE, event({"content": "half"}), ScriptedEvent.HANG)
    upstream.turns = {CANDIDATE: hanging if streaming else ScriptedTurn(hang=True)}
    if streaming:
        chunks = client.chat.completions.create(
            model="support", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        next(chunks)
        chunks.close()
    else:
        body = {"model": "support", "messages": [{"role": "user", "content": "hi"}]}
        asking = http.client.HTTPConnection(all_canary.url.removeprefix("http://"))
        bearer = {"authorization": f"Bearer {KEY}"}
        asking.request("POST", "/v1/chat/completions", json.dumps(body), bearer)
        wait_until(lambda: upstream.asked)
        asking.close()

    assert upstream.asked[-1].left.wait(60)
    row = only_row(all_canary)
    assert (row.requests, row.failed, row.charged) == (1, 0, 0)
    assert row.output_tokens == (1 if streaming else 0)
    assert charged_units(all_canary) == (1, 0)


def test_slow_tokens_are_no_stall(client: openai.OpenAI, upstream: Upstream) -> None:
    parts = streamed("a", "b", "c").steps
    slow = [wait_s for step in parts for wait_s in (step, 0.05)]
    upstream.turns = {CANDIDATE: broken_stream(*slow)}

    assert stream(client) == "abc"
