"""Conversations on every protocol, whole and streamed, through a real router's worker.

The providers are strict: they refuse what the real ones refuse (`tests.wire`).
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Final

import openai
import pytest

from tests.support.router.router_process import Routed, routed
from tests.wire import anthropic, bedrock, conversations, gemini, vertex
from tests.wire import openai as plain
from tests.wire.conversations import Conversation, Step
from tests.wire.server import KEY, Json, Reading, Reply, Strict, Turn, serving


@dataclass
class ClientAnswer:
    """message: as it goes back in the next request."""

    text: str = ""
    reasoning: str = ""
    calls: list[Json] = field(default_factory=list)
    finish: str | None = None
    usage: Any = None
    message: Json = field(default_factory=dict)
    model: str = ""


def ask(client: openai.OpenAI, *, stream: bool, **request: Any) -> ClientAnswer:
    return _streamed(client, request) if stream else _whole(client, request)


def _whole(client: openai.OpenAI, request: Json) -> ClientAnswer:
    done = client.chat.completions.create(**request)
    (choice,) = done.choices
    said = choice.message.model_dump(exclude_none=True)
    return ClientAnswer(
        text=said.get("content") or "",
        reasoning=said.get("reasoning_content") or "",
        calls=said.get("tool_calls") or [],
        finish=choice.finish_reason,
        usage=done.usage,
        message=said,
        model=done.model,
    )


def _streamed(client: openai.OpenAI, request: Json) -> ClientAnswer:
    heard, extra = ClientAnswer(), {}
    asked: Json = {**request, "stream": True, "stream_options": {"include_usage": True}}
    chunks: Any = client.chat.completions.create(**asked)
    for chunk in chunks:
        heard.usage = chunk.usage or heard.usage
        heard.model = chunk.model
        for choice in chunk.choices:
            delta = choice.delta.model_dump(exclude_none=True)
            heard.text += delta.get("content") or ""
            heard.reasoning += delta.get("reasoning_content") or ""
            for name in ("thinking_blocks", "extra_content"):
                if name in delta:
                    extra[name] = delta[name]
            for piece in delta.get("tool_calls", ()):
                _add(heard.calls, piece)
            heard.finish = choice.finish_reason or heard.finish
    heard.message = {"role": "assistant", "content": heard.text or None, **extra}
    if heard.calls:
        heard.message["tool_calls"] = heard.calls
    return heard


def _add(calls: list[Json], piece: Json) -> None:
    index = piece.pop("index")
    if index == len(calls):
        calls.append(piece)
        return
    calls[index]["function"]["arguments"] += piece["function"]["arguments"]


pytestmark = pytest.mark.slow

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
        providers = {
            kind: {"kind": kind, "api_base": server.api_base, "api_key_env": "WIRE_KEY"}
            for kind, server in servers.items()
        }
        routes: Json = {}
        for kind, wire in WIRES.items():
            target = f"{kind}/{wire.MODEL}"
            routes[kind] = {"incumbent": target, "suites": ["colours"]}
            own = {
                "parameters": {"temperature": 0.25},
                "prompt_addendum": ADDENDUM,
                "response_format": conversations.SCHEMA,
            }
            patched = {"provider": kind, "model": wire.MODEL, "request_patch": own}
            routes[f"patched-{kind}"] = {"incumbent": patched, "suites": ["colours"]}
        world = stack.enter_context(
            routed(folder, servers["openai"].api_base, providers=providers, routes=routes)
        )
        world.start()
        yield Scene(world, servers)


@pytest.mark.req("B1", "B7")
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("kind", WIRES)
@pytest.mark.parametrize("talk", conversations.ALL, ids=lambda talk: talk.name)
def test_a_conversation_survives_the_protocol(
    scene: Scene, talk: Conversation, kind: str, *, stream: bool
) -> None:
    server = scene.servers[kind]
    messages: list[Json] = []
    heard: ClientAnswer | None = None
    with scene.client() as client:
        for step in talk.steps:
            messages += [] if heard is None else [heard.message]
            messages += [_answering(call, heard) for call in step.more]
            server.reply, server.fault = step.reply, None
            heard = ask(client, stream=stream, model=kind, messages=messages, **step.options)

            assert server.readings[-1] == _expected(step, talk, kind, server.readings[-1])
            _same(heard, step.reply, kind)
            assert heard.model == kind


def _answering(message: Json, heard: ClientAnswer | None) -> Json:
    id_ = str(message.get("tool_call_id", ""))
    if not id_.startswith("$") or heard is None:
        return message
    return {**message, "tool_call_id": heard.calls[int(id_[1:])]["id"]}


def _expected(step: Step, talk: Conversation, kind: str, read: Reading) -> Reading:
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
    return replace(wanted, turns=turns, limit=limit, temperature=heat)


def _expected_turn(turn: Turn, kind: str, found: Turn) -> Turn:
    if kind == "openai":
        return replace(turn, signed=())
    # Gemini signs every call, asked to reason or not.
    if turn.signed or (kind in ("gemini", "vertex") and turn.calls):
        assert found.signed == (WIRES[kind].SIGNATURE,)
        return replace(turn, signed=found.signed)
    return turn


FINISH: Final = {"end": "stop", "sequence": "stop", "length": "length", "tools": "tool_calls"}


def _same(heard: ClientAnswer, reply: Reply, kind: str) -> None:
    assert heard.text == reply.text
    assert heard.finish == FINISH[reply.stop]
    made = [
        (c["function"]["name"], json.loads(c["function"]["arguments"])) for c in heard.calls
    ]
    assert made == [*reply.calls]
    assert all(len(call["id"]) <= 40 for call in heard.calls)
    if kind != "openai":  # its chat keeps the reasoning to itself
        assert heard.reasoning == reply.reasoning
    usage, wanted = heard.usage, reply.usage
    assert usage.prompt_tokens == wanted.input
    assert usage.completion_tokens == wanted.output
    assert (usage.prompt_tokens_details.cached_tokens or 0) == wanted.cached
    assert usage.completion_tokens_details.reasoning_tokens == wanted.reasoning


@pytest.mark.req("A8")
@pytest.mark.parametrize("kind", WIRES)
def test_a_targets_patch_reaches_every_protocol(scene: Scene, kind: str) -> None:
    server = scene.servers[kind]
    server.reply, server.fault = Reply('{"name":"Ada","age":36}'), None
    with scene.client() as client:
        ask(
            client,
            stream=False,
            model=f"patched-{kind}",
            messages=[{"role": "system", "content": "Be brief."}, conversations.user("Who?")],
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
    scene: Scene, kind: str, *, stream: bool
) -> None:
    fault = scene.servers[kind].fault = TOO_LONG[kind]
    try:
        with scene.client() as client, pytest.raises(openai.BadRequestError) as caught:
            ask(client, stream=stream, model=kind, messages=[conversations.user("Hello?")])
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
        server.reply, server.fault = Reply("Hello"), None
    with scene.client() as client:
        chat = client.chat.completions.with_raw_response.create(
            model="anthropic",
            messages=[{"role": "user", "content": "Hello?"}],
            stream=stream,
            extra_body={"logit_bias": {"1": 1}, "made\r\nup": 1},
        )
        headers = {"x-api-key": scene.world.key, "anthropic-version": "2023-06-01"}
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

    assert chat.headers["x-swapgate-degraded"] == "logit_bias"
    assert message.headers["x-swapgate-degraded"] == "house_style"


MARK: Final[Json] = {"cache_control": {"type": "ephemeral"}}
MARKED: Final[Json] = {
    "max_tokens": 50,
    "system": [{"type": "text", "text": "A long text of rules.", **MARK}],
    "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello?", **MARK}]}],
}


@pytest.mark.req("B7")
@pytest.mark.parametrize("kind", WIRES)
def test_a_messages_cache_marks_arrive_or_their_loss_is_told(scene: Scene, kind: str) -> None:
    """Through a bridge, for all but who speaks messages."""
    server = scene.servers[kind]
    server.reply, server.fault = Reply("Hello"), None
    headers = {"x-api-key": scene.world.key, "anthropic-version": "2023-06-01"}
    with scene.client() as client:
        told = client._client.post(
            f"{scene.world.url}/v1/messages", headers=headers, json={"model": kind, **MARKED}
        )

    assert told.status_code == 200, told.text
    kept = kind in MARKED_KINDS
    assert server.readings[-1].system == "A long text of rules."
    assert server.readings[-1].marks == (2 if kept else 0)
    assert told.headers.get("x-swapgate-degraded") == (None if kept else "caching")
