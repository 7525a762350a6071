"""Official clients and our own before one router: chats, streams, tools, vectors, responses."""

import json
import subprocess
from typing import Any, Final

import anthropic
import openai
import pytest

from tests.acceptance.conftest import Installing
from tests.acceptance.installation import COMMAND_S, Document, Installation
from tests.acceptance.providers import Simulator

ASKED: Final[Any] = [{"role": "user", "content": "Tell me 9 words"}]
PARAMETERS: Final[Document] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}
FUNCTION: Final[Any] = {
    "name": "weather",
    "description": "The weather in a city, now.",
}
# What docs/how-to/client.md shows, as a program of a user.
PROGRAM: Final = """
import json, sys
from swapproof import (
    CompletionRequest, EmbeddingRequest, Message, ModelClient, NobodyAnswered, StreamBroken,
    ToolDefinition,
)

asked = [Message.user("Tell me 9 words")]
tool = ToolDefinition("weather", "The weather in a city, now.", json.loads(sys.argv[2]))
with ModelClient.over_http(sys.argv[1]) as client:
    answer = client.complete(CompletionRequest(route="chat", system="Be kind.", messages=asked))
    tier = client.complete(CompletionRequest(model_tier="fast", messages=asked))
    with client.stream(CompletionRequest(route="chat", messages=asked)) as chunks:
        text = "".join(chunk.text for chunk in chunks)
        finish = chunks.response().finish_reason
    run = client.complete_with_tools(
        CompletionRequest(
            route="chat", messages=asked, tools=[tool], tool_choice="weather"
        ),
        {"weather": lambda city: f"It rains in {city}."},
    )
    vectors = client.embed(EmbeddingRequest(route="chat", inputs=["a parcel", "a refund"]))
    broken = failed = False
    try:
        with client.stream(CompletionRequest(route="broken", messages=asked)) as chunks:
            list(chunks)
    except StreamBroken:
        broken = True
    try:
        client.complete(CompletionRequest(route="away", messages=asked))
    except NobodyAnswered as error:
        failed = bool(error.details["attempts"])
print(json.dumps({
    "text": answer.text, "target": answer.served.target, "arm": answer.served.arm,
    "tier": tier.served.target, "streamed": text, "finish": str(finish),
    "turns": run.turns, "roles": [str(message.role) for message in run.messages],
    "vectors": [len(vector) for vector in vectors.vectors], "broken": broken, "failed": failed,
}))
"""


@pytest.fixture(scope="module")
def place(installing_once: Installing) -> Installation:
    sims = []

    def settings(made: Installation) -> Document:
        sims.append(Simulator(made))
        return {
            "providers": {"sim": sims[0].settings(tiers={"fast": "sim-equal"})},
            "router": {
                "retry": {"base_s": 0.01, "cap_s": 0.05},
                "health_check_interval_s": 0,
            },
            "routes": {
                "chat": {
                    "incumbent": "sim/sim-base",
                    "fallbacks": ["sim/sim-backup"],
                },
                "fast": {"incumbent": "sim"},
                "broken": {"incumbent": "sim/sim-fenced"},
                "away": {"incumbent": "sim/sim-worse"},
            },
        }

    made = installing_once(settings)
    made.serve("router")
    sims[0].fault("sim-fenced", "close", after_chunks=3)
    sims[0].fault("sim-worse", "status", status=503)
    return made


@pytest.fixture(scope="module")
def client(place: Installation) -> openai.OpenAI:
    url = f"{place.url('router')}/v1"
    return openai.OpenAI(base_url=url, api_key=place.data_key, max_retries=0)


@pytest.fixture(scope="module")
def claude(place: Installation) -> anthropic.Anthropic:
    return anthropic.Anthropic(
        base_url=place.url("router"), api_key=place.data_key, max_retries=0
    )


@pytest.mark.req("A1", "A2")
def test_the_official_openai_client_chats_and_streams(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model="chat", messages=ASKED)
    answer = raw.parse()
    assert raw.headers["x-swapproof-target"] == "sim/sim-base"
    assert len((answer.choices[0].message.content or "").split()) == 9
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0

    chunks = list(client.chat.completions.create(model="chat", messages=ASKED, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == answer.choices[0].message.content
    assert {"chat", "fast"} <= {model.id for model in client.models.list()}
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="nobody-has-this", messages=ASKED)
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="sk-sg-wrong").models.list()


@pytest.mark.req("B7")
@pytest.mark.parametrize("stream", [False, True])
def test_the_official_openai_client_calls_a_tool_and_sends_its_result(
    client: openai.OpenAI, *, stream: bool
) -> None:
    tool: Any = {
        "type": "function",
        "function": {**FUNCTION, "parameters": PARAMETERS},
    }
    chosen: Any = {"type": "function", "function": {"name": "weather"}}
    given: Document = {
        "model": "chat",
        "tools": [tool],
        "tool_choice": chosen,
    }
    message: Any
    if stream:
        with client.chat.completions.stream(messages=ASKED, **given) as events:
            message = events.get_final_completion().choices[0].message
    else:
        message = client.chat.completions.create(messages=ASKED, **given).choices[0].message
    (call,) = message.tool_calls or []
    assert call.function.name == "weather"
    assert set(json.loads(call.function.arguments)) == {"city"}

    result = {
        "role": "tool",
        "tool_call_id": call.id,
        "content": "It rains.",
    }
    turns: Any = [*ASKED, message.model_dump(exclude_none=True), result]
    last = client.chat.completions.create(model="chat", messages=turns, tools=[tool])
    assert last.choices[0].message.content
    assert last.choices[0].finish_reason == "stop"


@pytest.mark.req("A1")
def test_the_official_openai_client_embeds_and_uses_responses(client: openai.OpenAI) -> None:
    vectors = client.embeddings.create(model="chat", input=["a parcel", "a refund"]).data
    assert len(vectors) == 2
    assert len(vectors[0].embedding) == len(vectors[1].embedding) > 1

    answer = client.responses.create(model="chat", input="Tell me 9 words")
    assert len(answer.output_text.split()) == 9
    kinds = [
        event.type
        for event in client.responses.create(model="chat", input="Tell me 9 words", stream=True)
    ]
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"


@pytest.mark.req("A1", "B7")
def test_the_official_anthropic_client_chats_streams_and_calls_tools(
    claude: anthropic.Anthropic,
) -> None:
    given: Any = {
        "model": "chat",
        "max_tokens": 200,
        "messages": ASKED,
    }
    answer: Any = claude.messages.create(**given)
    assert len(answer.content[0].text.split()) == 9
    with claude.messages.stream(**given) as stream:
        assert "".join(stream.text_stream) == answer.content[0].text
        assert stream.get_final_message().stop_reason == "end_turn"
    tool: Any = {**FUNCTION, "input_schema": PARAMETERS}
    chosen: Any = {"type": "tool", "name": "weather"}
    called = claude.messages.create(**given, tools=[tool], tool_choice=chosen)
    (use,) = [block for block in called.content if block.type == "tool_use"]
    assert (use.name, set(use.input)) == ("weather", {"city"})
    with pytest.raises(anthropic.NotFoundError):
        claude.messages.create(**{**given, "model": "nobody-has-this"})


@pytest.mark.req("B8")
def test_the_official_clients_see_a_broken_stream_as_an_error(
    client: openai.OpenAI, claude: anthropic.Anthropic
) -> None:
    with pytest.raises(openai.APIError):
        list(client.chat.completions.create(model="broken", messages=ASKED, stream=True))
    with (
        pytest.raises(anthropic.APIError),
        claude.messages.stream(model="broken", max_tokens=200, messages=ASKED) as stream,
    ):
        list(stream.text_stream)


@pytest.mark.req("B1", "B2", "B8")
def test_our_own_client_does_all_of_it_from_a_program_of_a_user(place: Installation) -> None:
    done = subprocess.run(  # noqa: S603 - a user's program
        [
            place.program.with_name("python"),
            "-c",
            PROGRAM,
            place.url("router"),
            json.dumps(PARAMETERS),
        ],
        cwd=place.folder,
        env=place.variables({"SWAPPROOF_KEY": place.data_key}),
        capture_output=True,
        check=False,
        text=True,
        timeout=COMMAND_S,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["target"], told["arm"]) == ("sim/sim-base", "incumbent")
    assert told["tier"] == "sim/sim-equal"
    assert len(told["text"].split()) == 9
    assert told["streamed"] == told["text"]
    assert told["finish"] == "stop"
    assert told["turns"] == 2
    assert told["roles"] == ["user", "assistant", "tool", "assistant"]
    assert told["vectors"][0] == told["vectors"][1] > 1
    assert told["broken"]
    assert told["failed"]
