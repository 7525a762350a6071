import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from harness.frame.people.limits import KeyLimits
from harness.routing.settings import CorsSettings
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
    aliases={
        "openai/gpt-4o": "support",
        "claude-haiku-*": "support",
        "@cf/*": "gone",
    },
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
    client: openai.OpenAI,
    upstream: Upstream,
    name: str,
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
        ("Mistral/SUPPORT", "did you mean 'support'"),
        ("@cf/meta/llama", "there is no route '@cf/meta/llama'"),
        ("x" * 5_000, "GET /v1/models lists yours"),
    ],
)
def test_a_name_without_a_route_is_refused_with_the_nearest_and_counted(
    client: openai.OpenAI,
    world: World,
    name: str,
    said: str,
) -> None:
    with pytest.raises(openai.NotFoundError, match=said):
        client.chat.completions.create(model=name, messages=HELLO)

    metrics = httpx.get(f"{world.url}/metrics", headers=AUTH).text
    assert f'swapproof_requests_without_route_total{{model="{name[:100]}"}} 1.0' in metrics


def test_names_without_a_route_fill_no_metric_without_bound(tmp_path: Path) -> None:
    # A router of its own: it counts no name of a later test any more.
    with (
        running_router(snapshot("http://127.0.0.1:1/v1"), tmp_path, SETTINGS) as world,
        openai.OpenAI(base_url=f"{world.url}/v1", api_key=KEY, max_retries=0) as client,
    ):
        for number in range(120):
            with pytest.raises(openai.NotFoundError):
                client.chat.completions.create(model=f"unknown-{number}", messages=HELLO)
        metrics = httpx.get(f"{world.url}/metrics", headers=AUTH).text

    assert metrics.count("swapproof_requests_without_route_total{") == 101
    assert 'model="(others)"' in metrics


def test_aliases_stand_in_the_list_of_models_and_a_pattern_shows_what_it_fits(
    client: openai.OpenAI,
) -> None:
    assert [model.id for model in client.models.list()] == [
        "openai/gpt-4o",
        "other",
        "support",
    ]
    for name in ("openai/gpt-4o", "claude-haiku-4-5", "support"):
        assert client.models.retrieve(name).id == name
    for name in ("@cf/meta/llama", "unknown"):
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve(name)


TOOL = {"name": "look", "parameters": {"type": "object"}}


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        (
            "/v1/chat/completions",
            {"input": "hi"},
            "belongs to /v1/responses",
        ),
        (
            "/v1/chat/completions",
            {"prompt": "hi"},
            "belongs to /v1/completions",
        ),
        (
            "/v1/responses",
            {"messages": HELLO},
            "belongs to /v1/chat/completions",
        ),
        ("/v1/messages", {"input": "hi"}, "belongs to /v1/responses"),
        (
            "/v1/messages",
            {"contents": [{"parts": []}]},
            "belongs to Google's own API",
        ),
        (
            "/v1/responses",
            {"temperature": 1},
            "a body for /v1/responses needs `input`",
        ),
        (
            "/v1/embeddings",
            {"messages": HELLO},
            "belongs to /v1/chat/completions",
        ),
        (
            "/v1/chat/completions",
            {"messages": HELLO, "tools": [{"type": "function", **TOOL}]},
            "`tools[0]` belongs to /v1/responses",
        ),
        (
            "/v1/messages",
            {
                "messages": HELLO,
                "tools": [{"type": "function", "function": TOOL}],
            },
            "`tools[0]` belongs to /v1/chat/completions",
        ),
        (
            "/v1/completions",
            {"prompt": "hi", "echo": True},
            "`echo` has no counterpart",
        ),
        (
            "/v1/completions",
            {"prompt": "hi", "logprobs": 0},
            "`logprobs` has no counterpart",
        ),
        (
            "/v1/completions",
            {"prompt": "hi", "suffix": "s"},
            "`suffix` has no counterpart",
        ),
        (
            "/v1/completions",
            {"prompt": [[1, 2]]},
            "`prompt` must be one text",
        ),
        (
            "/v1/completions",
            {"prompt": "hi", "best_of": 2},
            "`best_of` has no counterpart",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_body_for_another_endpoint_is_refused_in_one_sentence_before_a_target_is_asked(
    world: World,
    upstream: Upstream,
    path: str,
    body: dict[str, object],
    said: str,
) -> None:
    upstream.asked.clear()

    answer = httpx.post(f"{world.url}{path}", json={"model": "support", **body}, headers=AUTH)

    assert (answer.status_code, upstream.asked) == (400, [])
    assert said in answer.json()["error"]["message"]
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("method", "path", "said"),
    [
        (
            "POST",
            "/v1/v1/messages",
            "remove one from the client's base URL; this is at /v1/messages",
        ),
        (
            "POST",
            "/chat/completions",
            "must end in /v1; this is at /v1/chat/completions",
        ),
        (
            "POST",
            "/openai/deployments/x/chat/completions",
            "at /v1/chat/completions, below",
        ),
        ("GET", "/v1/responses/resp_1", "Swapproof returns no stored answers"),
        (
            "POST",
            "/v1/responses/resp_1/cancel",
            "Swapproof returns no stored answers",
        ),
        ("POST", "/v1/messages/batches", "takes no batches"),
        ("POST", "/v1/moderations", "ask the provider"),
        ("GET", "/nothing", "there is nothing at GET /nothing"),
    ],
)
def test_a_path_that_is_not_served_is_refused_with_what_to_do_instead(
    world: World,
    method: str,
    path: str,
    said: str,
) -> None:
    answer = httpx.request(method, world.url + path, headers=AUTH)

    assert answer.status_code == 404
    assert said in answer.json()["error"]["message"]


def test_a_completion_is_answered_by_a_chat_whole_and_as_events(
    client: openai.OpenAI, upstream: Upstream
) -> None:
    upstream.turns[INCUMBENT] = completion("hello")
    whole = client.completions.create(model="support", prompt=["say it"], max_tokens=9)
    [asked] = upstream.asked
    assert asked.path.endswith("/chat/completions")
    assert asked.json["messages"] == [{"role": "user", "content": "say it"}]
    assert (whole.object, whole.choices[0].text) == (
        "text_completion",
        "hello",
    )
    assert whole.choices[0].finish_reason == "stop"

    upstream.turns[INCUMBENT] = streamed("hel", "lo")
    chunks = list(client.completions.create(model="support", prompt="say it", stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == "hello"
    assert {chunk.object for chunk in chunks} == {"text_completion"}

    upstream.turns[INCUMBENT] = ScriptedTurn(400, steps=(b'{"error":{"message":"too odd"}}',))
    with pytest.raises(openai.BadRequestError, match="too odd"):
        client.completions.create(model="support", prompt="say it")


def test_a_page_of_a_listed_origin_may_ask_and_reads_answers_and_errors(
    upstream: Upstream, world: World
) -> None:
    chat = f"{world.url}/v1/chat/completions"
    page = {"origin": PAGE}
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
    page = {
        "origin": "https://evil.example",
        "access-control-request-method": "GET",
    }

    preflight = httpx.options(models, headers=page)
    answer = httpx.get(models, headers=page | AUTH)

    assert preflight.status_code == 405
    assert "add their origin to router.cors.origins" in preflight.text
    assert preflight.headers["vary"] == answer.headers["vary"] == "origin"
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", ["/v1/models", "/", "/v1", "/health"])
def test_a_probe_by_head_is_answered_like_the_get_without_its_body(
    world: World, path: str
) -> None:
    answer = httpx.head(world.url + path, headers=AUTH)

    assert (answer.status_code, answer.content) == (200, b"")
    assert httpx.get(world.url + path, headers=AUTH).status_code == 200


def test_open_webuis_requests_are_answered_and_its_persons_stay_here(
    world: World, upstream: Upstream
) -> None:
    """As its `routers/openai.py` sends them with ENABLE_FORWARD_USER_INFO_HEADERS."""
    person = {
        "X-OpenWebUI-User-Name": "Zo%C3%AB",
        "X-OpenWebUI-User-Id": "5f0c1c7e-0d3c-4c57-8a55-0f9f0d1f2a3b",
        "X-OpenWebUI-User-Email": "zoe@example.com",
        "X-OpenWebUI-User-Role": "user",
    }
    upstream.asked.clear()
    listed = httpx.get(f"{world.url}/v1/models", headers=AUTH | person).json()
    upstream.turns[INCUMBENT] = streamed("hel", "lo")
    chat = {
        "model": listed["data"][-1]["id"],
        "messages": HELLO,
        "stream": True,
    }
    chat["stream_options"] = {"include_usage": True}
    headers = AUTH | person | {"X-OpenWebUI-Chat-Id": "c-1", "X-OpenWebUI-Message-Id": "m-1"}
    answer = httpx.post(f"{world.url}/v1/chat/completions", json=chat, headers=headers)
    upstream.turns[INCUMBENT] = completion('{"title": "Greetings"}')
    title = {
        "model": "support",
        "messages": HELLO,
        "stream": False,
        "max_tokens": 1000,
    }
    named = httpx.post(f"{world.url}/v1/chat/completions", json=title, headers=headers)

    lines = [line for line in answer.iter_lines() if line.startswith("data: ")]
    chunks = [json.loads(line[6:]) for line in lines[:-1]]
    said = [choice["delta"].get("content") or "" for c in chunks for choice in c["choices"]]
    assert ("".join(said), lines[-1]) == ("hello", "data: [DONE]")
    assert chunks[-1]["usage"]["total_tokens"] > 0
    assert named.json()["choices"][0]["message"]["content"] == '{"title": "Greetings"}'
    assert not [
        n for request in upstream.asked for n in request.headers if "openwebui" in n.lower()
    ]


MESSAGE = {
    "model": "support",
    "max_tokens": 9,
    "messages": HELLO,
}
RESPONSE = {
    "model": "support",
    "max_output_tokens": 9,
    "input": "hello",
    "store": False,
}


@pytest.mark.parametrize(
    ("kind", "path", "body"),
    [
        ("anthropic", "messages/count_tokens", MESSAGE),
        ("openai", "responses/input_tokens", RESPONSE),
    ],
)
@pytest.mark.parametrize(
    ("status", "counted"),
    [
        (200, 42),
        (404, None),
        (500, None),
    ],
)
def test_a_requests_tokens_are_counted_by_its_target_or_estimated_in_so_many_words(
    upstream: Upstream,
    tmp_path: Path,
    kind: str,
    path: str,
    body: dict[str, object],
    status: int,
    counted: int | None,
) -> None:
    providers = {"up": provider(upstream.url, kind=kind)}
    first = replace(snapshot(upstream.url), providers=providers)
    upstream.asked.clear()
    upstream.turns[INCUMBENT] = ScriptedTurn(status, steps=(b'{"input_tokens":42}',))

    with running_router(first, tmp_path, SETTINGS) as world:
        url = f"{world.url}/v1/{path}?beta=true"
        answer = httpx.post(
            url,
            json=body,
            headers=AUTH | {"anthropic-version": "2023-06-01"},
        )
        metrics = httpx.get(f"{world.url}/metrics", headers=AUTH).text

    [asked] = upstream.asked
    assert asked.path.endswith(f"/{path}")
    left_out = {"max_tokens", "max_output_tokens", "store"}
    sent = {name: value for name, value in body.items() if name not in left_out}
    assert asked.json == sent | {"model": INCUMBENT}
    assert answer.status_code == 200
    assert 0 < answer.json()["input_tokens"] <= 5 or answer.json()["input_tokens"] == counted
    degraded = None if counted else path.rpartition("/")[2]
    assert answer.headers.get("x-swapproof-degraded") == degraded
    assert "swapproof_requests_total{" not in metrics
    assert "swapproof_attempts_total{" not in metrics


def test_the_tokens_of_a_response_at_a_target_that_answers_chats_are_estimated(
    client: openai.OpenAI,
    world: World,
    upstream: Upstream,
) -> None:
    picture = {
        "type": "input_image",
        "detail": "auto",
        "image_url": "data:image/png;base64,AA",
    }
    counted = client.responses.input_tokens.count(
        model="support",
        input=[{"role": "user", "content": [picture]}],  # type: ignore[list-item, misc]
    )

    assert counted.object == "response.input_tokens"
    assert 1_600 < counted.input_tokens < 1_700
    assert upstream.asked == []
    wrong = httpx.post(f"{world.url}/v1/responses/input_tokens", json=MESSAGE, headers=AUTH)
    assert wrong.json()["error"]["code"] == "wrong_endpoint"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("content", [{}, {"input": "Hello"}])
def test_a_prompt_that_openai_stored_is_refused_with_the_way_to_send_its_text(
    client: openai.OpenAI,
    upstream: Upstream,
    content: dict[str, str],
    *,
    stream: bool,
) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        client.responses.create(
            model="support",
            prompt={"id": "pmpt_abc123", "version": "2", "variables": {"city": "Rome"}},
            stream=stream,
            extra_body=content,
        )

    assert refused.value.code == "stored_prompt_not_supported"
    assert refused.value.param == "prompt"
    assert refused.value.type == "invalid_request_error"
    assert "'pmpt_abc123'" in refused.value.message
    assert "into `instructions` or `input`" in refused.value.message
    assert upstream.asked == []


def test_a_prompt_that_is_null_does_not_refuse_a_response(
    client: openai.OpenAI, upstream: Upstream
) -> None:
    upstream.turns[INCUMBENT] = completion("hello")

    answer = client.responses.create(model="support", input="Hello", prompt=None, store=False)

    assert answer.output_text == "hello"


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
        assert answer.headers["x-swapproof-degraded"] == "count_tokens"
        return int(answer.json()["input_tokens"])

    plain = estimated()
    tools = [
        {
            "name": "t",
            "input_schema": {"type": "object"},
            "description": "x" * 400,
        }
    ]
    picture = {
        "type": "base64",
        "media_type": "image/png",
        "data": "A" * 100_000,
    }
    shown = [{"role": "user", "content": [{"type": "image", "source": picture}]}]

    assert plain > 0
    assert estimated(tools=tools) > plain + 100
    assert plain + 1_000 < estimated(messages=shown) < plain + 3_000
    assert estimated(system="x" * 4_000) >= plain + 1_000
