"""What the router records of a request's tokens and cost: one scripted provider a case."""

import json
from pathlib import Path
from typing import Any, Final

import pytest

from harness.gate.online.observation import TrafficMinute
from tests.support.providers.scripted_transport import (
    ScriptedEvent,
    ScriptedTurn,
)
from tests.support.providers.scripted_upstream import (
    USAGE,
    broken_stream,
    completion,
    error,
    event,
    streamed,
)
from tests.support.router.asgi_router import ASK, CHAT, Place, leaving
from tests.support.router.live_router import INCUMBENT

pytestmark = pytest.mark.req("B11", "F3")
# 4,000 characters, so about 1,000 tokens. The incumbent costs 1 and 2 USD per million tokens.
PROMPT: Final = "word " * 800
LONG: Final = json.dumps(
    {**json.loads(ASK), "messages": [{"role": "user", "content": PROMPT}]}
).encode()
STREAMED: Final = LONG[:-1] + b',"stream":true}'
MESSAGE: Final = {
    "id": "m",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "text", "text": "x" * 40}],
    "stop_reason": "end_turn",
}
RESPONSE: Final = {
    "id": "r",
    "status": "completed",
    "model": "m",
    "output": [
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "x" * 40}],
        }
    ],
}
CHAT_ANSWER: Final = {
    "id": "c",
    "model": "m",
    "choices": [{"message": {"content": "x" * 40}, "finish_reason": "stop"}],
}
EMBEDDING: Final = {"model": "m", "data": [{"index": 0, "embedding": [0.5]}]}


def answer(body: dict[str, Any], **more: Any) -> ScriptedTurn:
    return ScriptedTurn(steps=(json.dumps({**body, **more}).encode(),))


async def row_of(
    scene: Place,
    path: str = CHAT,
    body: bytes = LONG,
) -> TrafficMinute:
    await scene.call(path, body)
    return kept_row(scene)


def kept_row(scene: Place) -> TrafficMinute:
    scene.recorder.flush(final=True)
    (row,) = scene.kept.traffic
    return row


@pytest.mark.parametrize(
    ("path", "whole", "more"),
    [
        (CHAT, CHAT_ANSWER, {}),
        ("/v1/messages", MESSAGE, {"max_tokens": 9}),
        ("/v1/responses", RESPONSE, {}),
    ],
)
async def test_an_answer_without_usage_costs_at_least_its_prompt_and_its_text(
    tmp_path: Path,
    path: str,
    whole: dict[str, Any],
    more: dict[str, Any],
) -> None:
    name = "input" if path == "/v1/responses" else "messages"
    body = {
        "model": "support",
        name: [{"role": "user", "content": PROMPT}],
        **more,
    }
    scene = Place(tmp_path, {INCUMBENT: answer(whole)})

    row = await row_of(scene, path, json.dumps(body).encode())

    assert (row.bounded, row.unpriced) == (1, 0)
    assert 1000 <= row.input_tokens <= 1010
    assert row.output_tokens == 10
    assert row.cost_usd == pytest.approx((row.input_tokens + 2 * 10) / 1e6)


async def test_a_usage_of_zeros_is_as_unknown_as_none(tmp_path: Path) -> None:
    nothing = {
        "usage": {
            "prompt_tokens": 0,
            "completion_tokens": 0,
            "total_tokens": 0,
        }
    }
    row = await row_of(Place(tmp_path, {INCUMBENT: answer(CHAT_ANSWER, **nothing)}))

    assert (row.bounded, row.output_tokens) == (1, 10)
    assert row.cost_usd >= 0.001


async def test_an_answer_with_usage_is_no_bound(tmp_path: Path) -> None:
    row = await row_of(Place(tmp_path, {INCUMBENT: completion()}))

    assert (row.bounded, row.input_tokens, row.output_tokens) == (0, 7, 5)


async def test_a_vector_has_no_output_but_its_input_is_never_free(tmp_path: Path) -> None:
    body = json.dumps({"model": "support", "input": PROMPT}).encode()
    counted = {"usage": {"prompt_tokens": 900, "total_tokens": 900}}
    known = Place(tmp_path / "known", {INCUMBENT: answer(EMBEDDING, **counted)})
    silent = Place(tmp_path / "silent", {INCUMBENT: answer(EMBEDDING)})

    row = await row_of(known, "/v1/embeddings", body)
    assert (row.bounded, row.input_tokens, row.output_tokens) == (0, 900, 0)
    row = await row_of(silent, "/v1/embeddings", body)
    assert (row.bounded, row.input_tokens, row.output_tokens) == (1, 1000, 0)


async def test_a_stream_that_its_caller_stops_costs_at_least_its_prompt(tmp_path: Path) -> None:
    turn = broken_stream(event({"content": "half"}), ScriptedEvent.HANG)
    scene = Place(tmp_path, {INCUMBENT: turn})
    await leaving(scene, STREAMED)

    row = kept_row(scene)

    assert (row.bounded, row.output_tokens) == (1, 1)
    assert row.cost_usd == pytest.approx(0.001, rel=0.02)


async def test_counts_of_an_unfinished_stream_are_bounds(tmp_path: Path) -> None:
    """Some servers repeat the usage so far in each chunk."""
    so_far = event({"content": "half"}).replace(
        b"}\n\n",
        b', "usage": {"prompt_tokens": 900, "completion_tokens": 1}}\n\n',
    )
    scene = Place(tmp_path, {INCUMBENT: broken_stream(so_far, ScriptedEvent.HANG)})
    await leaving(scene, STREAMED)

    row = kept_row(scene)

    assert (row.bounded, row.input_tokens, row.output_tokens) == (1, 900, 1)


async def test_a_stream_that_broke_off_after_its_usage_is_counted(tmp_path: Path) -> None:
    turn = broken_stream(
        event({"content": "a"}),
        event(finish="stop"),
        USAGE,
        ScriptedEvent.HANG,
    )
    scene = Place(tmp_path, {INCUMBENT: turn})
    await leaving(scene, STREAMED)

    row = kept_row(scene)

    assert (row.bounded, row.input_tokens, row.output_tokens) == (0, 7, 2)


async def test_a_stream_without_usage_is_a_bound(tmp_path: Path) -> None:
    plain = streamed("a", "b")
    silent = ScriptedTurn(
        headers=plain.headers,
        steps=tuple(step for step in plain.steps if step is not USAGE),
    )
    row = await row_of(Place(tmp_path, {INCUMBENT: silent}), body=STREAMED)

    assert (row.bounded, row.output_tokens) == (1, 2)
    assert row.cost_usd >= 0.001


async def test_a_caller_who_leaves_before_any_output_has_sent_a_prompt(tmp_path: Path) -> None:
    scene = Place(tmp_path, {INCUMBENT: ScriptedTurn(hang=True)})
    await leaving(scene, LONG)

    row = kept_row(scene)

    assert (row.bounded, row.output_tokens) == (1, 0)
    assert row.cost_usd == pytest.approx(0.001, rel=0.02)


@pytest.mark.parametrize("turn", [error(400), error(500)])
async def test_a_failed_request_costs_nothing(tmp_path: Path, turn: ScriptedTurn) -> None:
    row = await row_of(Place(tmp_path, {INCUMBENT: turn}))

    assert (row.bounded, row.unpriced, row.cost_usd) == (0, 0, 0.0)


async def test_a_tier_without_a_price_is_without_price(tmp_path: Path) -> None:
    scene = Place(tmp_path, {INCUMBENT: completion(service_tier="flex")})
    row = await row_of(scene)

    assert (row.unpriced, row.cost_usd, row.requests) == (1, 0.0, 1)
    assert (await scene.metrics())["swapproof_router_requests_without_price_total"] == 1
