"""The simulated judge goes by its rule, as often as its skill says."""

import json

import pytest

from evals.scorers.judged import with_data
from evals.sim.answers import answer_as_judge as answer
from evals.sim.profiles import Profile
from harness.domain.canary.judge import build_prompt

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


def test_half_a_skill_is_half_of_the_judgements() -> None:
    half = Profile("half", skill={"judge": 0.5}, seed=4)
    right = [says(half, answer=f"Hello {n}", reference="hello") for n in range(400)]

    assert 150 < sum(verdict == 1 for verdict in right) < 250


@pytest.mark.parametrize("prompt", ["Hello", "DATA:\nnothing", "DATA:\n[1]", 'DATA:\n{"x": 1}'])
def test_other_prompts_are_no_judgements(prompt: str) -> None:
    assert answer(prompt, SURE) is None
