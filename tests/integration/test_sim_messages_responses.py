import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from anthropic.types import ToolParam
from openai.types.responses import FunctionToolParam

from evals.sim.simulator import Simulator

SCHEMA: dict[str, object] = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL: ToolParam = {"name": "weather", "input_schema": SCHEMA}
FUNCTION: FunctionToolParam = {
    "type": "function",
    "name": "weather",
    "parameters": SCHEMA,
    "strict": False,
}
MODEL = "sim-base"
HELLO = "Say 12 words please."


@pytest.fixture
def claude(sim_url: str, sim: Simulator) -> Iterator[anthropic.Anthropic]:
    sim.faults.clear()
    with anthropic.Anthropic(base_url=sim_url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def client(sim_url: str, sim: Simulator) -> Iterator[openai.OpenAI]:
    sim.faults.clear()
    with openai.OpenAI(base_url=f"{sim_url}/v1", api_key="none", max_retries=0) as client:
        yield client


def create_message(claude: anthropic.Anthropic, **more: object) -> anthropic.types.Message:
    asked = {
        "model": MODEL,
        "max_tokens": 100,
        "messages": [{"role": "user", "content": HELLO}],
    }
    message: anthropic.types.Message = claude.messages.create(**{**asked, **more})  # type: ignore[call-overload]
    return message


def test_an_answer_is_cut_at_its_limit(
    claude: anthropic.Anthropic, client: openai.OpenAI
) -> None:
    assert create_message(claude, max_tokens=2).stop_reason == "max_tokens"
    cut = client.responses.create(model=MODEL, input=HELLO, max_output_tokens=2)
    assert cut.status == "incomplete"
    assert cut.incomplete_details
    assert cut.incomplete_details.reason == "max_output_tokens"


@pytest.mark.req("B7")
def test_after_a_tools_result_both_answer_in_words(
    claude: anthropic.Anthropic, client: openai.OpenAI
) -> None:
    message = create_message(
        claude,
        tools=[TOOL],
        tool_choice={"type": "any"},
        messages=[
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": [
                {"type": "tool_use", "id": "t", "name": "weather", "input": {}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "t", "content": "20 C"}]},
        ],
    )  # fmt: skip
    assert message.content[0].type == "text"

    response = client.responses.create(
        model=MODEL,
        tools=[FUNCTION],
        tool_choice="required",
        input=[
            {"role": "user", "content": "x"},
            {"type": "function_call", "call_id": "c", "name": "weather", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "20 C"},
        ],
    )
    assert response.output_text


@pytest.mark.req("B7")
def test_each_call_of_a_conversation_has_an_id_of_its_own(client: openai.OpenAI) -> None:
    turns: list[Any] = [{"role": "user", "content": "Ask twice."}]
    ids = set()
    for _ in range(3):
        (call,) = client.responses.create(
            model=MODEL, tools=[FUNCTION], tool_choice="required", input=turns
        ).output
        assert call.type == "function_call"
        ids.add(call.call_id)
        output = {"type": "function_call_output", "call_id": call.call_id, "output": "20 C"}
        turns += [call, output, {"role": "user", "content": "Ask twice."}]

    assert len(ids) == 3


@pytest.mark.req("B7")
def test_both_tools_are_called_at_once_where_the_prompt_says_so(
    claude: anthropic.Anthropic, client: openai.OpenAI
) -> None:
    prompt = "Ask both tools at once."
    alarm: ToolParam = {**TOOL, "name": "alarm"}
    with claude.messages.stream(
        model=MODEL,
        max_tokens=100,
        messages=[{"role": "user", "content": prompt}],
        tools=[TOOL, alarm],
        tool_choice={"type": "any"},
    ) as stream:
        blocks = stream.get_final_message().content
    assert [block.name for block in blocks if block.type == "tool_use"] == ["weather", "alarm"]

    functions: list[Any] = [FUNCTION, {**FUNCTION, "name": "alarm"}]
    for at_once, names in ((True, ["weather", "alarm"]), (False, ["weather"])):
        with client.responses.stream(
            model=MODEL,
            input=prompt,
            tools=functions,
            tool_choice="required",
            parallel_tool_calls=at_once,
        ) as events:
            calls: list[Any] = events.get_final_response().output
        assert [call.name for call in calls] == names
        assert all(json.loads(call.arguments).keys() == {"city"} for call in calls)
