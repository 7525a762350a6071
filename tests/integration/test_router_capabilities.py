"""What targets can do, asked with the official client through a real router."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest

from harness.domain.routing.capabilities import Capabilities
from tests.support.providers.scripted_upstream import (
    Upstream,
    completion,
    error,
    running_upstream,
    streamed,
)
from tests.support.router.live_router import (
    CANDIDATE,
    FALLBACK,
    INCUMBENT,
    KEY,
    World,
    provider,
    running_router,
    snapshot,
)

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}}
LONG = [{"role": "user", "content": "word " * 4000}]
TOO_LONG = error(400, "too long", "context_length_exceeded")


@dataclass
class Scene:
    upstream: Upstream
    world: World
    client: openai.OpenAI

    def ask(self, **fields: Any) -> Any:
        """The raw answer. Its target is in the headers."""
        fields = {"messages": [{"role": "user", "content": "hi"}], **fields}
        return self.client.chat.completions.with_raw_response.create(model="support", **fields)

    def served(self, **fields: Any) -> str:
        return str(self.ask(**fields).headers["x-swapgate-target"]).partition("/")[2]

    def models_called(self) -> list[str]:
        return [request.model for request in self.upstream.asked]


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with running_upstream() as upstream:
        for model in (INCUMBENT, CANDIDATE, FALLBACK):
            upstream.turns[model] = completion(model=model)
        yield upstream


Stage = Callable[..., AbstractContextManager[Scene]]


@pytest.fixture
def stage(upstream: Upstream, tmp_path: Path) -> Stage:
    @contextmanager
    def staged(models: dict[str, Capabilities], **more: Any) -> Iterator[Scene]:
        first = snapshot(
            upstream.url,
            fallback=True,
            providers=[provider(upstream.url, models=models)],
            **more,
        )
        with (
            running_router(first, tmp_path) as world,
            openai.OpenAI(base_url=f"{world.url}/v1", api_key=KEY, max_retries=2) as client,
        ):
            yield Scene(upstream, world, client)

    return staged


NEEDS: dict[str, dict[str, Any]] = {
    "tools": {"tools": [TOOL]},
    "vision": {"messages": [{"role": "user", "content": [PICTURE]}]},
    "json_schema": {"response_format": SCHEMA},
    "parallel_tools": {"tools": [TOOL], "parallel_tool_calls": True},
}


@pytest.mark.req("A4", "B7")
@pytest.mark.parametrize("lack", NEEDS)
def test_a_target_that_cannot_do_it_is_not_asked(stage: Stage, lack: str) -> None:
    with stage({INCUMBENT: Capabilities(**{lack: False})}) as scene:
        assert scene.served(**NEEDS[lack]) == FALLBACK
        assert scene.served() == INCUMBENT
        assert scene.models_called() == [FALLBACK, INCUMBENT]
        # Nobody failed.
        assert sum(row.charged for row in scene.world.wait_for_traffic(2)) == 0


@pytest.mark.req("A4")
def test_when_nobody_can_do_it_the_client_learns_what_is_lacking_and_where(
    stage: Stage,
) -> None:
    lacking = {
        INCUMBENT: Capabilities(tools=False),
        FALLBACK: Capabilities(tools=False, vision=False),
    }
    with stage(lacking) as scene:
        with pytest.raises(openai.UnprocessableEntityError) as told:
            scene.ask(tools=[TOOL])

        assert told.value.code == "not_supported_by_route"
        listed = told.value.body["targets"]  # type: ignore[index]  # JSON
        assert [
            (target["target"], target["left_out"], target["reason"]) for target in listed
        ] == [
            (f"up/{INCUMBENT}", "capability", "lacks tools"),
            (f"up/{FALLBACK}", "capability", "lacks tools"),
        ]
        assert scene.models_called() == []
        (row,) = scene.world.wait_for_traffic(1)
        assert (row.failed, row.charged) == (0, 0)


@pytest.mark.req("A4", "B7")
def test_tools_are_called_one_at_a_time_when_a_target_of_the_chain_needs_it(
    stage: Stage,
) -> None:
    with stage({FALLBACK: Capabilities(parallel_tools=False)}) as scene:
        answer = scene.ask(tools=[TOOL])
        assert answer.headers["x-swapgate-degraded"] == "parallel_tool_calls"
        assert scene.upstream.asked[-1].json["parallel_tool_calls"] is False

        # The one that cannot do otherwise may not know the field.
        scene.upstream.turns[INCUMBENT] = error(400 + 1)
        assert scene.served(tools=[TOOL]) == FALLBACK
        assert "parallel_tool_calls" not in scene.upstream.asked[-1].json

        assert "x-swapgate-degraded" not in scene.ask().headers
        asked_so = scene.ask(tools=[TOOL], parallel_tool_calls=False)
        assert "x-swapgate-degraded" not in asked_so.headers


HINTS: dict[str, dict[str, Any]] = {
    "seed": {"seed": 7},
    "logprobs": {"logprobs": True, "top_logprobs": 2},
    "reasoning": {"reasoning_effort": "low"},
    "service_tier": {"service_tier": "flex"},
    "caching": {"prompt_cache_key": "k"},
    "top_k": {"extra_body": {"top_k": 5}},
}


@pytest.mark.req("B7")
@pytest.mark.parametrize("hint", HINTS)
def test_a_hint_is_dropped_for_the_target_that_lacks_it_alone_and_that_is_said(
    stage: Stage, hint: str
) -> None:
    with stage({FALLBACK: Capabilities(**{hint: False})}) as scene:
        kept = scene.ask(**HINTS[hint])
        fields = HINTS[hint].get("extra_body", HINTS[hint])
        assert "x-swapgate-degraded" not in kept.headers
        assert fields.items() <= scene.upstream.asked[-1].json.items()

        scene.upstream.turns[INCUMBENT] = error(401)
        dropped = scene.ask(**HINTS[hint])
        assert dropped.headers["x-swapgate-degraded"] == hint
        assert not fields.keys() & scene.upstream.asked[-1].json.keys()
        assert "x-swapgate-degraded" not in scene.ask().headers


@pytest.mark.req("B7")
def test_all_that_is_degraded_is_said_in_one_header_of_a_stream_too(stage: Stage) -> None:
    weak = Capabilities(parallel_tools=False, seed=False, caching=False)
    with stage({INCUMBENT: weak}) as scene:
        scene.upstream.turns[INCUMBENT] = streamed("a")
        marked = [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]
        answer = scene.ask(
            tools=[TOOL], seed=1, stream=True, messages=[{"role": "user", "content": marked}]
        )
        said = answer.headers["x-swapgate-degraded"]
        assert said == "parallel_tool_calls, seed, caching"
        sent = scene.upstream.asked[-1].json
        assert sent["messages"][0]["content"] == [{"type": "text", "text": "hi"}]


@pytest.mark.req("A4", "B3")
@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_too_long_goes_to_a_larger_window_and_to_no_other(
    stage: Stage, *, stream: bool
) -> None:
    windows = {
        INCUMBENT: Capabilities(context_window=8_000),
        FALLBACK: Capabilities(context_window=16_000),
    }
    with stage(windows) as scene:
        scene.upstream.turns[INCUMBENT] = TOO_LONG
        scene.upstream.turns[FALLBACK] = streamed("a") if stream else completion()
        if stream:
            answer = scene.ask(stream=True)
            assert [c.choices[0].delta.content for c in answer.parse() if c.choices][1] == "a"
        else:
            assert scene.served() == FALLBACK
        assert scene.models_called() == [INCUMBENT, FALLBACK]
        assert sum(row.charged for row in scene.world.wait_for_traffic(1)) == 0


@pytest.mark.req("A4", "B3")
@pytest.mark.parametrize("window", [None, 4_000, 8_000])
def test_a_prompt_too_long_goes_to_no_window_that_is_not_known_to_be_larger(
    stage: Stage, window: int | None
) -> None:
    windows = {
        INCUMBENT: Capabilities(context_window=8_000),
        FALLBACK: Capabilities(context_window=window),
    }
    with stage(windows) as scene:
        scene.upstream.turns[INCUMBENT] = TOO_LONG

        with pytest.raises(openai.BadRequestError) as told:
            scene.ask()

        assert told.value.code == "context_length_exceeded"
        assert scene.models_called() == [INCUMBENT]


@pytest.mark.req("A4")
def test_a_window_that_is_surely_too_small_is_passed_over(stage: Stage) -> None:
    with stage({INCUMBENT: Capabilities(context_window=4_000)}) as scene:
        assert scene.served(messages=LONG) == FALLBACK
        assert scene.served() == INCUMBENT
        assert scene.served(max_tokens=4_000) == FALLBACK


@pytest.mark.req("A4")
def test_an_estimate_of_tokens_refuses_no_request(stage: Stage) -> None:
    small = Capabilities(context_window=4_000)
    with stage({INCUMBENT: small, FALLBACK: small}) as scene:
        assert scene.served(messages=LONG) == INCUMBENT

        scene.upstream.turns[INCUMBENT] = TOO_LONG
        with pytest.raises(openai.BadRequestError, match="too long"):
            scene.ask(messages=LONG)


@pytest.mark.req("A4", "F4")
def test_a_canary_that_cannot_do_what_the_incumbent_can_is_charged(stage: Stage) -> None:
    lacking = {CANDIDATE: Capabilities(tools=False)}
    with stage(lacking, weight_bps=10_000) as scene:
        assert scene.served(tools=[TOOL]) == INCUMBENT
        assert scene.served() == CANDIDATE

        traffic = scene.world.wait_for_traffic(2)
        assert {row.arm for row in traffic} == {"canary"}
        assert sum(row.charged for row in traffic) == 1
