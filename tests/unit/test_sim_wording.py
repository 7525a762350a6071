"""How simulated models write: habits, fillers, token counts, embeddings, tool arguments."""

import base64
import json
from array import array
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.sim import answers
from evals.sim.protocols import endpoints, requests
from evals.sim.protocols.requests import ChatRequest
from evals.sim.simulated_model import BankItem, SimulatedAnswer


def chat(**fields: Any) -> ChatRequest:
    messages = fields.pop("messages", [{"role": "user", "content": "Hello"}])
    return requests.parse_chat({"model": "m", "messages": messages, **fields})


def test_embeddings_come_packed_when_asked_and_for_tokens_too() -> None:
    packed = endpoints.embeddings_body(
        {"input": [1, 2], "encoding_format": "base64"}, model="m"
    )
    plain = endpoints.embeddings_body({"input": "1 2"}, model="m")
    floats = array("f", base64.b64decode(packed["data"][0]["embedding"]))

    assert list(floats) == pytest.approx(plain["data"][0]["embedding"], abs=1e-6)


SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "unit": {"enum": ["C", "F"]},
        "days": {"type": "integer", "minimum": 2},
        "wind": {"type": "number"},
        "rain": {"type": "boolean"},
        "hours": {"type": "array", "items": {"type": "integer"}},
        "place": {"type": "object", "properties": {"zip": {"type": "string"}}},
        "note": {"type": "null"},
        "unless": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "maybe": {"type": ["null", "string"]},
        "fixed": {"const": "yes"},
    },
}


@given(st.text())
def test_arguments_that_are_made_up_fit_the_tools_schema(seed: str) -> None:
    arguments = answers.make_up(SCHEMA, (seed,))

    jsonschema.validate(arguments, {**SCHEMA, "required": list(SCHEMA["properties"])})
    assert arguments == answers.make_up(SCHEMA, (seed,))


@pytest.mark.parametrize(
    "odd",
    [
        5,
        "text",
        [],
        {"type": 5},
        {"type": []},
        {"type": "integer", "minimum": "a", "maximum": None},
        {"type": "integer", "minimum": 1e300},
        {"type": "object", "properties": 5},
        {"type": "object", "properties": {"n": 5}},
        {"type": "array", "items": 5},
        {"anyOf": 5},
        {"anyOf": []},
    ],
)
def test_what_is_no_schema_breaks_nothing(odd: object) -> None:
    json.dumps(answers.make_up(odd, ("x",)), allow_nan=False)


def test_half_a_character_is_refused() -> None:
    with pytest.raises(requests.Refused) as refused:
        requests.decoded(b'{"model": "\\ud800"}')
    assert refused.value.status == 400


def test_a_wrong_call_uses_the_items_distractor() -> None:
    call = {"name": "weather", "arguments": {"city": "Lima"}}
    wrong = {"name": "weather", "arguments": {"city": "Quito"}}
    item = BankItem("s", "s-1", "Weather in Lima?", call, distractors=(wrong,), tool_call=call)
    request = chat(tools=[{"type": "function", "function": {"name": "weather"}}])

    made = answers.call_for(request, SimulatedAnswer(item, right=False, value=wrong))

    assert made is not None
    assert json.loads(made.arguments) == {"city": "Quito"}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": ["hello"]}, "messages"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages"),
        ({"model": ""}, "model"),
        ({"n": 2}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"tools": "all"}, "tools"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        (
            {
                "tools": [{"function": {"name": "a"}}],
                "tool_choice": {"function": {"name": "b"}},
            },
            "tool_choice",
        ),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_by_name(
    fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(requests.Refused) as refused:
        chat(**fields)

    assert refused.value.status == 400
    assert refused.value.param == param
