"""Anthropic's official client before a target that speaks OpenAI's chat alone."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anthropic
import pytest

from tests.support.providers import strict_chat
from tests.support.providers.scripted_transport import ScriptedEvent
from tests.support.providers.scripted_upstream import (
    ROLE,
    Upstream,
    broken_stream,
    completion,
    error,
    event,
    running_upstream,
)
from tests.support.router.live_router import (
    CANDIDATE,
    INCUMBENT,
    KEY,
    World,
    provider,
    running_router,
    snapshot,
    wait_until,
)

PICTURE = {
    "type": "image",
    "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"},
}
TOOL: Any = {
    "name": "weather",
    "description": "Of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
ASK: dict[str, Any] = {
    "model": "support",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "Hello?"}],
}


@dataclass
class Scene:
    upstream: Upstream
    world: World
    client: anthropic.Anthropic

    def ask(self, **more: Any) -> anthropic.types.Message:
        message: anthropic.types.Message = self.client.messages.create(**{**ASK, **more})
        return message

    def last(self) -> dict[str, Any]:
        """The body that the provider got."""
        return self.upstream.asked[-1].json


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with (
        running_upstream() as upstream,
        running_router(snapshot(upstream.url), tmp_path) as world,
        anthropic.Anthropic(base_url=world.url, api_key=KEY, max_retries=0) as client,
    ):
        upstream.turns[INCUMBENT] = strict_chat.script_turn
        yield Scene(upstream, world, client)


def weather(use: Any) -> dict[str, Any]:
    """A client's tool."""
    return {
        "type": "tool_result",
        "tool_use_id": use.id,
        "content": [{"type": "text", "text": f"{use.input['city']} is sunny"}],
    }


@pytest.mark.req("B7")
def test_what_a_request_says_survives(scene: Scene) -> None:
    scene.ask(
        system=[
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=1.a;"},
            {"type": "text", "text": "One."},
            {"type": "text", "text": "Two."},
        ],
        messages=[
            {"role": "user", "content": [PICTURE, {"type": "text", "text": "What is it?"}]},
            {"role": "assistant", "content": "A cat."},
            {"role": "user", "content": "Sure?"},
        ],
        stop_sequences=["END"],
        extra_body={"temperature": 0.5, "seed": 7, "speed": "fast", "fallbacks": []},
        tools=[TOOL],
        tool_choice={"type": "tool", "name": "weather", "disable_parallel_tool_use": True},
    )

    assert scene.last() == {
        "model": INCUMBENT,
        "max_tokens": 100,
        "temperature": 0.5,
        "seed": 7,
        "stop": ["END"],
        "messages": [
            {"role": "system", "content": "One.\n\nTwo."},
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                    {"type": "text", "text": "What is it?"},
                ],
            },
            {"role": "assistant", "content": "A cat."},
            {"role": "user", "content": "Sure?"},
        ],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "weather",
                    "description": "Of a city",
                    "parameters": TOOL["input_schema"],
                },
            }
        ],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "parallel_tool_calls": False,
    }
    headers = scene.upstream.asked[-1].headers
    assert not any(name.startswith("anthropic-") for name in headers)


@pytest.mark.req("B7")
def test_structured_output_and_thinking_survive(scene: Scene) -> None:
    schema = {"type": "object", "properties": {"colour": {"type": "string"}}}
    message = scene.ask(output_config={"format": {"type": "json_schema", "schema": schema}})
    assert json.loads(message.content[0].text) == {"colour": "red"}  # type: ignore[union-attr]
    assert scene.last()["response_format"]["json_schema"]["schema"] == schema

    thinking: Any = {"type": "enabled", "budget_tokens": 4000}
    thought, said = scene.ask(max_tokens=5000, thinking=thinking).content
    assert (thought.type, said.type) == ("thinking", "text")
    with scene.client.messages.stream(**{**ASK, "thinking": thinking}) as stream:
        streamed = stream.get_final_message().content
    assert [block.type for block in streamed] == ["thinking", "text"]
    assert streamed[0].thinking.strip() == "Thought with medium effort."  # type: ignore[union-attr]


@pytest.mark.req("B7")
def test_what_cannot_be_said_is_refused_by_name(scene: Scene) -> None:
    with pytest.raises(anthropic.UnprocessableEntityError, match="web_search_20250305"):
        scene.ask(tools=[{"type": "web_search_20250305", "name": "web_search"}])
    assert scene.upstream.asked == []


@pytest.mark.req("B7")
def test_what_one_target_alone_can_do_is_asked_of_that_one(tmp_path: Path) -> None:
    with running_upstream() as upstream:
        own = provider(upstream.url, "own", kind="anthropic")
        first = snapshot(
            upstream.url, weight_bps=10_000, providers=[own], candidate_provider="own"
        )
        upstream.turns[INCUMBENT] = strict_chat.script_turn
        upstream.turns[CANDIDATE] = error(529)
        with (
            running_router(first, tmp_path) as world,
            anthropic.Anthropic(base_url=world.url, api_key=KEY, max_retries=0) as client,
        ):
            scene = Scene(upstream, world, client)
            assert scene.ask().stop_reason == "end_turn"  # by the other target
            with pytest.raises(anthropic.InternalServerError, match="lacks a tool of type"):
                scene.ask(tools=[{"type": "web_search_20250305", "name": "web_search"}])
            assert [request.model for request in upstream.asked].count(INCUMBENT) == 1


@pytest.mark.req("B7")
def test_a_conversation_with_unsigned_thinking_moves_on_to_anthropic(tmp_path: Path) -> None:
    thinking: Any = {"type": "enabled", "budget_tokens": 4000}
    asked: dict[str, Any] = {**ASK, "max_tokens": 5000, "thinking": thinking}
    with running_upstream() as upstream:
        first = snapshot(upstream.url)
        upstream.turns[INCUMBENT] = strict_chat.script_turn
        with (
            running_router(first, tmp_path) as world,
            anthropic.Anthropic(base_url=world.url, api_key=KEY, max_retries=0) as client,
        ):
            thought, said = client.messages.create(**asked).content
            own = replace(first.providers["up"], kind="anthropic")
            world.store.put(replace(first, providers={"up": own}, etag="moved"))
            wait_until(lambda: world.holder.current and world.holder.current.etag == "moved")
            upstream.turns[INCUMBENT] = error(400, "no")
            turn = {"role": "assistant", "content": [thought, said]}
            asked["messages"] = [*ASK["messages"], turn, {"role": "user", "content": "And?"}]
            with pytest.raises(anthropic.BadRequestError):
                client.messages.create(**asked)

    sent = upstream.asked[-1]
    assert sent.path.endswith("/messages")
    (kept,) = sent.json["messages"][1]["content"]
    assert (kept["type"], sent.json["thinking"]) == ("text", thinking)


@pytest.mark.req("B7", "A4")
def test_the_providers_errors_arrive_in_anthropics_shape(scene: Scene) -> None:
    scene.upstream.turns[INCUMBENT] = error(400, "too hot", "bad_temperature")
    with pytest.raises(anthropic.BadRequestError) as told:
        scene.ask()
    assert told.value.body["error"]["message"] == "too hot"  # type: ignore[index]
    assert told.value.body["error"]["type"] == "invalid_request_error"  # type: ignore[index]

    scene.upstream.turns[INCUMBENT] = completion(choices=[])
    with pytest.raises(anthropic.InternalServerError, match="malformed"):
        scene.ask()


BREAKS = {
    "no finish reason": (ROLE, event({"content": "Half a"}), b"data: [DONE]\n\n"),
    "an end without a word": (ROLE, event({"content": "Half a"})),
    "a reset": (ROLE, event({"content": "Half a"}), 0.05, ScriptedEvent.RESET),
    "an error event": (
        ROLE,
        event({"content": "Half a"}),
        0.05,
        b'data: {"error":{"message":"gone","code":"server_error"}}\n\n',
    ),
    "no JSON": (ROLE, event({"content": "Half a"}), 0.05, b"data: {oops\n\n"),
}


@pytest.mark.req("B4", "B7")
@pytest.mark.parametrize("how", BREAKS)
def test_a_broken_stream_ends_in_an_error_and_never_as_if_it_were_whole(
    scene: Scene, how: str
) -> None:
    scene.upstream.turns[INCUMBENT] = broken_stream(*BREAKS[how])
    kinds: list[str] = []

    def listen() -> None:
        for received in scene.client.messages.create(**ASK, stream=True):
            kinds.append(received.type)  # noqa: PERF401 - kept though it raises

    with pytest.raises(anthropic.APIStatusError, match="broke off"):
        listen()
    assert "content_block_delta" in kinds
    assert not {"message_delta", "message_stop"} & set(kinds)
