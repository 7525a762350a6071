import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from harness.providers.models.capabilities import Capabilities
from tests.support.providers.scripted_upstream import (
    completion,
    error,
    streamed,
)
from tests.support.router.asgi_router import CHAT, Place, Script
from tests.support.router.live_router import CANDIDATE, FALLBACK, INCUMBENT

TOOL = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object"}},
}
DOCUMENT = {
    "type": "file",
    "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERg=="},
}
SOUND = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}
PICTURE = {
    "type": "image_url",
    "image_url": {"url": "data:image/png;base64,AAAA"},
}
SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "s", "schema": {"type": "object"}},
}
LONG = [{"role": "user", "content": "word " * 4000}]
TOO_LONG = error(400, "too long", "context_length_exceeded")


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)["error"]
        return found


class Scene(Place):
    def __init__(
        self,
        folder: Path,
        models: dict[str, Capabilities],
        **more: Any,
    ) -> None:
        turns: Script = {name: completion() for name in (INCUMBENT, CANDIDATE, FALLBACK)}
        super().__init__(
            folder,
            turns,
            fallback=True,
            models=models,
            **more,
        )

    async def answer(self, **fields: Any) -> Answer:
        body = {
            "model": "support",
            "messages": [{"role": "user", "content": "hi"}],
            **fields,
        }
        status, headers, answer = await self.call(CHAT, json.dumps(body).encode())
        return Answer(
            status,
            {k.decode(): v.decode() for k, v in headers.items()},
            answer,
        )

    async def served(self, **fields: Any) -> str:
        answer = await self.answer(**fields)
        assert answer.status == 200
        return answer.headers["x-swapproof-target"].partition("/")[2]

    @property
    def sent(self) -> list[dict[str, Any]]:
        return [json.loads(request.body) for request in self.transport.seen]

    def models_called(self) -> list[str]:
        return [body["model"] for body in self.sent]

    def count_charged(self) -> tuple[set[str], int]:
        self.recorder.flush(final=True)
        rows = self.kept.traffic
        return {row.arm for row in rows}, sum(row.charged for row in rows)


NEEDS: dict[str, dict[str, Any]] = {
    "tools": {"tools": [TOOL]},
    "vision": {"messages": [{"role": "user", "content": [PICTURE]}]},
    "documents": {"messages": [{"role": "user", "content": [DOCUMENT]}]},
    "audio": {"messages": [{"role": "user", "content": [SOUND]}]},
    "several_choices": {"n": 2},
    "json_schema": {"response_format": SCHEMA},
    "parallel_tools": {"tools": [TOOL], "parallel_tool_calls": True},
}


@pytest.mark.req("A4", "B7")
@pytest.mark.parametrize("lack", NEEDS)
async def test_a_target_that_cannot_do_it_is_not_asked(tmp_path: Path, lack: str) -> None:
    lacking: dict[str, Any] = {lack: False}
    scene = Scene(tmp_path, {INCUMBENT: Capabilities(**lacking)})
    assert await scene.served(**NEEDS[lack]) == FALLBACK
    assert await scene.served() == INCUMBENT
    assert scene.models_called() == [FALLBACK, INCUMBENT]
    # Nobody failed.
    assert scene.count_charged() == ({"incumbent"}, 0)


@pytest.mark.req("A4")
async def test_when_nobody_can_do_it_the_client_learns_what_is_lacking_and_where(
    tmp_path: Path,
) -> None:
    lacking = {
        INCUMBENT: Capabilities(tools=False),
        FALLBACK: Capabilities(tools=False, vision=False),
    }
    scene = Scene(tmp_path, lacking)
    answer = await scene.answer(tools=[TOOL])

    assert (answer.status, answer.error["code"]) == (
        422,
        "not_supported_by_route",
    )
    listed = answer.error["targets"]
    assert [
        (
            target["target"],
            target["left_out"],
            target["reason"],
        )
        for target in listed
    ] == [
        (f"up/{INCUMBENT}", "capability", "lacks tools"),
        (f"up/{FALLBACK}", "capability", "lacks tools"),
    ]
    assert scene.models_called() == []
    assert scene.count_charged() == ({"incumbent"}, 0)
    assert [row.failed for row in scene.kept.traffic] == [0]


@pytest.mark.req("A4", "B7")
async def test_tools_are_called_one_at_a_time_when_a_target_of_the_chain_needs_it(
    tmp_path: Path,
) -> None:
    scene = Scene(tmp_path, {FALLBACK: Capabilities(parallel_tools=False)})
    answer = await scene.answer(tools=[TOOL])
    assert answer.headers["x-swapproof-degraded"] == "parallel_tool_calls"
    assert scene.sent[-1]["parallel_tool_calls"] is False

    # The one that cannot do otherwise may not know the field.
    scene.script[INCUMBENT] = error(400 + 1)
    assert await scene.served(tools=[TOOL]) == FALLBACK
    assert "parallel_tool_calls" not in scene.sent[-1]

    assert "x-swapproof-degraded" not in (await scene.answer()).headers
    asked_so = await scene.answer(tools=[TOOL], parallel_tool_calls=False)
    assert "x-swapproof-degraded" not in asked_so.headers


HINTS: dict[str, dict[str, Any]] = {
    "seed": {"seed": 7},
    "logprobs": {"logprobs": True, "top_logprobs": 2},
    "reasoning": {"reasoning_effort": "low"},
    "service_tier": {"service_tier": "flex"},
    "caching": {"prompt_cache_key": "k"},
    "top_k": {"top_k": 5},
}


@pytest.mark.req("B7")
@pytest.mark.parametrize("hint", HINTS)
async def test_a_hint_is_dropped_for_the_target_that_lacks_it_alone_and_that_is_said(
    tmp_path: Path, hint: str
) -> None:
    lacking: dict[str, Any] = {hint: False}
    scene = Scene(tmp_path, {FALLBACK: Capabilities(**lacking)})
    kept = await scene.answer(**HINTS[hint])
    fields = HINTS[hint]
    assert "x-swapproof-degraded" not in kept.headers
    assert fields.items() <= scene.sent[-1].items()

    scene.script[INCUMBENT] = error(401)
    dropped = await scene.answer(**HINTS[hint])
    assert dropped.headers["x-swapproof-degraded"] == hint
    assert not fields.keys() & scene.sent[-1].keys()
    assert "x-swapproof-degraded" not in (await scene.answer()).headers


@pytest.mark.req("B7")
async def test_all_that_is_degraded_is_said_in_one_header_of_a_stream_too(
    tmp_path: Path,
) -> None:
    weak = Capabilities(parallel_tools=False, seed=False, caching=False)
    scene = Scene(tmp_path, {INCUMBENT: weak})
    scene.script[INCUMBENT] = streamed("a")
    marked = [
        {
            "type": "text",
            "text": "hi",
            "cache_control": {"type": "ephemeral"},
        }
    ]
    answer = await scene.answer(
        tools=[TOOL],
        seed=1,
        stream=True,
        messages=[{"role": "user", "content": marked}],
    )
    said = answer.headers["x-swapproof-degraded"]
    assert said == "parallel_tool_calls, seed, caching"
    sent = scene.sent[-1]
    assert sent["messages"][0]["content"] == [{"type": "text", "text": "hi"}]


@pytest.mark.req("A4", "B3")
@pytest.mark.parametrize("stream", [False, True])
async def test_a_prompt_too_long_goes_to_a_larger_window_and_to_no_other(
    tmp_path: Path, *, stream: bool
) -> None:
    windows = {
        INCUMBENT: Capabilities(context_window=8_000),
        FALLBACK: Capabilities(context_window=16_000),
    }
    scene = Scene(tmp_path, windows)
    scene.script[INCUMBENT] = TOO_LONG
    scene.script[FALLBACK] = streamed("a") if stream else completion()
    assert await scene.served(stream=stream) == FALLBACK
    assert scene.models_called() == [INCUMBENT, FALLBACK]
    assert scene.count_charged() == ({"incumbent"}, 0)


@pytest.mark.req("A4", "B3")
@pytest.mark.parametrize("window", [None, 4_000, 8_000])
async def test_a_prompt_too_long_goes_to_no_window_that_is_not_known_to_be_larger(
    tmp_path: Path, window: int | None
) -> None:
    windows = {
        INCUMBENT: Capabilities(context_window=8_000),
        FALLBACK: Capabilities(context_window=window),
    }
    scene = Scene(tmp_path, windows)
    scene.script[INCUMBENT] = TOO_LONG

    answer = await scene.answer()

    assert (answer.status, answer.error["code"]) == (
        400,
        "context_length_exceeded",
    )
    assert scene.models_called() == [INCUMBENT]


@pytest.mark.req("A4")
async def test_a_window_that_is_surely_too_small_is_passed_over(tmp_path: Path) -> None:
    scene = Scene(tmp_path, {INCUMBENT: Capabilities(context_window=4_000)})
    assert await scene.served(messages=LONG) == FALLBACK
    assert await scene.served() == INCUMBENT
    assert await scene.served(max_tokens=4_000) == FALLBACK


@pytest.mark.req("A4")
async def test_an_estimate_of_tokens_refuses_no_request(tmp_path: Path) -> None:
    small = Capabilities(context_window=4_000)
    scene = Scene(tmp_path, {INCUMBENT: small, FALLBACK: small})
    assert await scene.served(messages=LONG) == INCUMBENT

    scene.script[INCUMBENT] = TOO_LONG
    answer = await scene.answer(messages=LONG)
    assert (answer.status, answer.error["message"]) == (400, "too long")


@pytest.mark.req("A4", "F4")
async def test_a_request_that_needs_what_the_canary_lacks_charges_no_arm(
    tmp_path: Path,
) -> None:
    lacking = {CANDIDATE: Capabilities(tools=False)}
    scene = Scene(tmp_path, lacking, weight_bps=10_000)
    assert await scene.served(tools=[TOOL]) == INCUMBENT
    assert await scene.served() == CANDIDATE

    assert scene.count_charged() == ({"canary"}, 0)
