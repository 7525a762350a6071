import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from evals.sim import server as sim
from harness.frame.people.access import SYSTEM
from harness.frame.people.limits import KeyLimits
from harness.operations import keys
from swapproof import (
    Caller,
    CallLimited,
    CallRefused,
    CompletionRequest,
    CompletionResponse,
    EmbeddingRequest,
    EmbeddingResponse,
    Image,
    InputError,
    KeyRefused,
    Message,
    NobodyAnswered,
    OutputSchema,
    StreamBroken,
    StreamChunk,
    Text,
    ToolDefinition,
    ToolLoopUnfinished,
    ToolRequest,
    ToolResponse,
)
from tests.support.providers import simulator_thread
from tests.support.providers.scripted_transport import ScriptedEvent
from tests.support.providers.scripted_upstream import (
    ROLE,
    ReceivedRequest,
    Upstream,
    broken_stream,
    completion,
    error,
    event,
    running_upstream,
)
from tests.support.router.router_process import Routed, routed
from tests.support.site.model_clients import VARIANTS, Variant, variant
from tests.wire.chats import weather_turn

WEATHER = ToolDefinition(
    "weather",
    "Of a city, now.",
    {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
)
ASK = CompletionRequest(route="chat", messages=[Message.user("Say 12 words please.")])
AGENT = CompletionRequest(
    route="agent",
    messages=[Message.user("Weather in Oslo and Rome?")],
    tools=[WEATHER],
)


@dataclass
class Scene:
    world: Routed
    upstream: Upstream

    def last_request(self, model: str) -> ReceivedRequest:
        return self.upstream.asked_for(model)[-1]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("clients")
    own = {"kind": "custom", "models": {"serial": {"parallel_tools": False}}}
    with (
        simulator_thread.serve_in_thread(sim.simulator(time_scale=0.0)) as url,
        running_upstream() as upstream,
    ):
        upstream.turns |= {
            "agent": weather_turn,
            "echo": completion("heard"),
            "breaks": broken_stream(ROLE, event({"content": "one "}), ScriptedEvent.RESET),
            "cut": broken_stream(ROLE, event({"content": "one "})),
            "waits": broken_stream(ROLE, event({"content": "one "}), ScriptedEvent.HANG),
            "down": error(503, "we are busy"),
            "strict": error(400, "temperature must be at most 2"),
        }
        made = routed(
            folder,
            url,
            providers={
                "sim": {
                    "kind": "sim",
                    "api_base": f"{url}/v1",
                    "tiers": {"fast": "sim-backup"},
                },
                "own": {**own, "api_base": upstream.url},
            },
            routes={
                "chat": {"incumbent": "sim/sim-base", "suites": ["colours"]},
                "fast": {"incumbent": "sim"},
                "mixed": {
                    "incumbent": "own/echo",
                    "overrides": {
                        "subagent": "fast",
                        "vision": "chat",
                        "embedding": "chat",
                    },
                },
                "serial": {
                    "incumbent": "own/agent",
                    "fallbacks": ["own/serial"],
                },
                **{name: {"incumbent": f"own/{name}"} for name in upstream.turns},
            },
        )
        with made as world:
            world.start()
            yield Scene(world, upstream)


@pytest.fixture(scope="module", params=VARIANTS)
def client(request: pytest.FixtureRequest, scene: Scene) -> Iterator[Variant]:
    with variant(request.param, scene.world) as made:
        yield made


def to(route: str, **more: Any) -> CompletionRequest:
    return replace(ASK, route=route, **more)


@pytest.mark.spine
@pytest.mark.req("A1", "B1")
def test_an_answer_says_its_words_its_tokens_and_who_served_it(client: Variant) -> None:
    answer = client.complete(ASK)

    assert len(answer.text.split()) == 12
    assert answer.finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.output_tokens > 0
    served = answer.served
    assert (served.route, served.arm, served.target) == (
        "chat",
        "incumbent",
        "sim/sim-base",
    )
    assert (served.attempts, served.degraded, answer.model) == (
        1,
        (),
        "chat",
    )
    assert served.revision is not None
    assert served.request_id.startswith("req_")
    assert answer.raw["object"] == "chat.completion"


@pytest.mark.req("B1", "D6")
@pytest.mark.spine
def test_a_routes_overrides_answer_by_kind_and_the_answer_says_so(client: Variant) -> None:
    asked = to("mixed")
    subagent = replace(asked, caller=Caller(kind="subagent"))
    picture = Message.user([Text("Say 12 words please."), Image("data:image/png;base64,AA")])

    plain = client.complete(asked)
    found: list[CompletionResponse | EmbeddingResponse] = [
        client.complete(subagent),
        client.stream(subagent, []),
        client.complete(replace(asked, messages=[picture])),
        client.embed(EmbeddingRequest(route="mixed", inputs=["a"])),
    ]

    assert (plain.served.route, plain.served.kind, plain.text) == (
        "mixed",
        "",
        "heard",
    )
    assert [(answer.served.route, answer.served.kind) for answer in found] == [
        ("fast", "subagent"),
        ("fast", "subagent"),
        ("chat", "vision"),
        ("chat", "embedding"),
    ]
    assert {answer.model for answer in found} == {"mixed"}
    with pytest.raises(CallRefused, match="subagent, vision, image, video, embedding"):
        client.complete(replace(asked, caller=Caller(kind="subagents")))


@pytest.mark.spine
@pytest.mark.req("B1", "B2")
def test_a_tier_is_a_route(client: Variant) -> None:
    answer = client.complete(replace(ASK, route="", model_tier="fast"))

    assert answer.served.target == "sim/sim-backup"


@pytest.mark.spine
@pytest.mark.req("B1")
def test_a_stream_s_chunks_come_to_the_whole_answer(client: Variant) -> None:
    chunks: list[StreamChunk] = []
    answer = client.stream(ASK, chunks)

    assert sum(bool(chunk.text) for chunk in chunks) > 3
    assert "".join(chunk.text for chunk in chunks) == answer.text == client.complete(ASK).text
    assert answer.usage == client.complete(ASK).usage
    assert answer.finish_reason == "stop"
    assert answer.served.target == "sim/sim-base"


@pytest.mark.spine
@pytest.mark.req("B1", "B7")
@pytest.mark.parametrize("streamed", [False, True])
def test_a_loop_of_tools_runs_until_the_model_answers_in_words(
    client: Variant, *, streamed: bool
) -> None:
    chunks: list[StreamChunk] = []

    def weather(city: str) -> str:
        if city == "Rome":
            raise LookupError("the station is silent")
        return f"sun in {city}"

    more = {"on_chunk": chunks.append} if streamed else {}
    run = client.with_tools(AGENT, tools={"weather": weather}, **more)

    assert run.text.strip() == "sun in Oslo and Error: LookupError: the station is silent"
    assert run.turns == 2
    assert (run.usage.input_tokens, run.usage.cached_tokens) == (40, 16)
    assert [message.role for message in run.messages] == [
        "user",
        "assistant",
        "tool",
        "tool",
        "assistant",
    ]
    assert bool(chunks) is streamed
    assert client.complete(replace(AGENT, messages=run.messages)).text == run.text.strip()


@pytest.mark.req("B1", "B7")
def test_a_tool_may_take_the_request_itself_and_be_a_coroutine(client: Variant) -> None:
    async def weather(request: ToolRequest) -> ToolResponse:
        return ToolResponse(request.id, f"{request.arguments['city']}: rain")

    run = client.with_tools(AGENT, tools={"weather": weather})

    assert run.text == "Oslo: rain and Rome: rain"


@pytest.mark.spine
@pytest.mark.req("B7")
def test_one_target_without_parallel_tools_has_tools_called_in_turn_and_the_answer_says_so(
    client: Variant,
) -> None:
    answer = client.complete(replace(AGENT, route="serial"))

    assert answer.served.degraded == ("parallel_tool_calls",)
    assert len(answer.tool_requests) == 1
    assert answer.tool_requests[0].arguments == {"city": "Oslo"}


@pytest.mark.req("B1")
def test_a_loop_that_does_not_end_raises_with_the_conversation_so_far(client: Variant) -> None:
    with pytest.raises(ToolLoopUnfinished, match="after 1 turns") as caught:
        client.with_tools(AGENT, tools={"weather": lambda city: city}, max_turns=1)

    assert [m.role for m in caught.value.conversation if isinstance(m, Message)] == [
        "user",
        "assistant",
        "tool",
        "tool",
    ]


@pytest.mark.req("A1", "B1")
def test_texts_become_vectors_in_their_order(client: Variant) -> None:
    request = EmbeddingRequest(route="chat", inputs=["red", "green", "red"], dimensions=8)
    answer = client.embed(request)

    first, second, third = answer.vectors
    assert first == third != second
    assert len(first) == 8
    assert answer.served.target == "sim/sim-base"
    assert answer.usage is not None
    assert answer.usage.input_tokens > 0


@pytest.mark.spine
@pytest.mark.req("A2", "B1")
def test_levers_have_names_and_unknown_fields_pass_untouched(
    client: Variant, scene: Scene
) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    client.complete(
        to(
            "echo",
            messages=[
                Message.user(
                    [
                        Text("Long.", cache=True),
                        Image("data:image/png;base64,AA=="),
                    ]
                )
            ],
            system="Be brief.",
            max_tokens=9,
            temperature=0.5,
            top_p=0.9,
            stop=["END"],
            effort="low",
            thinking_tokens=2048,
            output_schema=OutputSchema(schema),
            seed=7,
            top_logprobs=2,
            cache_key="tenant-1",
            user="u-1",
            extra={"vendor_field": {"x": [1, None]}},
        )
    )

    body = scene.last_request("echo").json
    system, user = body.pop("messages")
    assert system == {"role": "system", "content": "Be brief."}
    assert user["content"] == [
        {
            "type": "text",
            "text": "Long.",
            "cache_control": {"type": "ephemeral"},
        },
        {
            "type": "image_url",
            "image_url": {"url": "data:image/png;base64,AA=="},
        },
    ]
    form = {
        "name": "answer",
        "schema": schema,
        "strict": True,
    }
    assert body == {
        "model": "echo",
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["END"],
        "reasoning_effort": "low",
        "thinking": {"type": "enabled", "budget_tokens": 2048},
        "response_format": {"type": "json_schema", "json_schema": form},
        "seed": 7,
        "logprobs": True,
        "top_logprobs": 2,
        "prompt_cache_key": "tenant-1",
        "user": "u-1",
        "vendor_field": {"x": [1, None]},
    }


@pytest.mark.spine
@pytest.mark.req("B8")
@pytest.mark.parametrize("route", ["breaks", "cut"])
def test_a_stream_that_fails_after_its_first_words_raises(client: Variant, route: str) -> None:
    chunks: list[StreamChunk] = []
    with pytest.raises(StreamBroken, match="the answer is incomplete") as caught:
        client.stream(to(route), chunks)

    assert "".join(chunk.text for chunk in chunks) == "one "
    assert caught.value.request_id.startswith("req_")
    assert caught.value.code


@pytest.mark.req("B8")
def test_who_leaves_a_stream_ends_the_provider_s_work(client: Variant, scene: Scene) -> None:
    assert client.leave(to("waits")).text == "one "

    assert scene.last_request("waits").left.wait(60)


@pytest.mark.req("B1", "B3")
def test_when_nobody_answers_the_error_names_every_attempt(client: Variant) -> None:
    with pytest.raises(NobodyAnswered, match="own/down: overloaded") as caught:
        client.complete(to("down", caller=Caller(timeout_s=20)))

    value = caught.value
    assert (value.status, value.retryable, value.should_retry) == (502, True, False)
    attempts = value.details["attempts"]
    assert isinstance(attempts, list)
    assert {attempt["status"] for attempt in attempts} == {503}


@pytest.mark.req("A5", "B1")
def test_a_request_that_the_provider_refuses_says_its_words(client: Variant) -> None:
    with pytest.raises(CallRefused, match="at most 2") as caught:
        client.stream(to("strict", temperature=9.0), [])

    assert (caught.value.status, caught.value.retryable) == (400, False)


@pytest.mark.req("B1")
def test_a_route_that_is_not_there_is_refused_by_name(client: Variant) -> None:
    with pytest.raises(CallRefused, match="'nowhere'") as caught:
        client.complete(to("nowhere"))

    assert (caught.value.status, caught.value.code) == (
        404,
        "model_not_found",
    )


@pytest.mark.req("B1")
@pytest.mark.parametrize("name", VARIANTS)
def test_a_wrong_key_opens_nothing(scene: Scene, name: str) -> None:
    with (
        variant(name, scene.world, key="sk-sg-wrong") as client,
        pytest.raises(KeyRefused, match="swapproof key list"),
    ):
        client.complete(ASK)


@pytest.mark.req("B1")
@pytest.mark.parametrize("name", VARIANTS)
def test_a_key_s_limit_holds_and_says_when_it_ends(scene: Scene, name: str) -> None:
    installation = scene.world.installation
    limits = KeyLimits(requests_per_min=1)
    _, key = keys.create_key(
        installation.context,
        SYSTEM,
        name,
        secret=installation.secret,
        limits=limits,
    )
    with variant(name, scene.world, key=key) as client:
        accepted(client)
        with pytest.raises(CallLimited) as caught:
            client.complete(ASK)

    assert caught.value.retry_after_s
    assert f"not before {caught.value.retry_after_s:g} s" in str(caught.value)


def accepted(client: Variant) -> None:
    """Ask until the router knows the key, which it does within two seconds."""
    for _ in range(600):
        try:
            client.complete(ASK)
        except KeyRefused:
            # Who asks with an unknown key too often is refused for his address's sake.
            time.sleep(0.1)
            continue
        return
    raise AssertionError("the key was never accepted")


def test_what_cannot_be_meant_is_refused_before_it_is_sent(client: Variant) -> None:
    with pytest.raises(InputError, match="temperature is a parameter too"):
        client.complete(replace(ASK, temperature=1.0, extra={"temperature": 2}))
    with pytest.raises(InputError, match="JSON"):
        client.complete(replace(ASK, temperature=float("nan")))
    with pytest.raises(InputError, match="x-swapproof-sticky"):
        client.complete(replace(ASK, caller=Caller(sticky="a\r\nb")))
    with pytest.raises(InputError, match="no function for weather"):
        client.with_tools(AGENT, tools={})
    with pytest.raises(InputError, match="no definition of other"):
        client.with_tools(AGENT, tools={"weather": str, "other": str})


def test_a_request_s_own_limit_of_time_reaches_the_router(client: Variant) -> None:
    with pytest.raises(CallRefused, match="x-swapproof-timeout"):
        client.complete(replace(ASK, caller=Caller(timeout_s=-1)))


def test_an_answer_without_words_is_valid_in_the_next_request(
    client: Variant, scene: Scene
) -> None:
    request = ToolRequest("c-1", "weather", '{"city": "Oslo"}', {"extra_content": {"s": "t"}})
    client.complete(
        to(
            "echo",
            messages=[
                Message.user("?"),
                Message.assistant(tool_requests=[request]),
                Message.tool(ToolResponse("c-1", "sun")),
            ],
        )
    )

    _, said, result = scene.last_request("echo").json["messages"]
    assert said["content"] is None
    assert said["tool_calls"][0]["extra_content"] == {"s": "t"}
    assert json.loads(said["tool_calls"][0]["function"]["arguments"]) == {"city": "Oslo"}
    assert result == {
        "role": "tool",
        "content": "sun",
        "tool_call_id": "c-1",
    }
