"""How simulated models write: habits, fillers, token counts, embeddings, tool arguments."""

import base64
import json
from array import array
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.sim import answer_text, text_numbers, tool_calls
from evals.sim.item_bank import BankItem
from evals.sim.profiles import Habits, Profile
from evals.sim.protocols import embeddings, requests
from evals.sim.protocols.requests import ChatRequest
from evals.sim.simulated_model import SimulatedAnswer

RECORD = {"name": "Zoë", "total": 12.5, "due": None}


def worded_answer(value: Any, habits: Habits | None = None, **options: Any) -> str:
    item = BankItem("s", "s-1", "Add 3 and 4.", value)
    profile = Profile("m", habits=habits or Habits())
    return answer_text.answer(
        SimulatedAnswer(item, right=True, value=value), profile, **{"prompt": "?"} | options
    )


def chat(**fields: Any) -> ChatRequest:
    messages = fields.pop("messages", [{"role": "user", "content": "Hello"}])
    return requests.parse_chat({"model": "m", "messages": messages, **fields})


@pytest.mark.req("A8")
@pytest.mark.parametrize(
    ("habits", "unwrapped"),
    [
        (Habits(json_fences=1), lambda t: json.loads(t.split("\n")[1])),
        (Habits(trailing_prose=1), lambda t: json.loads(t.split("\n")[0])),
    ],
)
def test_each_habit_changes_the_form_and_keeps_the_substance(
    habits: Habits, unwrapped: Any
) -> None:
    text = worded_answer(RECORD, habits)

    assert text != answer_text.bare(RECORD)
    assert unwrapped(text) == RECORD


@pytest.mark.req("A8")
def test_a_response_format_keeps_json_bare() -> None:
    assert json.loads(worded_answer(RECORD, Habits(json_fences=1), json_asked=True)) == RECORD


def test_a_prompt_that_asks_for_a_final_line_gets_it() -> None:
    text = worded_answer("#### 7", prompt="End with `ANSWER: <number>`.")

    assert text.splitlines()[-1] == "ANSWER: 7"
    assert "3, 4" in text


def test_a_verbose_model_opens_with_a_sentence() -> None:
    assert worded_answer("billing") == "billing"
    assert worded_answer("billing", Habits(verbose=1)).endswith("\n\nbilling")


def test_of_several_accepted_answers_the_first_is_given() -> None:
    assert worded_answer(["colour", "color"]) == "colour"
    assert worded_answer(7) == "7"


def test_a_filler_is_as_long_as_the_prompt_asks() -> None:
    assert len(answer_text.filler("Write 300 words on ships.").split()) == 300
    assert len(answer_text.filler("Hello").split()) == answer_text.DEFAULT_WORDS


@given(st.text(), st.integers(1, 50))
def test_a_cut_text_is_within_its_tokens(text: str, limit: int) -> None:
    short = text_numbers.cut(text, limit)

    assert text.startswith(short)
    assert text_numbers.count_tokens(short) <= limit


def test_like_texts_have_like_vectors() -> None:
    near, like, far = (
        embeddings.vector(text, 256)
        for text in (
            "The invoice was paid twice.",
            "An invoice got paid twice!",
            "Snow fell on the harbour at night.",
        )
    )

    assert dot(near, like) > 0.5
    assert dot(near, far) < 0.3


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def test_embeddings_come_packed_when_asked_and_for_tokens_too() -> None:
    packed = embeddings.response({"input": [1, 2], "encoding_format": "base64"}, model="m")
    plain = embeddings.response({"input": "1 2"}, model="m")
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
    arguments = tool_calls.make_up(SCHEMA, (seed,))

    jsonschema.validate(arguments, {**SCHEMA, "required": list(SCHEMA["properties"])})
    assert arguments == tool_calls.make_up(SCHEMA, (seed,))


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
    json.dumps(tool_calls.make_up(odd, ("x",)), allow_nan=False)


def test_half_a_character_is_refused() -> None:
    with pytest.raises(requests.Refused) as refused:
        requests.decoded(b'{"model": "\\ud800"}')
    assert refused.value.status == 400


def test_a_schema_without_end_is_cut() -> None:
    endless: dict[str, Any] = {"type": "array"}
    endless["items"] = endless

    assert json.dumps(tool_calls.make_up(endless, ("x",))).count("[") == tool_calls.DEEPEST


@pytest.mark.parametrize(
    "arguments", [{}, {"city": "Lima"}, {"days": 3}, {"rain": True}, {"a": [1], "b": None}]
)
def test_altered_arguments_differ(arguments: dict[str, Any]) -> None:
    assert tool_calls.altered(arguments, "seed") != arguments


def test_a_wrong_call_uses_the_items_distractor() -> None:
    call = {"name": "weather", "arguments": {"city": "Lima"}}
    wrong = {"name": "weather", "arguments": {"city": "Quito"}}
    item = BankItem("s", "s-1", "Weather in Lima?", call, distractors=(wrong,), tool_call=call)
    request = chat(tools=[{"type": "function", "function": {"name": "weather"}}])

    made = tool_calls.call_for(request, SimulatedAnswer(item, right=False, value=wrong))

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


def test_parts_of_a_message_are_read_as_text() -> None:
    parts = [
        {"type": "text", "text": "a"},
        {"type": "image_url"},
        {"type": "text", "text": "b"},
    ]

    assert chat(messages=[{"role": "user", "content": parts}]).prompt == "a\nb"
    assert chat(messages=[{"role": "assistant", "content": None}]).prompt == ""
