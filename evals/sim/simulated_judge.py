"""A simulated judge answers the prompts of model-graded suites by a fixed rule.

A rubric: 1 when the reference (or, without one, any digit) stands in the answer, else 0. A
pair: the answer of more different words wins; as many are a tie. A canary's answer: good when
any digit stands in it. The profile's skill in `judge` is the share of judgements that go by the
rule; the others are the contrary.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from evals.scorers.judge_protocol import DATA
from evals.sim import text_numbers
from evals.sim.profiles import Profile

SUITE = "judge"
WORD = re.compile(r"\w+")


def answer(prompt: str, profile: Profile) -> str | None:
    """Answers as a judge; None for a prompt that asks for no judgement."""
    _, mark, shown = prompt.rpartition(DATA)
    if not mark:
        return None
    try:
        data = json.loads(shown)
    except ValueError:
        return None
    if not isinstance(data, dict):
        return None
    by_rule = text_numbers.uniform("judge", profile.seed, shown) < profile.skill_in(SUITE)
    return judgement(data, by_rule=by_rule)


def judgement(data: Mapping[str, Any], *, by_rule: bool) -> str | None:
    if {"task", "answer"} <= data.keys():
        text, wanted = (
            " ".join(str(data.get(part, "")).casefold().split())
            for part in ("answer", "reference")
        )
        good = wanted in text if wanted else _has_digit(text)
        return judge_answer("score", int(good is by_rule))
    if {"task", "A", "B"} <= data.keys():
        a, b = (len(set(WORD.findall(str(data[key]).casefold()))) for key in ("A", "B"))
        winner = "tie" if a == b else "A" if a > b else "B"
        contrary = {"A": "B", "B": "A", "tie": "A"}[winner]
        return judge_answer("winner", winner if by_rule else contrary)
    if {"conversation", "answer"} <= data.keys():
        said = data["answer"]
        shown = str(said.get("content") if isinstance(said, dict) else said)
        return judge_answer("verdict", "good" if _has_digit(shown) is by_rule else "bad")
    return None


def _has_digit(text: str) -> bool:
    return any(char.isdigit() for char in text)


def judge_answer(key: str, value: object) -> str:
    return json.dumps({"reason": "Simulated, by a rule.", key: value})
