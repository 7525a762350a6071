"""The official client's Responses before a target that has chats alone."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.support.providers import strict_chat
from tests.support.providers.scripted_upstream import (
    ROLE,
    Upstream,
    broken_stream,
    error,
    event,
    running_upstream,
)
from tests.support.router.live_router import (
    INCUMBENT,
    KEY,
    World,
    provider,
    running_router,
    snapshot,
)

PICTURE: Any = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}


@dataclass
class Scene:
    upstream: Upstream
    world: World
    client: openai.OpenAI

    def ask(self, given: Any = "Hello?", **more: Any) -> Any:
        return self.client.responses.create(model="support", input=given, **more)

    def last(self) -> dict[str, Any]:
        """The body that the provider got."""
        return self.upstream.asked[-1].json


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with running_upstream() as upstream:
        chats_alone = provider(upstream.url, kind="groq")
        first = snapshot(upstream.url, providers=[chats_alone])
        upstream.turns[INCUMBENT] = strict_chat.script_turn
        with (
            running_router(first, tmp_path) as world,
            openai.OpenAI(base_url=f"{world.url}/v1", api_key=KEY, max_retries=0) as client,
        ):
            yield Scene(upstream, world, client)


@pytest.mark.req("B7")
def test_what_a_request_says_survives(scene: Scene) -> None:
    schema = {"type": "object", "properties": {"colour": {"type": "string"}}}
    wanted = {"type": "json_schema", "name": "c", "schema": schema, "strict": True}
    content = [{"type": "input_text", "text": "What is it?"}, PICTURE]
    answer = scene.ask(
        [{"role": "developer", "content": "Short."}, {"role": "user", "content": content}],
        text={"format": wanted},
        max_output_tokens=50,
        temperature=0.5,
        reasoning={"effort": "low"},
        store=True,
        include=["reasoning.encrypted_content"],
    )

    assert json.loads(answer.output_text) == {"colour": "red"}
    assert answer.store is False
    assert scene.last() == {
        "model": INCUMBENT,
        "temperature": 0.5,
        "max_tokens": 50,
        "reasoning_effort": "low",
        "messages": [
            {"role": "system", "content": "Short."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is it?"},
                    {"type": "image_url", "image_url": {"url": PICTURE["image_url"]}},
                ],
            },
        ],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "c", "schema": schema, "strict": True},
        },
    }


@pytest.mark.req("B7")
@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"tools": [{"type": "web_search"}]}, "web_search"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
    ],
)
def test_what_cannot_be_said_is_refused_by_name(
    scene: Scene, fields: dict[str, Any], named: str
) -> None:
    with pytest.raises(openai.UnprocessableEntityError, match=named) as refused:
        scene.ask(**fields)
    assert refused.value.param == next(iter(fields))
    assert scene.upstream.asked == []


@pytest.mark.req("B4", "B7")
@pytest.mark.parametrize("last", [b"", b"data: [DONE]\n\n"])
def test_a_broken_stream_ends_in_an_error_and_never_as_if_it_were_whole(
    scene: Scene, last: bytes
) -> None:
    scene.upstream.turns[INCUMBENT] = broken_stream(ROLE, event({"content": "Half"}), last)
    kinds: list[str] = []

    def listen() -> None:
        for received in scene.ask(stream=True):
            kinds.append(received.type)  # noqa: PERF401 - kept though it raises

    with pytest.raises(openai.APIError, match="broke off"):
        listen()
    assert "response.output_text.delta" in kinds
    assert "response.completed" not in kinds


@pytest.mark.req("B7")
def test_the_providers_words_and_a_cut_answer_arrive(scene: Scene) -> None:
    scene.upstream.turns[INCUMBENT] = error(400, "too hot", "bad_temperature")
    with pytest.raises(openai.BadRequestError, match="too hot"):
        scene.ask()

    message = {"role": "assistant", "content": "Half"}
    scene.upstream.turns[INCUMBENT] = strict_chat.whole(message, "length")
    cut = scene.ask()
    assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")
