"""A target's patch (A8) on every endpoint of a provider that has chats alone, and in its id."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.domain.providers.credentials import ProviderKey
from harness.domain.providers.kinds import PROVIDER_KINDS
from harness.domain.routing.capabilities import Endpoint
from harness.domain.routing.target import Provider, RequestPatch, Target
from harness.domain.settings import RouterSettings
from router.frame.body import read_request
from router.protocols.endpoints import DIALECTS
from router.upstream.transport import UpstreamRequest
from router.upstream.transports import Transports
from tests.support.providers.scripted_chat import Response, serving

pytestmark = pytest.mark.req("A8")
PATCH = RequestPatch({"temperature": 0.25, "max_tokens": 77}, "Answer in French.")
HI = [{"role": "user", "content": "hi"}]
ASKED: dict[Endpoint, dict[str, Any]] = {
    Endpoint.CHAT: {"messages": [{"role": "system", "content": "Be kind."}, *HI]},
    Endpoint.RESPONSES: {"instructions": "Be kind.", "input": "hi", "max_output_tokens": 5},
    Endpoint.MESSAGES: {"system": "Be kind.", "messages": HI, "max_tokens": 5},
}
CHATS_ALONE = ("deepseek", "groq")


async def sent(endpoint: Endpoint, kind: str, target: Target) -> dict[str, Any]:
    dialect = DIALECTS[endpoint]
    request = read_request(json.dumps({"model": "r", **ASKED[endpoint]}).encode(), endpoint)
    transports = Transports(RouterSettings())
    transports.prepare([kind])
    with serving(lambda _: Response("oui")) as served:
        provider = Provider("up", kind, served.url, "UP_KEY")
        reply = await transports(provider).send(
            UpstreamRequest(
                provider,
                dialect.patched(request, target),
                stream=False,
                path=dialect.path,
                key=ProviderKey("UP_KEY", "k"),
            )
        )
        await reply.body()
        await reply.aclose()
        await transports.aclose()
    [found] = served.requests
    assert found["path"].endswith("/chat/completions")
    return found


@pytest.mark.parametrize("kind", CHATS_ALONE)
def test_these_kinds_have_chats_alone(kind: str) -> None:
    assert {Endpoint.RESPONSES, Endpoint.MESSAGES} <= PROVIDER_KINDS[kind].adapted


@pytest.mark.parametrize("endpoint", sorted(ASKED))
@pytest.mark.parametrize("kind", CHATS_ALONE)
async def test_a_patch_reaches_the_chat_that_an_endpoint_becomes(
    endpoint: Endpoint, kind: str
) -> None:
    found = await sent(endpoint, kind, Target("up", "m", request_patch=PATCH))

    said = json.dumps(found["messages"][0])
    assert found["messages"][0]["role"] in ("system", "developer")
    assert "Be kind." in said
    assert "Answer in French." in said
    assert found["temperature"] == 0.25
    assert 77 in (found.get("max_tokens"), found.get("max_completion_tokens"))


@pytest.mark.parametrize("endpoint", [Endpoint.CHAT, Endpoint.RESPONSES])
async def test_a_patchs_response_format_reaches_the_chat(endpoint: Endpoint) -> None:
    schema = {"name": "s", "schema": {"type": "object"}, "strict": True}
    shape = {"type": "json_schema", "json_schema": schema}
    patch = RequestPatch(response_format=shape)

    found = await sent(endpoint, CHATS_ALONE[0], Target("up", "m", request_patch=patch))

    assert found["response_format"] == shape


patches = st.builds(
    RequestPatch,
    st.dictionaries(st.sampled_from(["temperature", "seed"]), st.integers(0, 3), max_size=2),
    st.sampled_from(["", "a", "b"]),
    st.none() | st.just({"type": "json_object"}),
)


@given(patches, patches)
def test_targets_are_the_same_only_with_the_same_patch(
    one: RequestPatch, other: RequestPatch
) -> None:
    first, second = (Target("p", "m", request_patch=patch) for patch in (one, other))

    assert (first.id == second.id) == (one == other)
    assert ("#" in first.name) == (not one.empty)
