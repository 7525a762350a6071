"""The shipped models over the shipped suites, judged by the real scorers, and what they say.

Tolerances: a model's accuracy on a whole suite is its skill to half an item. Two models within
five points of skill disagree on 10 % to 25 % of the items.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.scorers import ScoreResult
from evals.scorers.judged import with_data
from evals.sim import (
    answers,
    chat_completions,
    faults,
    profiles,
    server,
    simulated_model,
)
from evals.sim.answers import answer_as_judge
from evals.sim.chat_completions import ChatRequest
from evals.sim.faults import Fault, FaultBook, FaultKind
from evals.sim.profiles import Profile, change_profile, find_line
from evals.sim.server import simulator
from evals.sim.simulated_model import BankItem, ItemBank, SimulatedAnswer
from evals.suites import suite as suites
from harness.evals.settings import SuiteSettings
from harness.frame import package_data
from harness.frame.errors import ConfigError, InputError
from harness.proposals.judge import build_prompt
from harness.providers.models.model_match import parse_listed_models
from harness.providers.target import Provider

SCORERS = {
    "arithmetic": "numeric",
    "extraction": "json_fields",
    "tickets": "label",
    "instructions": "instructions",
}
MODELS = tuple(profiles.load_profiles())
SIM = server.simulator(time_scale=0)
each_suite = pytest.mark.parametrize("suite", SCORERS)
each_model = pytest.mark.parametrize("model", MODELS)


@cache
def judged(suite: str) -> suites.Suite:
    path = package_data.path("datasets") / f"{suite}.jsonl"
    return suites.load_suite(SuiteSettings(suite, path=path, scorer=SCORERS[suite]))


@cache
def scores(model: str, suite: str) -> list[ScoreResult]:
    examinee = SIM.models[model]
    return [
        judged(suite).score(
            answers.answer(examinee.sit(item), examinee.profile, prompt=item.input),
            item.id,
        )
        for item in SIM.bank.suites[suite]
    ]


def right(model: str, suite: str) -> list[bool]:
    return [SIM.models[model].sit(item).right for item in SIM.bank.suites[suite]]


def share(values: list[bool]) -> float:
    return sum(values) / len(values)


@each_suite
@each_model
def test_a_models_accuracy_on_a_whole_suite_is_its_skill(model: str, suite: str) -> None:
    nominal = SIM.models[model].profile.skill_in(suite)

    assert share(right(model, suite)) == pytest.approx(nominal, abs=0.5 / 480 + 1e-9)


@each_suite
def test_the_real_scorer_agrees_with_what_the_model_meant(suite: str) -> None:
    found = [s.strict == 1 for s in scores("sim-base", suite)]

    assert found == right("sim-base", suite)


@each_suite
@pytest.mark.parametrize(
    "pair",
    [
        ("sim-base", "sim-equal"),
        ("sim-base", "sim-backup"),
        ("sim-better", "sim-fragile"),
    ],
)
def test_near_equal_models_disagree_on_some_items_only(
    suite: str, pair: tuple[str, str]
) -> None:
    first, second = (right(model, suite) for model in pair)
    disagreement = share([a != b for a, b in zip(first, second, strict=True)])

    assert 0.10 <= disagreement <= 0.25


@pytest.mark.req("A8")
def test_the_fenced_model_loses_by_form_and_not_by_substance() -> None:
    found = scores("sim-fenced", "extraction")
    strict = sum(s.strict or 0 for s in found) / len(found)
    lenient = sum(s.lenient or 0 for s in found) / len(found)

    assert strict < 0.3
    assert lenient == pytest.approx(0.85, abs=0.01)


@each_suite
def test_a_request_seed_moves_few_answers_and_the_same_seed_none(suite: str) -> None:
    base = SIM.models["sim-base"]
    items = SIM.bank.suites[suite]
    first = [base.sit(item, request_seed=1) for item in items]
    moved = share([v.right != base.sit(v.item).right for v in first])

    assert 0.01 < moved < 0.15
    assert first == [base.sit(item, request_seed=1) for item in items]


SHIPPED = simulated_model.load_suites(
    simulated_model.suite_files(package_data.path("datasets"))
)
BANK = ItemBank(SHIPPED)
TEMPLATES = (
    "{input}",
    "  {input}\n\n",
    'Question: "{input}"\nThink step by step.',
    "<task>{input}</task>",
    "You are careful. Here is a task.\n\n{input}\n\nAnswer:",
)


def item(number: int, text: str) -> BankItem:
    return BankItem(
        suite="s",
        id=f"s-{number}",
        input=text,
        target="yes",
    )


@given(found=st.sampled_from(SHIPPED), template=st.sampled_from(TEMPLATES))
def test_a_shipped_item_is_found_inside_any_template(found: BankItem, template: str) -> None:
    assert BANK.find(template.replace("{input}", found.input)) is found


def test_of_several_items_in_a_prompt_the_last_and_longest_is_found() -> None:
    first = item(1, "How many legs has a spider?")
    second = item(2, "How many legs has a cow?")
    longer = item(3, f"Tell me. {second.input}")

    assert ItemBank([first, second]).find(f"Q: {first.input} A: 8\nQ: {second.input}") is second
    assert ItemBank([first, second]).find(f"Q: {second.input} A: 4\nQ: {first.input}") is first
    assert ItemBank([second, longer]).find(f"Please: {longer.input}") is longer


def test_text_that_holds_no_item_finds_none() -> None:
    assert BANK.find("Tell me about the weather in words that no data set has.") is None
    assert BANK.find("") is None


@pytest.mark.parametrize("metadata", ['{"difficulty": 2}', '{"distractors": "no"}'])
def test_metadata_that_makes_no_sense_is_refused(tmp_path: Path, metadata: str) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text(f'{{"id": "m-1", "input": "a", "target": "b", "metadata": {metadata}}}\n')

    with pytest.raises(InputError, match="m-1"):
        simulated_model.load_suite_items(file)


def test_a_simulator_that_learns_a_suite_reports_another_version_of_its_models(
    tmp_path: Path,
) -> None:
    file = tmp_path / "mails.jsonl"
    versions = {simulator().models["sim-base"].fingerprint}
    for target in ("refund", "billing"):
        file.write_text(f'{{"input": "Where is my money?", "target": "{target}"}}\n')
        for _ in range(2):
            versions.add(simulator(suites=[file]).models["sim-base"].fingerprint)

    assert len(versions) == 3


def test_a_users_file_says_only_what_differs(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("a: {skill: {default: 0.6, tickets: 0.9}}\nb:\n")

    found = profiles.load_profiles(file)

    assert found["b"] == Profile("b")
    assert (
        found["a"].skill_in("tickets"),
        found["a"].skill_in("other"),
    ) == (0.9, 0.6)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: {skil: 0.5}", "a: skil: unknown key"),
        ("a: {skill: 1.5}", "a: default_skill: must be at most 1.0"),
        ("a: {skill: {tickets: high}}", r"a: skill\.tickets"),
        (
            "a: {habits: {json_fence: 0.8}}",
            r"a: habits\.json_fence: unknown key",
        ),
        ("a: {latency: {tokens_per_s: 0}}", r"a: latency\.tokens_per_s"),
        ("a: {price: 5}", "a: price"),
        ("a: {serves: [b]}", "a: serves"),
        ("a: {build: 'b 1'}", "a: build"),
        ("a: {script: [{text: b, tool: c}]}", "a: script"),
        ("a: [", "mine.yaml:1: "),
        ("- a", "must be a mapping"),
        ("a: {price: {input: 5}}", r"a: price\.input: unknown key"),
    ],
)
def test_a_fault_in_a_file_is_named_with_its_place(
    tmp_path: Path,
    text: str,
    place: str,
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)

    with pytest.raises((ConfigError, InputError), match=place):
        profiles.load_profiles(file)


SCRIPT = [
    {
        "newest": "found",
        "earlier": r"order (?P<order>\S+)",
        "text": "$order is found.",
    },
    {
        "newest": r"order (?P<order>\S+)",
        "tool": "find",
        "arguments": {"ids": ["$order"]},
    },
]


def test_the_first_line_that_fits_is_said_with_what_the_conversation_has() -> None:
    script = change_profile(Profile("m"), {"script": SCRIPT}, place="here").script
    call = find_line(script, ["Where is order A-1?"], {"find"})
    text = find_line(script, ["Where is order A-1?", "", "found it"], {"find"})
    assert find_line(script, ["found it"], {"find"}) is None
    assert find_line(script, ["Where is order A-1?"], set()) is None

    assert call is not None
    assert (call.tool, call.arguments) == ("find", {"ids": ["A-1?"]})
    assert text is not None
    assert text.text == "A-1? is found."


@each_suite
def test_harder_items_are_missed_more_often(suite: str) -> None:
    easy, middle, hard = thirds_by_difficulty(suite, MODELS)

    assert easy > middle > hard


def thirds_by_difficulty(suite: str, models: Sequence[str]) -> list[float]:
    """Accuracy of all these models on the easiest, the middle and the hardest third."""
    items = SIM.bank.suites[suite]
    order = sorted(range(len(items)), key=lambda n: items[n].difficulty)
    size = len(items) // 3
    thirds = [order[at * size : (at + 1) * size] for at in range(3)]
    rights = [right(model, suite) for model in models]
    return [share([items[n] for items in rights for n in third]) for third in thirds]


@pytest.mark.req("C2")
def test_discovery_reads_each_model_with_its_price() -> None:
    provider = Provider("sim", "sim", "http://127.0.0.1:9000/v1")
    content = json.dumps(SIM.catalogue()).encode()
    found = parse_listed_models(content, provider, datetime(2026, 1, 1, tzinfo=UTC)).models

    prices = {name: model.profile.price for name, model in SIM.models.items()}
    assert {model.model: model.price for model in found} == prices


def chat(**fields: Any) -> ChatRequest:
    messages = fields.pop("messages", [{"role": "user", "content": "Hello"}])
    return chat_completions.parse_chat(
        {
            "model": "m",
            "messages": messages,
            **fields,
        }
    )


SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "unit": {"enum": ["C", "F"]},
        "days": {"type": "integer", "minimum": 2},
        "wind": {"type": "number"},
        "rain": {"type": "boolean"},
        "hours": {"type": "array", "items": {"type": "integer"}},
        "place": {
            "type": "object",
            "properties": {"zip": {"type": "string"}},
        },
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
    item = BankItem(
        "s",
        "s-1",
        "Weather in Lima?",
        call,
        distractors=(wrong,),
        tool_call=call,
    )
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
    said = answer_as_judge(judge_prompt(**data), profile)
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
    contrary = answer_as_judge(shown, Profile("contrary", skill={"judge": 0.0}))

    assert json.loads(answer_as_judge(shown, SURE) or "")["verdict"] == verdict
    assert json.loads(contrary or "")["verdict"] != verdict


@pytest.mark.parametrize("prompt", ["Hello", "DATA:\nnothing", "DATA:\n[1]", 'DATA:\n{"x": 1}'])
def test_other_prompts_are_no_judgements(prompt: str) -> None:
    assert answer_as_judge(prompt, SURE) is None


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
