import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.scorers.judged import with_data
from evals.sim import answers, chat_completions, faults
from evals.sim.answers import answer_as_judge as answer
from evals.sim.chat_completions import ChatRequest
from evals.sim.faults import Fault, FaultBook, FaultKind
from evals.sim.profiles import Profile
from evals.sim.simulated_model import BankItem, SimulatedAnswer
from harness.domain.canary.judge import build_prompt
from harness.domain.errors import InputError


def chat(**fields: Any) -> ChatRequest:
    messages = fields.pop("messages", [{"role": "user", "content": "Hello"}])
    return chat_completions.parse_chat({"model": "m", "messages": messages, **fields})


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


def test_half_a_character_is_refused() -> None:
    with pytest.raises(chat_completions.Refused) as refused:
        chat_completions.decoded(b'{"model": "\\ud800"}')
    assert refused.value.status == 400


def test_a_wrong_call_uses_the_items_distractor() -> None:
    call = {"name": "weather", "arguments": {"city": "Lima"}}
    wrong = {"name": "weather", "arguments": {"city": "Quito"}}
    item = BankItem("s", "s-1", "Weather in Lima?", call, distractors=(wrong,), tool_call=call)
    request = chat(tools=[{"type": "function", "function": {"name": "weather"}}])

    (made,) = answers.calls_for(request, SimulatedAnswer(item, right=False, value=wrong))

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
    with pytest.raises(chat_completions.Refused) as refused:
        chat(**fields)

    assert refused.value.status == 400
    assert refused.value.param == param


SURE = Profile("sure", skill={"judge": 1.0})


def judge_prompt(**data: str) -> str:
    return with_data("Judge this.", {"task": "Say hello.", **data})[0]["content"]


def says(profile: Profile, **data: str) -> object:
    said = answer(judge_prompt(**data), profile)
    assert said is not None
    found = json.loads(said)
    return found.get("score", found.get("winner"))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"answer": "Oh, HELLO  there", "reference": "hello there"}, 1),
        ({"answer": "Bye", "reference": "hello there"}, 0),
        ({"answer": "room 7"}, 1),
        ({"answer": "room"}, 0),
        ({"A": "one two", "B": "one one"}, "A"),
        ({"A": "one", "B": "one two"}, "B"),
        ({"A": "one", "B": "two"}, "tie"),
    ],
)
def test_a_judgement_follows_the_rule(data: dict[str, str], said: object) -> None:
    assert says(SURE, **data) == said


@pytest.mark.parametrize(("words", "verdict"), [("room 7", "good"), ("room", "bad")])
def test_a_canarys_answer_is_judged_by_the_rule_or_the_contrary(
    words: str, verdict: str
) -> None:
    answered = {"role": "assistant", "content": words}
    shown = build_prompt("has a digit", {"messages": [], "answer": answered})
    contrary = answer(shown, Profile("contrary", skill={"judge": 0.0}))

    assert json.loads(answer(shown, SURE) or "")["verdict"] == verdict
    assert json.loads(contrary or "")["verdict"] != verdict


@pytest.mark.parametrize("prompt", ["Hello", "DATA:\nnothing", "DATA:\n[1]", 'DATA:\n{"x": 1}'])
def test_other_prompts_are_no_judgements(prompt: str) -> None:
    assert answer(prompt, SURE) is None


rates = st.integers(0, 1000).map(lambda n: n / 1000)


@given(rate=rates, n=st.integers(1, 1200))
def test_the_share_that_is_hit_is_exact_to_one_request(rate: float, n: int) -> None:
    book = FaultBook()
    book.set("m", Fault(FaultKind.STATUS, rate=rate))

    assert abs(sum(bool(book.draw("m")) for _ in range(n)) - rate * n) < 1 + 1e-6


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "must be a JSON object"),
        ({}, "kind: is missing"),
        ({"kind": "explode"}, "kind: unknown word"),
        ({"kind": "status", "rat": 1}, "rat: unknown key"),
        ({"kind": "status", "rate": 1.5}, "rate: must be at most 1.0"),
        ({"kind": "status", "headers": {"a b": "c"}}, "headers"),
        ({"kind": "status", "headers": {"a": "c\nd: e"}}, "headers"),
    ],
)
def test_a_switch_that_makes_no_sense_is_refused_by_field(data: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        faults.parse_fault(data)
