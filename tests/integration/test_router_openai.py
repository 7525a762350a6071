import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
import zstandard

from harness.providers.models.capabilities import Capabilities
from harness.routing.table import Snapshot
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import (
    EVENTS,
    Upstream,
    completion,
    error,
    gzipped,
    running_upstream,
)
from tests.support.router.live_router import (
    INCUMBENT,
    KEY,
    NARROW_KEY,
    UPSTREAM_KEY,
    World,
    provider,
    running_router,
    snapshot,
)

HELLO = [{"role": "user", "content": "hello"}]
SPOKEN = json.dumps({"model": "support", "messages": HELLO}).encode()


@pytest.fixture(scope="module")
def world(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running_router(snapshot(upstream.url), tmp_path_factory.mktemp("router")) as world:
        yield world


@pytest.fixture
def client(world: World, upstream: Upstream) -> Iterator[openai.OpenAI]:
    upstream.asked.clear()
    upstream.turns.clear()
    base = f"{world.url}/v1"
    with openai.OpenAI(base_url=base, api_key=KEY, max_retries=0) as client:
        yield client


def ask(client: openai.OpenAI, **more: object) -> openai.types.chat.ChatCompletion:
    chat_completion: openai.types.chat.ChatCompletion = client.chat.completions.create(
        **{"model": "support", "messages": HELLO, **more}  # type: ignore[call-overload]
    )
    return chat_completion


@pytest.mark.spine
@pytest.mark.req("A1", "A2")
def test_only_model_changes_on_the_way_there_and_back(
    client: openai.OpenAI,
    upstream: Upstream,
    world: World,
) -> None:
    turn = upstream.turns[INCUMBENT] = completion("grüße", system_fingerprint="fp")
    sent = (
        '{ "x_unknown":[1.0, 12345678901234567890123, "\\u00e9\\ud83d"],\n "model" : "support"'
        ',"messages":[{"role":"user","content":"say \\"model\\":\\"support\\""}] ,"seed":7}'
    )
    raw = client._client.post(
        f"{world.url}/v1/chat/completions",
        content=sent.encode(),
        headers={
            "authorization": f"Bearer {KEY}",
            "content-type": "application/json",
        },
    )

    assert raw.status_code == 200
    assert upstream.asked[-1].body.decode() == sent.replace(
        '"model" : "support"', f'"model" : "{INCUMBENT}"'
    )
    (body,) = turn.steps
    assert isinstance(body, bytes)
    assert raw.content == body.replace(b'"model" : "m-1"', b'"model" : "support"')


def test_the_callers_key_never_goes_upstream(client: openai.OpenAI, upstream: Upstream) -> None:
    upstream.turns[INCUMBENT] = completion()

    ask(client, extra_headers={"x-private": "of the caller", "cookie": "a=b"})

    headers = upstream.asked[-1].headers
    assert headers["authorization"] == f"Bearer {UPSTREAM_KEY}"
    assert headers["x-team"] == "router"
    assert KEY not in json.dumps(headers)
    assert "x-private" not in headers
    assert "cookie" not in headers


def test_an_answer_that_is_compressed_unasked_is_read(
    client: openai.OpenAI, upstream: Upstream
) -> None:
    upstream.turns[INCUMBENT] = gzipped(completion("small"))

    assert ask(client).choices[0].message.content == "small"


def test_wrong_keys_routes_and_bodies_get_openais_errors(
    world: World,
    client: openai.OpenAI,
    upstream: Upstream,
) -> None:
    base = f"{world.url}/v1"
    with openai.OpenAI(base_url=base, api_key="sk-sg-bad", max_retries=0) as stranger:
        with pytest.raises(openai.AuthenticationError) as refused:
            ask(stranger)
        assert refused.value.code == "invalid_api_key"
    with openai.OpenAI(base_url=base, api_key=NARROW_KEY, max_retries=0) as narrow:
        with pytest.raises(openai.PermissionDeniedError):
            ask(narrow)
        assert [model.id for model in narrow.models.list()] == ["other"]
    with pytest.raises(openai.NotFoundError) as unknown:
        ask(client, model="gpt-9")
    assert unknown.value.code == "model_not_found"
    assert [model.id for model in client.models.list()] == [
        "other",
        "support",
    ]
    assert client.models.retrieve("other").id == "other"
    assert not upstream.asked


@pytest.mark.req("A1")
@pytest.mark.parametrize(
    ("coding", "body", "status", "said"),
    [
        ("gzip", gzip.compress(SPOKEN), 200, ""),
        ("gzip, zstd", zstandard.compress(gzip.compress(SPOKEN)), 200, ""),
        ("x-gzip", gzip.compress(SPOKEN), 200, ""),
        ("identity", SPOKEN, 200, ""),
        ("compress", SPOKEN, 415, "send one of zstd, gzip, deflate, br"),
        (
            "gzip",
            gzip.compress(SPOKEN)[:-4],
            400,
            "encoding gzip ends too early",
        ),
        (
            "gzip",
            gzip.compress(b"") * 10_000 + gzip.compress(SPOKEN),
            415,
            "coding gzip",
        ),
    ],
    ids=["gzip", "twice", "x-gzip", "identity", "unknown", "cut", "members"],
)
def test_a_compressed_request_is_read_or_its_coding_named(
    world: World,
    client: openai.OpenAI,
    upstream: Upstream,
    coding: str,
    body: bytes,
    status: int,
    said: str,
) -> None:
    upstream.turns[INCUMBENT] = completion("hello")
    headers = {"authorization": f"Bearer {KEY}", "content-encoding": coding}

    raw = client._client.post(
        f"{world.url}/v1/chat/completions",
        content=body,
        headers={**headers, "content-type": "application/json"},
    )

    assert (raw.status_code, said in raw.text) == (status, True)
    assert [request.headers.get("content-encoding") for request in upstream.asked] == (
        [None] if status == 200 else []
    )


def test_other_methods_types_and_paths_are_refused(world: World, client: openai.OpenAI) -> None:
    http = client._client
    auth = {"authorization": f"Bearer {KEY}"}

    chat = f"{world.url}/v1/chat/completions"
    assert http.get(chat, headers=auth).status_code == 405
    assert http.get(f"{world.url}/v1/nothing", headers=auth).status_code == 404
    xml = {**auth, "content-type": "text/xml"}
    assert http.post(chat, content=b"<a/>", headers=xml).status_code == 415
    assert http.get(f"{world.url}/metrics").status_code == 401
    metrics = http.get(f"{world.url}/metrics", headers=auth)
    assert "swapproof_routing_revision 3.0\n" in metrics.text
    assert http.get(f"{world.url}/healthz").json() == {"status": "ok"}
    assert http.get(f"{world.url}/readyz").json() == {"status": "ok"}


def test_a_stream_that_the_provider_refuses_is_an_error_and_no_stream(
    client: openai.OpenAI, upstream: Upstream
) -> None:
    upstream.turns[INCUMBENT] = error(422, "no such tool")

    with pytest.raises(openai.UnprocessableEntityError, match="no such tool"):
        ask(client, stream=True)
    assert EVENTS["content-type"] in upstream.asked[-1].headers["accept"]


def native(url: str) -> Snapshot:
    own = provider(url, models={INCUMBENT: Capabilities(responses="native")})
    return snapshot(url, providers=[own])


FAILED = (
    b'event: response.failed\ndata: {"type":"response.failed","sequence_number":1,"response":'
    b'{"id":"r","model":"gpt-x","error":{"code":"context_length_exceeded",'
    b'"message":"too long for us"}}}\n\n'
)


def test_an_input_that_is_found_too_long_in_the_stream_is_the_clients_mistake(
    tmp_path: Path,
) -> None:
    with running_upstream() as upstream:
        upstream.turns[INCUMBENT] = ScriptedTurn(headers=EVENTS, steps=(FAILED,))
        with (
            running_router(native(upstream.url), tmp_path) as world,
            openai.OpenAI(base_url=f"{world.url}/v1", api_key=KEY, max_retries=0) as client,
            pytest.raises(openai.BadRequestError, match="too long for us"),
        ):
            list(client.responses.create(model="support", input="Hello?", stream=True))
