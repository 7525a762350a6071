"""OpenAI's SDK and Anthropic's before a model that takes tools beside reasoning only by
Responses, with the real refusals.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import anthropic
import openai
import pytest

from harness.providers.target import Provider, Target
from harness.routing.table import Route, RoutingTable
from tests.support.router.live_router import KEY, running_router, snapshot
from tests.wire import anthropic as claudes
from tests.wire import reasoners
from tests.wire.responses import sealed
from tests.wire.server import Json, Reading, Refused, Reply, Strict, Usage, serving

CALL: Final = ("get_weather", {"city": "Lima"})
SCHEMA: Final = {"type": "object", "properties": {"city": {"type": "string"}}}
CHAT_TOOLS: Final[Any] = [
    {"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}
]
TOOLS: Final[Any] = [{"name": "get_weather", "input_schema": SCHEMA}]
QUESTION: Final[Any] = {"role": "user", "content": "How warm is it in Lima?"}
DEGRADED: Final = "x-swapproof-degraded"


def answer_of(reading: Reading) -> Reply:
    """Calls the tool, then speaks of its result."""
    results = [text for turn in reading.turns for text in turn.results]
    usage = Usage(40, 20, cached=8, reasoning=12)
    if not results:
        return Reply("Let me look.", "I need the tool.", (CALL,), "tools", usage)
    return Reply(f"It is {results[-1]}.", "That is clear.", usage=usage)


@contextmanager
def routed(folder: Path, wire: Strict, model: str, kind: str = "openai") -> Iterator[str]:
    wire.answers = answer_of
    with serving(wire) as served:
        first = snapshot("http://127.0.0.1:1/v1")
        target = Target("o", model)
        table = RoutingTable(1, {"r": Route("r", 1, target.id)}, {target.id: target})
        provider = Provider("o", kind, served.api_base, "WIRE_KEY")
        with running_router(
            replace(first, table=table, providers={"o": provider}), folder
        ) as world:
            yield world.url


def paths(wire: Strict) -> list[str]:
    return [asked.path.removeprefix("/v1") for asked in wire.asked]


def chat_client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0)


def message_client(url: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=url, api_key=KEY, max_retries=0)


def ask_chat(client: openai.OpenAI, messages: list[Any], *, stream: bool, **more: Any) -> Any:
    """Returns the message of a chat's answer, its finish reason and its usage."""
    asked: Json = {"model": "r", "messages": messages, "tools": CHAT_TOOLS, **more}
    if not stream:
        whole = client.chat.completions.create(**asked)
        return whole.choices[0].message, whole.choices[0].finish_reason, whole.usage
    options: Any = {"include_usage": True}
    with client.chat.completions.stream(**asked, stream_options=options) as events:
        final: Any = events.get_final_completion()
    return final.choices[0].message, final.choices[0].finish_reason, final.usage


def ask_message(client: anthropic.Anthropic, messages: list[Any], *, stream: bool) -> Any:
    asked: Json = {
        "model": "r",
        "messages": messages,
        "tools": TOOLS,
        "max_tokens": 4096,
        "thinking": {"type": "adaptive"},
        "output_config": {"effort": "high"},
    }
    if not stream:
        return client.messages.create(**asked)
    with client.messages.stream(**asked) as events:
        return events.get_final_message()


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("model", ["gpt-5.4", "gpt-5.6"])
def test_a_chat_with_tools_and_an_effort_is_answered_by_responses(
    tmp_path: Path, model: str, *, stream: bool
) -> None:
    wire = reasoners.strict()
    with routed(tmp_path, wire, model) as url, chat_client(url) as client:
        messages = [QUESTION]
        said, reason, usage = ask_chat(
            client, messages, stream=stream, reasoning_effort="high", max_completion_tokens=500
        )
        (call,) = said.tool_calls
        kept = said.model_dump(exclude_none=True)
        result = {"role": "tool", "tool_call_id": call.id, "content": "21 C"}
        then, end, _ = ask_chat(
            client, [*messages, kept, result], stream=stream, reasoning_effort="high"
        )

    assert (said.content, reason) == ("Let me look.", "tool_calls")
    assert (call.function.name, json.loads(call.function.arguments)) == CALL
    assert (then.content, end) == ("It is 21 C.", "stop")
    assert (usage.prompt_tokens, usage.completion_tokens) == (40, 20)
    assert usage.prompt_tokens_details.cached_tokens == 8
    assert usage.completion_tokens_details.reasoning_tokens == 12
    assert paths(wire) == ["/responses", "/responses"]
    assert wire.refused == []
    first, second = (asked.body for asked in wire.asked)
    assert first["reasoning"] == {"effort": "high"}
    assert (first["store"], first["max_output_tokens"]) == (False, 500)
    assert [tool["strict"] for tool in first["tools"]] == [False]
    # The client sent the encrypted reasoning back, without knowing it.
    assert [
        i["encrypted_content"] for i in second["input"] if i.get("type") == "reasoning"
    ] == [sealed("openai")]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_a_message_with_tools_and_thinking_is_answered_by_responses_with_its_reasoning(
    tmp_path: Path, *, stream: bool
) -> None:
    wire = reasoners.strict()
    with routed(tmp_path, wire, "gpt-5.6") as url, message_client(url) as client:
        first = ask_message(client, [QUESTION], stream=stream)
        use = next(block for block in first.content if block.type == "tool_use")
        result = {"type": "tool_result", "tool_use_id": use.id, "content": "21 C"}
        then = ask_message(
            client,
            [
                QUESTION,
                {"role": "assistant", "content": first.content},
                {"role": "user", "content": [result]},
            ],
            stream=stream,
        )

    assert [block.type for block in first.content] == ["thinking", "text", "tool_use"]
    assert first.content[0].thinking == "I need the tool."
    assert (use.name, use.input, first.stop_reason) == (*CALL, "tool_use")
    assert (then.content[-1].text, then.stop_reason) == ("It is 21 C.", "end_turn")
    assert paths(wire) == ["/responses", "/responses"]
    assert wire.refused == []
    asked, second = (asked.body for asked in wire.asked)
    assert asked["reasoning"] == {"effort": "high", "summary": "auto"}
    kinds = [item.get("type", item.get("role")) for item in second["input"]]
    assert kinds == ["user", "reasoning", "assistant", "function_call", "function_call_output"]


def test_an_effort_without_tools_and_tools_without_an_effort_reach_the_chat(
    tmp_path: Path,
) -> None:
    wire = reasoners.strict()
    with routed(tmp_path, wire, "gpt-5.4") as url, chat_client(url) as client:
        client.chat.completions.create(model="r", messages=[QUESTION], reasoning_effort="high")
        ask_chat(client, [QUESTION], stream=False)
        ask_chat(client, [QUESTION], stream=False, reasoning_effort="none")

    efforts = [asked.body.get("reasoning_effort") for asked in wire.asked]
    assert paths(wire) == ["/chat/completions"] * 3
    assert efforts == ["high", None, "none"]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_without_responses_the_chat_is_sent_with_the_effort_none_and_that_is_said(
    tmp_path: Path, *, stream: bool
) -> None:
    wire = reasoners.strict(has_responses=False)
    with routed(tmp_path, wire, "gpt-5.6", "azure_openai") as url, chat_client(url) as client:
        wire.read = without_bearer(wire)
        said = [
            client.chat.completions.with_raw_response.create(
                model="r",
                messages=[QUESTION],
                tools=CHAT_TOOLS,
                reasoning_effort="high",
                stream=stream,
            )
            for _ in range(2)
        ]

    assert [answer.headers[DEGRADED] for answer in said] == ["reasoning_effort"] * 2
    # The router remembers for a while that the endpoint is not there.
    assert paths(wire) == ["/responses", "/chat/completions", "/chat/completions"]
    assert [asked.body.get("reasoning_effort") for asked in wire.asked[1:]] == ["none"] * 2


def without_bearer(wire: Strict) -> Any:
    """Azure's key is in a header of its own."""
    read = wire.read

    def of_azure(asked: Any) -> Reading:
        headers = {"authorization": f"Bearer {asked.headers['api-key']}"}
        return read(replace(asked, headers=headers))

    return of_azure


def test_a_refusal_that_names_responses_is_learned(tmp_path: Path) -> None:
    """The table does not know a gateway's models."""
    wire = reasoners.strict()
    with routed(tmp_path, wire, "gpt-5.6", "custom") as url, chat_client(url) as client:
        for _ in range(2):
            raw = client.chat.completions.with_raw_response.create(
                model="r", messages=[QUESTION], tools=CHAT_TOOLS
            )

    assert raw.headers[DEGRADED] == "endpoint.responses"
    assert paths(wire) == ["/chat/completions", "/responses", "/responses"]


def test_a_chat_that_responses_cannot_express_is_sent_with_the_effort_none(
    tmp_path: Path,
) -> None:
    wire = reasoners.strict()
    with routed(tmp_path, wire, "gpt-5.6") as url, chat_client(url) as client:
        ask_chat(client, [QUESTION], stream=False, n=1, stop=["END"])

    (asked,) = wire.asked
    assert (asked.path, asked.body["reasoning_effort"]) == ("/v1/chat/completions", "none")
    assert asked.body["stop"] == ["END"]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_an_answer_that_the_limit_cut_says_so(tmp_path: Path, *, stream: bool) -> None:
    wire = reasoners.strict()
    with routed(tmp_path, wire, "gpt-5.6") as url, chat_client(url) as client:
        wire.answers = lambda _: Reply("It was a", stop="length")
        messages: list[Any] = [{"role": "system", "content": "Be brief."}, QUESTION]
        whole: Any = client.chat.completions.create(
            model="r",
            messages=messages,
            tools=CHAT_TOOLS,
            max_completion_tokens=4,
            seed=1,
            stream=stream,
        )
        chunks = list(whole) if stream else [whole]

    reasons = [c.choices[0].finish_reason for c in chunks if c.choices]
    assert reasons[-1] == "length"
    assert wire.asked[0].body["max_output_tokens"] == 16


def test_an_error_of_responses_reaches_the_client_as_it_is(tmp_path: Path) -> None:
    wire = reasoners.strict()
    error = {"message": "That is not allowed.", "type": "invalid_request_error", "code": "no"}
    with routed(tmp_path, wire, "gpt-5.6") as url, chat_client(url) as client:
        wire.fault = Refused(400, {"error": error})
        with pytest.raises(openai.BadRequestError) as caught:
            ask_chat(client, [QUESTION], stream=False)

    assert caught.value.message.endswith(str(error)) or "not allowed" in caught.value.message
    assert paths(wire) == ["/responses"]


@pytest.mark.parametrize(
    ("status", "words", "then"),
    [
        (401, "Missing scopes: api.responses.write.", "/chat/completions"),
        (400, "Invalid 'tools[0].function.name': 'api.responses.x'.", "/responses"),
    ],
)
def test_only_a_key_without_the_scope_shows_that_responses_is_not_there(
    tmp_path: Path, status: int, words: str, then: str
) -> None:
    """A client's own text in a refusal must not take the effort of all other clients."""
    wire = reasoners.strict()
    error = {"message": words, "type": "invalid_request_error", "code": None}
    with routed(tmp_path, wire, "gpt-5.6") as url, chat_client(url) as client:
        wire.fault = Refused(status, {"error": error})
        with suppress(openai.APIStatusError):
            ask_chat(client, [QUESTION], stream=False)
        wire.fault = None
        wire.asked.clear()
        ask_chat(client, [QUESTION], stream=False)

    assert paths(wire) == [then]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_a_refusal_of_the_fallback_does_not_hide_the_first_targets_overload(
    tmp_path: Path, *, stream: bool
) -> None:
    overloaded = {"type": "overloaded_error", "message": "Overloaded"}
    claude = claudes.strict()
    claude.fault = Refused(529, {"type": "error", "error": overloaded}, {"retry-after": "7"})
    wire = reasoners.strict(has_responses=False)
    refused = "Function tools with reasoning_effort are not supported for gpt-5.6."
    wire.fault = Refused(400, {"error": {"message": refused, "type": "invalid_request_error"}})
    with serving(claude) as first, serving(wire) as second:
        providers = {
            "c": Provider("c", "anthropic", first.api_base, "WIRE_KEY"),
            "o": Provider("o", "openai", second.api_base, "WIRE_KEY"),
        }
        targets = [Target("c", claudes.MODEL), Target("o", "gpt-5.6")]
        ids = [target.id for target in targets]
        table = RoutingTable(
            1,
            {"r": Route("r", 1, ids[0], fallbacks=(ids[1],))},
            {target.id: target for target in targets},
        )
        made = replace(snapshot("http://127.0.0.1:1/v1"), table=table, providers=providers)
        with (
            running_router(made, tmp_path) as world,
            message_client(world.url) as client,
            pytest.raises(anthropic.APIStatusError) as caught,
        ):
            ask_message(client, [QUESTION], stream=stream)

    answer = caught.value.response
    assert answer.status_code == 529
    assert answer.headers["x-should-retry"] == "true"
    assert answer.headers["retry-after"] == "7"
