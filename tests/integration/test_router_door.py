"""Requests as clients of other gateways and of browsers send them, over real HTTP."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from harness.domain.reliability.rate_limits import KeyLimits
from harness.domain.settings import CorsSettings
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import (
    Upstream,
    completion,
    running_upstream,
    streamed,
)
from tests.support.router.live_router import (
    INCUMBENT,
    KEY,
    QUICK,
    World,
    provider,
    running_router,
    snapshot,
)

PAGE = "https://chat.example.com"
HELLO: Final[list[ChatCompletionMessageParam]] = [{"role": "user", "content": "hello"}]
SETTINGS = replace(
    QUICK,
    aliases={"openai/gpt-4o": "support", "claude-haiku-*": "support", "@cf/*": "gone"},
    cors=CorsSettings((PAGE,)),
)
AUTH = {"authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with running_upstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def world(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("router")
    with running_router(snapshot(upstream.url), folder, SETTINGS) as world:
        yield world


@pytest.fixture
def client(world: World, upstream: Upstream) -> Iterator[openai.OpenAI]:
    upstream.asked.clear()
    upstream.turns.clear()
    with openai.OpenAI(base_url=f"{world.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


@pytest.mark.req("A1")
@pytest.mark.parametrize("name", ["openai/gpt-4o", "claude-haiku-4-5-20251001"])
def test_an_alias_is_answered_by_its_route_under_the_name_that_was_asked(
    client: openai.OpenAI, upstream: Upstream, name: str
) -> None:
    upstream.turns[INCUMBENT] = completion("hello")
    assert client.chat.completions.create(model=name, messages=HELLO).model == name

    upstream.turns[INCUMBENT] = streamed("hel", "lo")
    chunks = list(client.chat.completions.create(model=name, messages=HELLO, stream=True))
    assert {chunk.model for chunk in chunks} == {name}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("suport", "did you mean 'support'"),
        ("@cf/meta/llama", "there is no route '@cf/meta/llama'"),
        ("x" * 5_000, "GET /v1/models lists yours"),
    ],
)
def test_a_name_without_a_route_is_refused_with_the_nearest_and_counted(
    client: openai.OpenAI, world: World, name: str, said: str
) -> None:
    with pytest.raises(openai.NotFoundError, match=said):
        client.chat.completions.create(model=name, messages=HELLO)

    metrics = httpx.get(f"{world.url}/metrics", headers=AUTH).text
    assert f'swapgate_requests_without_route_total{{model="{name[:100]}"}} 1.0' in metrics


def test_names_without_a_route_fill_no_metric_without_bound(
    client: openai.OpenAI, world: World
) -> None:
    for number in range(120):
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model=f"unknown-{number}", messages=HELLO)

    metrics = httpx.get(f"{world.url}/metrics", headers=AUTH).text
    assert metrics.count("swapgate_requests_without_route_total{") == 101
    assert 'model="(others)"' in metrics


def test_a_page_of_a_listed_origin_may_ask_and_reads_answers_and_errors(
    upstream: Upstream, world: World
) -> None:
    chat, page = f"{world.url}/v1/chat/completions", {"origin": PAGE}
    asked = {"access-control-request-method": "POST"}
    asked["access-control-request-headers"] = "authorization,content-type"
    upstream.turns[INCUMBENT] = completion("hello")
    body = {"model": "support", "messages": HELLO}

    preflight = httpx.options(chat, headers=page | asked)
    answer = httpx.post(chat, json=body, headers=page | AUTH)
    refused = httpx.post(chat, json=body, headers=page)

    assert [r.status_code for r in (preflight, answer, refused)] == [204, 200, 401]
    assert preflight.headers["access-control-allow-headers"] == "authorization,content-type"
    assert preflight.headers["access-control-allow-methods"] == "POST"
    for response in (preflight, answer, refused):
        assert response.headers["access-control-allow-origin"] == PAGE
        assert response.headers["access-control-expose-headers"] == "*"


def test_another_page_is_refused_and_the_refusal_names_the_setting(world: World) -> None:
    models = f"{world.url}/v1/models"
    page = {"origin": "https://evil.example", "access-control-request-method": "GET"}

    preflight = httpx.options(models, headers=page)
    answer = httpx.get(models, headers=page | AUTH)

    assert preflight.status_code == 405
    assert "add their origin to router.cors.origins" in preflight.text
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_a_probe_by_head_is_answered_like_the_get_without_its_body(world: World) -> None:
    answer = httpx.head(f"{world.url}/v1/models", headers=AUTH)

    assert (answer.status_code, answer.content) == (200, b"")


MESSAGE = {"model": "support", "max_tokens": 9, "messages": HELLO}


@pytest.mark.parametrize(("status", "counted"), [(200, 42), (404, None), (500, None)])
def test_a_messages_tokens_are_counted_by_its_target_or_estimated_in_so_many_words(
    upstream: Upstream,
    tmp_path: Path,
    status: int,
    counted: int | None,
) -> None:
    claude = {"up": provider(upstream.url, kind="anthropic")}
    first = replace(snapshot(upstream.url), providers=claude)
    upstream.asked.clear()
    upstream.turns[INCUMBENT] = ScriptedTurn(status, steps=(b'{"input_tokens":42}',))

    with running_router(first, tmp_path, SETTINGS) as world:
        url = f"{world.url}/v1/messages/count_tokens?beta=true"
        answer = httpx.post(
            url, json=MESSAGE, headers=AUTH | {"anthropic-version": "2023-06-01"}
        )
        metrics = httpx.get(f"{world.url}/metrics", headers=AUTH).text

    [asked] = upstream.asked
    assert asked.path.endswith("/messages/count_tokens")
    assert asked.json == {"model": INCUMBENT, "messages": HELLO}
    assert answer.status_code == 200
    assert answer.json()["input_tokens"] == (counted or 5)
    assert answer.headers.get("x-swapgate-degraded") == (None if counted else "count_tokens")
    assert "swapgate_requests_total{" not in metrics
    assert "swapgate_attempts_total{" not in metrics


def test_a_key_counts_tokens_as_often_as_it_may_send_requests_and_asks_models_besides(
    upstream: Upstream, tmp_path: Path
) -> None:
    first = snapshot(upstream.url)
    limits = KeyLimits(requests_per_min=2)
    keys = [replace(grant, limits=limits) for grant in first.keys]
    upstream.turns[INCUMBENT] = completion("hello")

    with running_router(replace(first, keys=tuple(keys)), tmp_path, SETTINGS) as world:
        url = f"{world.url}/v1/messages/count_tokens"
        counts = [httpx.post(url, json=MESSAGE, headers=AUTH).status_code for _ in range(4)]
        chat = {"model": "support", "messages": HELLO}
        asked = httpx.post(f"{world.url}/v1/chat/completions", json=chat, headers=AUTH)

    assert counts == [200, 200, 429, 429]
    assert asked.status_code == 200


def test_an_estimate_counts_every_block_tool_and_picture(world: World) -> None:
    def estimated(**more: object) -> int:
        url = f"{world.url}/v1/messages/count_tokens"
        answer = httpx.post(url, json={**MESSAGE, **more}, headers=AUTH)
        assert answer.headers["x-swapgate-degraded"] == "count_tokens"
        return int(answer.json()["input_tokens"])

    plain = estimated()
    tools = [{"name": "t", "input_schema": {"type": "object"}, "description": "x" * 400}]
    picture = {"type": "base64", "media_type": "image/png", "data": "A" * 100_000}
    shown = [{"role": "user", "content": [{"type": "image", "source": picture}]}]

    assert plain > 0
    assert estimated(tools=tools) > plain + 100
    assert plain + 1_000 < estimated(messages=shown) < plain + 3_000
    assert estimated(system="x" * 4_000) >= plain + 1_000
