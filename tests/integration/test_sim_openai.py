"""The official client before the simulator, over real HTTP."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime

import openai
import pytest
from openai.types.chat import ChatCompletionFunctionToolParam

from evals.sim import profiles, server
from evals.sim.profiles import Latency, Profile
from evals.sim.simulated_model import ItemBank
from evals.sim.simulator import Simulator
from harness.domain.providers.discovered_model import parse_listed_models
from harness.domain.routing.target import Provider
from tests.support.providers import simulator_thread

WEATHER: ChatCompletionFunctionToolParam = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"enum": ["C", "F"]}},
        },
    },
}
CALL_PROMPT = "What is the weather like in Lima, in Celsius?"
CALL_ITEM = {
    "input": CALL_PROMPT,
    "target": {"name": "weather", "arguments": {"city": "Lima", "unit": "C"}},
}
MODELS = profiles.load_profiles() | {
    "sim-sure": Profile("sim-sure", default_skill=1.0, latency=Latency(1.0, 0.0, 1000.0))
}


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Simulator:
    calls = tmp_path_factory.mktemp("suite") / "calls.jsonl"
    calls.write_text(json.dumps(CALL_ITEM), encoding="utf-8")
    shipped = server.simulator(suites=[calls]).bank.suites
    items = [item for suite in shipped.values() for item in suite]
    return Simulator(MODELS, ItemBank(items), unix_time=lambda: 1_700_000_000, time_scale=0.01)


@pytest.fixture(scope="module")
def client(sim: Simulator) -> Iterator[openai.OpenAI]:
    with (
        simulator_thread.serve_in_thread(sim) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


@pytest.mark.req("C2")
def test_it_lists_each_model_with_the_price_that_discovery_reads(sim: Simulator) -> None:
    provider = Provider("sim", "sim", "http://127.0.0.1:9000/v1")
    content = json.dumps(sim.catalogue()).encode()
    found = parse_listed_models(content, provider, datetime(2026, 1, 1, tzinfo=UTC)).models
    assert {model.model: model.price for model in found} == {
        name: profile.price for name, profile in MODELS.items()
    }


def test_a_plain_answer_is_the_items_and_says_that_it_is_simulated(
    client: openai.OpenAI, sim: Simulator
) -> None:
    item = sim.bank.suites["tickets"][0]

    answer = client.chat.completions.create(
        model="sim-sure", messages=[{"role": "user", "content": item.input}]
    )

    assert answer.choices[0].message.content == item.target
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "sim-sure"
    assert str(answer.system_fingerprint).startswith("simulated-swapgate-")
    assert answer.usage is not None
    assert answer.usage.total_tokens > answer.usage.completion_tokens > 0


@pytest.mark.req("B7")
def test_an_item_that_expects_a_call_gets_it(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="sim-sure", messages=[{"role": "user", "content": CALL_PROMPT}], tools=[WEATHER]
    )

    assert answer.choices[0].finish_reason == "tool_calls"
    (call,) = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert json.loads(call.function.arguments) == {"city": "Lima", "unit": "C"}
