"""The official client's responses before the router, over real HTTP."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent

from harness.domain.routing.capabilities import Capabilities
from harness.domain.routing.table import Snapshot
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import EVENTS, running_upstream
from tests.support.router.live_router import KEY, QUICK, provider, running_router, snapshot
from tests.support.router.simulated_router import HELLO, SimScene


def client_of(url: str, key: str = KEY) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)


@pytest.fixture
def client(scene: SimScene) -> Iterator[openai.OpenAI]:
    with client_of(scene.world.url) as client:
        yield client


def answered(client: openai.OpenAI, **more: Any) -> Response:
    response: Response = client.responses.create(**{"model": "support", "input": HELLO, **more})
    return response


def events_of(client: openai.OpenAI) -> list[ResponseStreamEvent]:
    return list(client.responses.create(model="support", input=HELLO, stream=True))


@pytest.mark.req("A3")
def test_tokens_of_both_forms_are_counted(client: openai.OpenAI, scene: SimScene) -> None:
    usage = answered(client).usage
    events_of(client)

    rows = scene.world.wait_for_traffic(2)
    assert usage
    assert sum(row.input_tokens for row in rows) == 2 * usage.input_tokens
    assert sum(row.output_tokens for row in rows) == 2 * usage.output_tokens


def native(url: str) -> Snapshot:
    """A provider whose own endpoint is asked."""
    own = provider(url, models={"m-incumbent": Capabilities(responses="native")})
    return snapshot(url, providers=[own])


WHOLE = (
    b'{ "id":"r", "object":"response", "model" : "gpt-x","output":[{"type":"message","id":"m",'
    b'"role":"assistant","status":"completed","content":[{"type":"output_text","text":"ok"}]}],'
    b'"n":1.0,"status":"completed","usage":{"input_tokens":12345678901234567890,'
    b'"output_tokens":1} }'
)
FAILED = (
    b'event: response.failed\ndata: {"type":"response.failed","sequence_number":1,"response":'
    b'{"id":"r","model":"gpt-x","error":{"code":"context_length_exceeded",'
    b'"message":"too long for us"}}}\n\n'
)


@pytest.mark.req("A2")
def test_only_model_changes_on_the_way_there_and_back(tmp_path: Path) -> None:
    body = (
        '{"x":[1.0, 12345678901234567890123], "model" :"support","input":"\\u00e9",'
        ' "previous_response_id":"resp_1", "stream" : false}'
    )
    with running_upstream() as upstream:
        upstream.turns["m-incumbent"] = ScriptedTurn(steps=(WHOLE,))
        with (
            running_router(native(upstream.url), tmp_path, QUICK) as world,
            client_of(world.url) as client,
        ):
            raw = client._client.post(
                f"{world.url}/v1/responses",
                content=body,
                headers={"authorization": f"Bearer {KEY}", "content-type": "application/json"},
            )

    (asked,) = upstream.asked
    assert asked.path == "/v1/responses"
    assert asked.body.decode() == body.replace('"support"', '"m-incumbent"')
    assert raw.content == WHOLE.replace(b'"gpt-x"', b'"support"')


def test_an_input_that_is_found_too_long_in_the_stream_is_the_clients_mistake(
    tmp_path: Path,
) -> None:
    with running_upstream() as upstream:
        upstream.turns["m-incumbent"] = ScriptedTurn(headers=EVENTS, steps=(FAILED,))
        with (
            running_router(native(upstream.url), tmp_path, QUICK) as world,
            client_of(world.url) as client,
            pytest.raises(openai.BadRequestError, match="too long for us"),
        ):
            events_of(client)
