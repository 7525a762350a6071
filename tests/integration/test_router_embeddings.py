"""POST /v1/embeddings with the official client: the same loop, another answer."""

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from harness.domain.routing.target import RequestPatch
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import Upstream, completion, error
from tests.support.router.live_router import (
    FALLBACK,
    INCUMBENT,
    KEY,
    World,
    running_router,
    snapshot,
)

BODY = (
    b'{"object" : "list", "model":"m", "data":[{"object":"embedding","index":0,'
    b'"embedding":[0.25, -1e-3]}],"usage":{"prompt_tokens":7,"total_tokens":7}, "x":1.0}'
)
VECTORS = ScriptedTurn(steps=(BODY,))


@pytest.fixture
def world(upstream: Upstream, tmp_path: Path) -> Iterator[World]:
    upstream.asked.clear()
    upstream.turns.clear()
    with running_router(snapshot(upstream.url, fallback=True), tmp_path) as world:
        yield world


@pytest.fixture
def client(world: World) -> Iterator[openai.OpenAI]:
    base = f"{world.url}/v1"
    with openai.OpenAI(base_url=base, api_key=KEY, max_retries=0) as client:
        yield client


@pytest.mark.req("A2")
def test_vectors_come_back_under_the_routes_name_and_are_recorded(
    client: openai.OpenAI, upstream: Upstream, world: World
) -> None:
    upstream.turns[INCUMBENT] = VECTORS

    raw = client.embeddings.with_raw_response.create(
        model="support", input=["hello"], encoding_format="float"
    )
    made = raw.parse()

    assert made.data[0].embedding == [0.25, -1e-3]
    assert made.model == "support"
    assert raw.content.endswith(b'"x":1.0}')
    assert raw.headers["x-swapgate-target"] == f"up/{INCUMBENT}"
    (asked,) = upstream.asked
    assert asked.path == "/v1/embeddings"
    assert asked.json["input"] == ["hello"]
    (row,) = world.wait_for_traffic(1)
    assert (row.input_tokens, row.output_tokens, row.cost_usd) == (7, 0, 7e-6)


@pytest.mark.req("A2", "B4")
def test_both_endpoints_of_a_target_share_its_breaker(
    client: openai.OpenAI, upstream: Upstream
) -> None:
    upstream.turns = {INCUMBENT: error(401), FALLBACK: VECTORS}
    client.embeddings.create(model="support", input="hello", encoding_format="float")
    upstream.turns = {INCUMBENT: completion("no"), FALLBACK: completion("spare")}

    done = client.chat.completions.create(
        model="support", messages=[{"role": "user", "content": "hi"}]
    )

    assert done.choices[0].message.content == "spare"


def test_a_targets_settings_about_words_are_left_out(
    upstream: Upstream, tmp_path: Path
) -> None:
    upstream.turns = {INCUMBENT: VECTORS}
    upstream.asked.clear()
    patch = RequestPatch(prompt_addendum="be brief", parameters={"temperature": 0})
    with (
        running_router(snapshot(upstream.url, patch=patch), tmp_path) as world,
        openai.OpenAI(base_url=f"{world.url}/v1", api_key=KEY, max_retries=0) as client,
    ):
        client.embeddings.create(model="support", input="hello", encoding_format="float")

    assert upstream.asked[0].json == {
        "model": INCUMBENT,
        "input": "hello",
        "encoding_format": "float",
    }
