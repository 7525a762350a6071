"""Conversations on every protocol, whole and streamed, through a real router's worker.

The providers are strict: they refuse what the real ones refuse (`tests.wire`).
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Final

import openai
import pytest
from anthropic import Anthropic, beta_tool
from langchain_core.messages import AIMessageChunk, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from openai.lib.streaming.chat import ChatCompletionStreamState
from pydantic import SecretStr

from tests.support.router.router_process import Routed, routed
from tests.support.sampling import later
from tests.support.site.npm_clients import tool_loop
from tests.wire import (
    anthropic,
    bedrock,
    chats,
    conversations,
    gemini,
    vertex,
)
from tests.wire import openai as plain
from tests.wire.conversations import Conversation, Step
from tests.wire.server import (
    KEY,
    Json,
    Reading,
    Reply,
    Strict,
    Turn,
    serving,
)


def ask(
    client: openai.OpenAI,
    *,
    stream: bool,
    **request: Any,
) -> tuple[Any, Json]:
    """The official client's completion; and its message, as it goes back in the next turn."""
    if stream:
        state = ChatCompletionStreamState()
        asked: Json = {
            **request,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        chunks: Any = client.chat.completions.create(**asked)
        for chunk in chunks:
            state.handle_chunk(chunk)
        done: Any = state.current_completion_snapshot
    else:
        done = client.chat.completions.create(**request)
    message: Json = done.choices[0].message.model_dump(exclude_none=True)
    for call in message.get("tool_calls", ()):
        call.pop("index", None)
        call["function"].pop("parsed_arguments", None)
    return done, message


pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

WIRES: Final = {
    "anthropic": anthropic,
    "bedrock": bedrock,
    "gemini": gemini,
    "vertex": vertex,
    "openai": plain,
}
# Whose servers see the marks of a request to `/v1/messages`.
MARKED_KINDS: Final = ("anthropic", "bedrock")
ADDENDUM: Final = "Answer as a pirate."


@dataclass
class Scene:
    """servers: by kind, which is the route's name too; `patched-` before it for the patch."""

    world: Routed
    servers: dict[str, Strict]

    def client(self) -> openai.OpenAI:
        return self.world.client()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("conformance")
    with ExitStack() as stack:
        servers = {
            kind: stack.enter_context(serving(wire.strict())) for kind, wire in WIRES.items()
        }
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("WIRE_KEY", KEY)
        servers["groq"] = stack.enter_context(serving(chats.strict("groq")))
        providers = {
            kind: {
                "kind": kind,
                "api_base": server.api_base,
                "api_key_env": "WIRE_KEY",
            }
            for kind, server in servers.items()
        }
        routes: Json = {
            "groq": {
                "incumbent": f"groq/{plain.MODEL}",
                "suites": ["colours"],
            }
        }
        for kind, wire in WIRES.items():
            target = f"{kind}/{wire.MODEL}"
            routes[kind] = {"incumbent": target, "suites": ["colours"]}
            own = {
                "parameters": {"temperature": 0.25},
                "prompt_addendum": ADDENDUM,
                "response_format": conversations.SCHEMA,
            }
            patched = {
                "provider": kind,
                "model": wire.MODEL,
                "request_patch": own,
            }
            routes[f"patched-{kind}"] = {
                "incumbent": patched,
                "suites": ["colours"],
            }
        world = stack.enter_context(
            routed(
                folder,
                servers["openai"].api_base,
                providers=providers,
                routes=routes,
            )
        )
        world.start()
        yield Scene(world, servers)


@pytest.mark.req("B1", "B7")
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("kind", WIRES)
@pytest.mark.parametrize("talk", conversations.ALL, ids=lambda talk: talk.name)
def test_a_conversation_survives_the_protocol(
    scene: Scene,
    talk: Conversation,
    kind: str,
    *,
    stream: bool,
) -> None:
    server = scene.servers[kind]
    messages: list[Json] = []
    said: Json | None = None
    with scene.client() as client:
        for step in talk.steps:
            messages += [] if said is None else [said]
            messages += [_answering(call, said) for call in step.more]
            server.reply = step.reply
            server.fault = None
            done, said = ask(
                client,
                stream=stream,
                model=kind,
                messages=messages,
                **step.options,
            )

            assert server.readings[-1] == _expected(step, talk, kind, server.readings[-1])
            _same(done, said, step.reply, kind)
            assert done.model == kind


def _answering(message: Json, said: Json | None) -> Json:
    id_ = str(message.get("tool_call_id", ""))
    if not id_.startswith("$") or said is None:
        return message
    return {
        **message,
        "tool_call_id": said["tool_calls"][int(id_[1:])]["id"],
    }


def _expected(
    step: Step,
    talk: Conversation,
    kind: str,
    read: Reading,
) -> Reading:
    """What each protocol says of itself stands as it was read."""
    wanted = step.reading
    if "cache_control" in talk.without.get(kind, ()):
        wanted = replace(wanted, marks=0)
    turns = tuple(
        _expected_turn(turn, kind, heard)
        for turn, heard in zip(wanted.turns, read.turns, strict=True)
    )
    if kind == "bedrock" and wanted.choice == "none":
        wanted = replace(wanted, choice="auto", tools=())  # it has no such word
    limit = wanted.limit
    if kind == "bedrock" and wanted.thinks:
        limit = read.limit
    if kind == "anthropic" and limit is None:
        assert read.limit  # it must have one
        limit = read.limit
    heat = read.temperature if wanted.temperature is None else wanted.temperature
    assert heat in (None, 1.0, 0.5)
    return replace(
        wanted,
        turns=turns,
        limit=limit,
        temperature=heat,
    )


def _expected_turn(
    turn: Turn,
    kind: str,
    found: Turn,
) -> Turn:
    if kind == "openai":
        return replace(turn, signed=())
    # Gemini signs every call, asked to reason or not.
    if turn.signed or (kind in ("gemini", "vertex") and turn.calls):
        assert found.signed == (WIRES[kind].SIGNATURE,)
        return replace(turn, signed=found.signed)
    return turn


FINISH: Final = {
    "end": "stop",
    "sequence": "stop",
    "length": "length",
    "tools": "tool_calls",
}


def _same(
    done: Any,
    said: Json,
    reply: Reply,
    kind: str,
) -> None:
    assert (said.get("content") or "") == reply.text
    (choice,) = done.choices
    assert choice.finish_reason == FINISH[reply.stop]
    calls = said.get("tool_calls", ())
    made = [(c["function"]["name"], json.loads(c["function"]["arguments"])) for c in calls]
    assert made == [*reply.calls]
    assert all(len(call["id"]) <= 40 for call in calls)
    if kind != "openai":  # its chat keeps the reasoning to itself
        assert said.get("reasoning_content", "") == reply.reasoning
    usage = done.usage
    wanted = reply.usage
    assert usage.prompt_tokens == wanted.input
    assert usage.completion_tokens == wanted.output
    assert (usage.prompt_tokens_details.cached_tokens or 0) == wanted.cached
    assert usage.completion_tokens_details.reasoning_tokens == wanted.reasoning


@pytest.mark.req("A8")
@pytest.mark.parametrize("kind", WIRES)
def test_a_targets_patch_reaches_every_protocol(scene: Scene, kind: str) -> None:
    server = scene.servers[kind]
    server.reply = Reply('{"name":"Ada","age":36}')
    server.fault = None
    with scene.client() as client:
        ask(
            client,
            stream=False,
            model=f"patched-{kind}",
            messages=[
                {"role": "system", "content": "Be brief."},
                conversations.user("Who?"),
            ],
        )

    read = server.readings[-1]
    assert read.system == f"Be brief.\n\n{ADDENDUM}"
    assert read.temperature == 0.25
    assert read.schema


TOO_LONG: Final = {
    "anthropic": anthropic.bad("prompt is too long: 208310 tokens > 200000 maximum"),
    "bedrock": bedrock.bad("Input is too long for requested model."),
    "gemini": gemini.bad("The input token count (9) exceeds the maximum number of tokens (8)"),
    "vertex": vertex.bad("The input token count (9) exceeds the maximum number of tokens (8)"),
    "openai": plain.error(400, "maximum context length is 8 tokens", "context_length_exceeded"),
}


@pytest.mark.req("B7")
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("kind", WIRES)
def test_a_refusal_is_told_with_its_status_and_its_words(
    scene: Scene,
    kind: str,
    *,
    stream: bool,
) -> None:
    fault = scene.servers[kind].fault = TOO_LONG[kind]
    try:
        with (
            scene.client() as client,
            pytest.raises(openai.BadRequestError) as caught,
        ):
            ask(
                client,
                stream=stream,
                model=kind,
                messages=[conversations.user("Hello?")],
            )
    finally:
        scene.servers[kind].fault = None
    assert fault.body.get("error", fault.body)["message"] in str(caught.value)


@pytest.mark.req("B7")
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_client_is_told_what_the_translation_left_behind(
    scene: Scene, *, stream: bool
) -> None:
    """Also where a bridge stands before it; never by a name that no header may have."""
    for server in scene.servers.values():
        server.reply = Reply("Hello")
        server.fault = None
    with scene.client() as client:
        chat = client.chat.completions.with_raw_response.create(
            model="anthropic",
            messages=[{"role": "user", "content": "Hello?"}],
            stream=stream,
            extra_body={"logit_bias": {"1": 1}, "made\r\nup": 1},
        )
        headers = {
            "x-api-key": scene.world.key,
            "anthropic-version": "2023-06-01",
        }
        message = client._client.post(
            f"{scene.world.url}/v1/messages",
            headers=headers,
            json={
                "model": "gemini",
                "max_tokens": 50,
                "messages": [{"role": "user", "content": "Hello?"}],
                "house_style": "plain",
                "stream": stream,
            },
        )

    assert chat.headers["x-swapproof-degraded"] == "logit_bias"
    assert message.headers["x-swapproof-degraded"] == "house_style"


MARK: Final[Json] = {"cache_control": {"type": "ephemeral"}}
MARKED: Final[Json] = {
    "max_tokens": 50,
    "system": [
        {
            "type": "text",
            "text": "A long text of rules.",
            **MARK,
        }
    ],
    "messages": [
        {
            "role": "user",
            "content": [
                {
                    "type": "text",
                    "text": "Hello?",
                    **MARK,
                }
            ],
        }
    ],
}


@pytest.mark.req("B7")
@pytest.mark.parametrize("kind", WIRES)
def test_a_messages_cache_marks_arrive_or_their_loss_is_told(scene: Scene, kind: str) -> None:
    """Through a bridge, for all but who speaks messages."""
    server = scene.servers[kind]
    server.reply = Reply("Hello")
    server.fault = None
    headers = {
        "x-api-key": scene.world.key,
        "anthropic-version": "2023-06-01",
    }
    with scene.client() as client:
        told = client._client.post(
            f"{scene.world.url}/v1/messages",
            headers=headers,
            json={"model": kind, **MARKED},
        )

    assert told.status_code == 200, told.text
    kept = kind in MARKED_KINDS
    assert server.readings[-1].system == "A long text of rules."
    assert server.readings[-1].marks == (2 if kept else 0)
    assert told.headers.get("x-swapproof-degraded") == (None if kept else "caching")


# Clients that people use, unchanged, run a tool loop with streaming before another protocol.
OF_CLIENTS: Final = pytest.mark.req("A1", "B7")
SUNNY: Final = "Oslo is sunny and Rome is sunny"
CITY: Final = {"type": "object", "properties": {"city": {"type": "string"}}}


@pytest.fixture
def weathered(scene: Scene) -> Iterator[Scene]:
    for server in scene.servers.values():
        server.answers = chats.weather
        server.fault = None
    yield scene
    for server in scene.servers.values():
        server.answers = None


@OF_CLIENTS
@pytest.mark.parametrize(
    ("route", "endpoint"),
    [
        ("groq", "responses"),
        ("anthropic", "chat"),
        later("gemini", "chat"),
    ],
)
def test_langchain_runs_a_tool_loop(
    weathered: Scene,
    route: str,
    endpoint: str,
) -> None:
    model = ChatOpenAI(
        model=route,
        base_url=f"{weathered.world.url}/v1",
        api_key=SecretStr(weathered.world.key),
        max_retries=0,
        use_responses_api=endpoint == "responses",
        stream_usage=True,
    ).bind_tools(
        [
            {
                "name": "weather",
                "description": "Of a city",
                "parameters": CITY,
            }
        ]
    )
    messages: list[Any] = [HumanMessage("Weather?")]
    for _ in range(2):
        final: AIMessageChunk | None = None
        for piece in model.stream(messages):
            assert isinstance(piece, AIMessageChunk)
            final = piece if final is None else final + piece
        assert final is not None
        messages.append(final)
        messages += [
            ToolMessage(f"{call['args']['city']} is sunny", tool_call_id=call["id"])
            for call in final.tool_calls
        ]

    assert messages[-1].text.strip() == SUNNY
    assert messages[-1].usage_metadata["output_tokens"] == 9


@OF_CLIENTS
@pytest.mark.parametrize(
    ("protocol", "route"),
    [
        ("messages", "groq"),
        ("chat", "anthropic"),
        later("messages", "gemini"),
        later("responses", "groq"),
        later("chat", "gemini"),
    ],
)
def test_vercels_ai_sdk_runs_a_tool_loop(
    weathered: Scene,
    protocol: str,
    route: str,
) -> None:
    told = tool_loop(protocol, f"{weathered.world.url}/v1", weathered.world.key, route)

    assert told["cities"] == ["Oslo", "Rome"]
    assert told["steps"] == ["tool-calls", "stop"]
    assert told["text"] == SUNNY
    assert told["pieces"] > 2
    assert told["output_tokens"] == 18


@OF_CLIENTS
@pytest.mark.parametrize("route", [later("groq"), later("anthropic"), "gemini"])
def test_anthropics_tool_runner_sends_the_whole_conversation(
    weathered: Scene, route: str
) -> None:
    @beta_tool
    def weather(city: str) -> str:
        return f"{city} is sunny"

    with Anthropic(
        base_url=weathered.world.url,
        api_key=weathered.world.key,
        max_retries=0,
    ) as client:
        runner = client.beta.messages.tool_runner(
            model=route,
            max_tokens=99,
            tools=[weather],
            messages=[{"role": "user", "content": "Weather?"}],
        )
        last = runner.until_done()

    assert "".join(block.text for block in last.content if block.type == "text") == SUNNY
