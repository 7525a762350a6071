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
from evals.sim import seeded_random
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
    by_rule = seeded_random.uniform("judge", profile.seed, shown) < profile.skill_in(SUITE)
    return judgement(data, by_rule=by_rule)


def judgement(data: Mapping[str, Any], *, by_rule: bool) -> str | None:
    if {"task", "answer"} <= data.keys():
        return judge_answer("score", graded(data) if by_rule else 1 - graded(data))
    if {"task", "A", "B"} <= data.keys():
        other = {"A": "B", "B": "A", "tie": "A"}
        winner = preferred(data)
        return judge_answer("winner", winner if by_rule else other[winner])
    if {"conversation", "answer"} <= data.keys():
        return judge_answer("verdict", "good" if good(data["answer"]) is by_rule else "bad")
    return None


def judge_answer(key: str, value: object) -> str:
    return json.dumps({"reason": "Simulated, by a rule.", key: value})


def graded(data: Mapping[str, Any]) -> int:
    text = " ".join(str(data["answer"]).casefold().split())
    wanted = " ".join(str(data.get("reference", "")).casefold().split())
    return int(wanted in text if wanted else any(char.isdigit() for char in text))


def good(answer: object) -> bool:
    text = answer.get("content") if isinstance(answer, dict) else answer
    return any(char.isdigit() for char in str(text))


def preferred(data: Mapping[str, Any]) -> str:
    counts = {key: len(set(WORD.findall(str(data[key]).casefold()))) for key in ("A", "B")}
    if counts["A"] == counts["B"]:
        return "tie"
    return max(counts, key=lambda key: counts[key])
