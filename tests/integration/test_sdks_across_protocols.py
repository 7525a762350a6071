"""The clients that people use, unchanged, before targets that speak another protocol.

Each runs a tool loop with streaming through a router's worker, in processes of its own, whose
provider refuses what OpenAI's refuses (`tests.strict_chat`).
"""

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from langchain_core.messages import AIMessageChunk, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from tests import strict_chat
from tests.node_clients import tool_loop
from tests.router_site import Routed, routed
from tests.router_upstream import running_upstream
from tests.world import suite_file

MODEL = "strict-1"
SUNNY = "Oslo is sunny and Rome is sunny"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}

pytestmark = pytest.mark.req("A1", "B7")


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Routed]:
    """Route `chat`: a target whose provider has chats alone."""
    folder = tmp_path_factory.mktemp("sdks")
    with running_upstream() as upstream:
        upstream.turns[MODEL] = strict_chat.turn
        with routed(
            folder,
            upstream.url,
            providers={"chats": {"kind": "groq", "api_base": upstream.url}},
            suites={"colours": {"path": str(suite_file(folder)), "scorer": "exact"}},
            routes={"chat": {"incumbent": f"chats/{MODEL}", "suites": ["colours"]}},
        ) as place:
            place.start()
            yield place


def test_anthropics_sdk(router: Routed) -> None:
    tool: Any = {"name": "weather", "description": "Of a city", "input_schema": SCHEMA}
    messages: list[Any] = [{"role": "user", "content": "Weather?"}]
    with anthropic.Anthropic(base_url=router.url, api_key=router.key, max_retries=0) as client:
        for _ in range(2):
            with client.messages.stream(
                model="chat", max_tokens=100, messages=messages, tools=[tool]
            ) as stream:
                final = stream.get_final_message()
            results = [
                {
                    "type": "tool_result",
                    "tool_use_id": use.id,
                    "content": f"{use.input['city']} is sunny",
                }
                for use in final.content
                if use.type == "tool_use"
            ]
            messages += [
                {"role": "assistant", "content": final.content},
                {"role": "user", "content": results},
            ]

    assert final.stop_reason == "end_turn"
    assert "".join(each.text for each in final.content if each.type == "text").strip() == SUNNY


def test_openais_sdk_by_responses(router: Routed) -> None:
    tool: Any = {"type": "function", "name": "weather", "parameters": SCHEMA, "strict": False}
    given: list[Any] = [{"role": "user", "content": "Weather?"}]
    with openai.OpenAI(
        base_url=f"{router.url}/v1", api_key=router.key, max_retries=0
    ) as client:
        for _ in range(2):
            with client.responses.stream(model="chat", input=given, tools=[tool]) as stream:
                final = stream.get_final_response()
            given += [each.model_dump(exclude={"parsed_arguments"}) for each in final.output]
            for call in final.output:
                if call.type == "function_call":
                    said = f"{json.loads(call.arguments)['city']} is sunny"
                    told = {"call_id": call.call_id, "output": said}
                    given.append({"type": "function_call_output", **told})

    assert final.status == "completed"
    assert final.output_text.strip() == SUNNY


def test_langchain_by_responses(router: Routed) -> None:
    model = ChatOpenAI(
        model="chat",
        base_url=f"{router.url}/v1",
        api_key=SecretStr(router.key),
        max_retries=0,
        use_responses_api=True,
    ).bind_tools([{"name": "weather", "description": "Of a city", "parameters": SCHEMA}])
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


@pytest.mark.parametrize("protocol", ["messages", "responses"])
def test_vercels_ai_sdk(router: Routed, protocol: str) -> None:
    told = tool_loop(protocol, f"{router.url}/v1", router.key, "chat")

    assert told["cities"] == ["Oslo", "Rome"]
    assert told["steps"] == ["tool-calls", "stop"]
    assert told["text"] == SUNNY
    assert told["pieces"] > 2
    assert told["output_tokens"] == 18
