"""A simulated judge answers the prompts of model-graded suites by a fixed rule.

A rubric: 1 when the reference (or, without one, any digit) stands in the answer, else 0. A
pair: the answer of more different words wins; as many are a tie. A canary's answer: good when
any digit stands in it. The profile's skill in `judge` is the share of judgements that go by the
rule; the others are the contrary.
"""

import json
import re
from typing import Any

from evals.scorers.judge_protocol import DATA
from evals.sim import text_numbers
from evals.sim.profiles import Profile

SUITE = "judge"
WORD = re.compile(r"\w+")
DIGIT = re.compile(r"\d")
CONTRARY: dict[object, object] = {
    0: 1,
    1: 0,
    "A": "B",
    "B": "A",
    "tie": "A",
    "good": "bad",
    "bad": "good",
}


def answer(prompt: str, profile: Profile) -> str | None:
    """Answers as a judge; None for a prompt that asks for no judgement."""
    _, mark, shown = prompt.rpartition(DATA)
    try:
        data = json.loads(shown) if mark else None
    except ValueError:
        return None
    found = judgement(data) if isinstance(data, dict) else None
    if found is None:
        return None
    key, value = found
    if text_numbers.uniform("judge", profile.seed, shown) >= profile.skill_in(SUITE):
        value = CONTRARY[value]
    return json.dumps({"reason": "Simulated, by a rule.", key: value})


def judgement(data: dict[str, Any]) -> tuple[str, object] | None:
    """What the rule says, with its name in the judge's answer."""
    if {"task", "answer"} <= data.keys():
        text, wanted = (
            " ".join(str(data.get(part, "")).casefold().split())
            for part in ("answer", "reference")
        )
        return "score", int(wanted in text if wanted else bool(DIGIT.search(text)))
    if {"task", "A", "B"} <= data.keys():
        a, b = (len(set(WORD.findall(str(data[key]).casefold()))) for key in ("A", "B"))
        return "winner", "tie" if a == b else "A" if a > b else "B"
    if {"conversation", "answer"} <= data.keys():
        said = data["answer"]
        shown = str(said.get("content") if isinstance(said, dict) else said)
        return "verdict", "good" if DIGIT.search(shown) else "bad"
    return None
