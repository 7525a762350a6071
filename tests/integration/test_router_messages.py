import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anthropic
import httpx
import pytest

from evals.sim.simulator import Simulator
from harness.providers.models.capabilities import Capabilities
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import running_upstream
from tests.support.router.live_router import (
    KEY,
    NARROW_KEY,
    QUICK,
    UPSTREAM_KEY,
    running_router,
    snapshot,
)
from tests.support.router.simulated_router import (
    HELLO,
    HURRIED,
    OTHER,
    OWN,
    SPARE,
    SimScene,
    before_sim,
    served,
    snapshot_of,
)

ASK: dict[str, Any] = {
    "model": "support",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": HELLO}],
}


def client_of(url: str, key: str = KEY) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=url, api_key=key, max_retries=0)


@pytest.fixture
def client(scene: SimScene) -> Iterator[anthropic.Anthropic]:
    with client_of(scene.world.url) as client:
        yield client


def create_message(client: anthropic.Anthropic, **more: Any) -> anthropic.types.Message:
    message: anthropic.types.Message = client.messages.create(**{**ASK, **more})
    return message


def kind_of(error: anthropic.APIStatusError) -> tuple[str, str]:
    body = error.body
    assert isinstance(body, dict)
    assert body["type"] == "error"
    assert body["request_id"] == error.response.headers["x-swapproof-request-id"]
    assert error.request_id == body["request_id"]
    return str(body["error"]["type"]), str(body["error"]["message"])


def test_our_own_errors_are_raised_as_anthropics(
    scene: SimScene, client: anthropic.Anthropic
) -> None:
    url = scene.world.url
    with client_of(url, "sk-sg-bad") as stranger:
        with pytest.raises(anthropic.AuthenticationError) as unknown_key:
            create_message(stranger)
        with pytest.raises(anthropic.AuthenticationError):
            stranger.models.list()
    with (
        client_of(url, NARROW_KEY) as narrow,
        pytest.raises(anthropic.PermissionDeniedError) as forbidden,
    ):
        create_message(narrow)
    with pytest.raises(anthropic.NotFoundError) as no_route:
        create_message(client, model="claude-0")
    with pytest.raises(anthropic.BadRequestError) as no_boolean:
        client.post(
            "/v1/messages",
            body={"model": "support", "stream": 1},
            cast_to=object,
        )
    with pytest.raises(anthropic.APIStatusError) as method:
        client.get("/v1/messages", cast_to=object)

    assert kind_of(unknown_key.value)[0] == "authentication_error"
    assert kind_of(forbidden.value)[0] == "permission_error"
    assert kind_of(no_route.value) == (
        "not_found_error",
        "there is no route 'claude-0'; GET /v1/models lists yours",
    )
    assert kind_of(no_boolean.value)[0] == "invalid_request_error"
    assert kind_of(method.value)[0] == "invalid_request_error"


def test_limits_speak_anthropics_language(
    sim: Simulator,
    sim_url: str,
    tmp_path: Path,
) -> None:
    tight = replace(HURRIED, max_body_bytes=200)
    with (
        before_sim(sim, sim_url, tmp_path, tight) as scene,
        client_of(scene.world.url) as client,
        pytest.raises(anthropic.RequestTooLargeError) as large,
    ):
        create_message(client, system="x" * 500)
    assert kind_of(large.value)[0] == "request_too_large"

    full = replace(HURRIED, max_concurrent=0)
    with (
        before_sim(sim, sim_url, tmp_path, full) as scene,
        client_of(scene.world.url) as client,
        pytest.raises(anthropic.InternalServerError) as busy,
    ):
        create_message(client)
    assert (busy.value.status_code, kind_of(busy.value)[0]) == (
        503,
        "overloaded_error",
    )


def test_either_header_carries_the_key_but_only_on_anthropics_paths(
    scene: SimScene, client: anthropic.Anthropic
) -> None:
    url = scene.world.url
    http = client._client
    bearer = {"authorization": f"Bearer {KEY}"}
    own = {"x-api-key": KEY}

    def status(
        path: str,
        headers: dict[str, str],
        **body: Any,
    ) -> int:
        return http.post(f"{url}{path}", headers=headers, json=body).status_code

    assert status("/v1/messages", bearer, **ASK) == 200
    assert status("/v1/messages", own, **ASK) == 200
    assert status("/v1/messages", {**own, "authorization": "Bearer no"}, **ASK) == 200
    assert status("/v1/messages", {"x-api-key": "no"}, **ASK) == 401
    chat = {name: ASK[name] for name in ("model", "messages")}
    assert status("/v1/chat/completions", bearer, **chat) == 200
    assert status("/v1/chat/completions", own, **chat) == 401
    assert http.get(f"{url}/metrics", headers=own).status_code == 401


def test_models_are_listed_for_anthropics_client(client: anthropic.Anthropic) -> None:
    listed = client.models.list()

    assert [(model.id, model.type, model.display_name) for model in listed] == [
        ("other", "model", "other"),
        ("support", "model", "support"),
    ]
    assert client.models.retrieve("other").created_at.year == 1970
    with pytest.raises(anthropic.NotFoundError) as unknown:
        client.models.retrieve("claude-0")
    assert kind_of(unknown.value)[0] == "not_found_error"


WHOLE = (
    b'{ "id":"m", "type":"message","role":"assistant", "model" : "claude-x","content":'
    b'[{"type":"text","text":"\\"model\\": 1.0"}],"stop_reason":"end_turn",'
    b'"usage":{"input_tokens":12345678901234567890,"output_tokens":1.0e0} }'
)


@pytest.mark.req("A2")
@pytest.mark.parametrize("version", ["", "/v1", "/v1/"])
def test_a_provider_of_the_kind_anthropic_is_asked_as_it_expects(
    tmp_path: Path, version: str
) -> None:
    headers = {
        "content-type": "application/json",
        "anthropic-organization-id": "ours",
        "request-id": "req_theirs",
    }
    body = (
        '{"x":[1.0, 12345678901234567890123], "model" :"support","max_tokens":1,'
        ' "messages":[{"role":"user","content":"\\u00e9"}] }'
    )
    with running_upstream() as upstream:
        base = upstream.url.removesuffix("/v1")
        upstream.turns["m-incumbent"] = ScriptedTurn(headers=headers, steps=(WHOLE,))
        first = snapshot(f"{base}{version}")
        up = replace(first.providers["up"], kind="anthropic")
        with (
            running_router(replace(first, providers={"up": up}), tmp_path, QUICK) as world,
            client_of(world.url) as client,
        ):
            sent = {
                "x-api-key": KEY,
                "content-type": "application/json",
                "anthropic-beta": "files-1,tools-2",
                "x-private": "of the caller",
            }
            raw = client._client.post(f"{world.url}/v1/messages", content=body, headers=sent)
            create_message(client, extra_headers={"anthropic-version": "2030-01-01"})

    assert raw.content == WHOLE.replace(b'"claude-x"', b'"support"')
    assert raw.headers["request-id"] == "req_theirs"
    assert "anthropic-organization-id" not in raw.headers
    one, two = upstream.asked
    assert one.path == two.path == "/v1/messages"
    assert one.body.decode() == body.replace('"support"', '"m-incumbent"')
    assert one.headers["x-api-key"] == UPSTREAM_KEY
    assert one.headers["anthropic-version"] == "2023-06-01"
    assert two.headers["anthropic-version"] == "2030-01-01"
    assert one.headers["anthropic-beta"] == "files-1,tools-2"
    assert one.headers["x-team"] == "router"
    assert "authorization" not in one.headers
    assert "x-private" not in one.headers
    assert KEY not in json.dumps([one.headers, two.headers])


def test_what_the_operator_sets_wins_over_the_clients_header_or_joins_its_list(
    tmp_path: Path,
) -> None:
    with running_upstream() as upstream:
        upstream.turns["m-incumbent"] = ScriptedTurn(steps=(WHOLE,))
        first = snapshot(upstream.url)
        fixed = {
            "Anthropic-Version": "2023-01-01",
            "Anthropic-Beta": "ours-1,files-1",
        }
        up = replace(first.providers["up"], kind="anthropic", extra_headers=fixed)
        with (
            running_router(replace(first, providers={"up": up}), tmp_path, QUICK) as world,
            client_of(world.url) as client,
        ):
            create_message(client, extra_headers={"anthropic-version": "2030-01-01"})
            given = [
                ("x-api-key", KEY),
                ("anthropic-beta", "files-1"),
                ("anthropic-beta", "b"),
            ]
            body = {
                "model": "support",
                "max_tokens": 9,
                "messages": [{"role": "user", "content": "hi"}],
            }
            httpx.post(f"{world.url}/v1/messages", json=body, headers=given)

    one, two = upstream.asked
    assert one.headers["anthropic-version"] == "2023-01-01"
    assert one.headers["anthropic-beta"] == "ours-1,files-1"
    assert two.headers["anthropic-beta"] == "ours-1,files-1,b"


@pytest.mark.req("B7")
def test_a_target_that_does_not_speak_messages_is_left_out(
    sim: Simulator,
    sim_url: str,
    tmp_path: Path,
) -> None:
    first = snapshot_of(sim_url)
    models = dict.fromkeys((OWN, OTHER), Capabilities(chat=False, messages=False))
    up = replace(first.providers["up"], models=models)
    first = replace(first, providers={**first.providers, "up": up})
    sim.stats.clear()
    with (
        running_router(first, tmp_path, QUICK) as world,
        client_of(world.url) as client,
    ):
        raw = client.messages.with_raw_response.create(**ASK)
        assert served(raw.headers) == SPARE
        with pytest.raises(anthropic.UnprocessableEntityError) as refused:
            create_message(client, model="other")

    kind, message = kind_of(refused.value)
    assert kind == "invalid_request_error"
    assert "up/sim-worse: lacks the messages endpoint" in message
    assert message.endswith("it answers at /v1/embeddings, /v1/responses")
    assert SimScene(sim, world).requests_to(OWN) == 0
