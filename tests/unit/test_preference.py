"""The scorer `preference`: blind pairs in both orders, and pairs that need no judge (F2)."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from evals.scorers import find_scorer
from evals.scorers.interface import ScoreResult
from evals.suites.items import Item
from tests.support.evals.scripted_judge import ScriptedJudge

pytestmark = pytest.mark.req("F2")

PREFERENCE = find_scorer("preference")
TOOL = {"type": "function", "function": {"name": "find", "parameters": {}}}
CONVERSATION = [{"role": "user", "content": "Where is it?"}]


def item(target: str, **metadata: Any) -> Item:
    return Item(
        "drw_1", "Where is it?", target, metadata={"messages": CONVERSATION, **metadata}
    )


def scored(judge: ScriptedJudge, answer: str, target: str, **metadata: Any) -> ScoreResult:
    judged = PREFERENCE.judged
    assert judged is not None

    async def score() -> ScoreResult:
        return await judged(judge, answer, item(target, **metadata), PREFERENCE.options({}))

    return asyncio.run(score())


def prefers(text: str) -> ScriptedJudge:
    def says(data: Mapping[str, Any]) -> object:
        return {"reason": "r", "winner": "A" if data["A"] == text else "B"}

    return ScriptedJudge(says)


def calls(*arguments: Mapping[str, object], text: str = "") -> str:
    entries = [{"name": "find", "arguments": one} for one in arguments]
    return json.dumps({"content": text, "tool_calls": entries})


def test_the_score_is_the_win_share_over_both_orders() -> None:
    assert scored(prefers("Here."), "Here.", "There.").strict == 1.0
    assert scored(prefers("There."), "Here.", "There.").strict == 0.0
    assert scored(ScriptedJudge(lambda _: {"winner": "tie"}), "Here.", "There.").strict == 0.5


def test_a_judge_that_always_takes_the_first_answer_gives_one_half() -> None:
    judge = ScriptedJudge(lambda _: {"reason": "r", "winner": "A"})

    assert scored(judge, "Here.", "There.").strict == 0.5
    assert len(judge.asked) == 2


@pytest.mark.parametrize(
    ("answer", "target"),
    [
        (" spam\n", "spam"),
        ('{"a": 1, "b": [2]}', '{"b": [2.0], "a": 1}'),
        (calls({"id": 7, "new": True}), calls({"new": True, "id": 7.0})),
        (calls({"id": 7}, text="I look it up."), calls({"id": 7})),
        (calls({"id": 1}, {"id": 2}), calls({"id": 2}, {"id": 1})),
        ("", "  "),
    ],
)
def test_answers_of_equal_content_are_a_tie_without_a_judge(answer: str, target: str) -> None:
    judge = ScriptedJudge(lambda _: None)

    assert scored(judge, answer, target).strict == 0.5
    assert judge.asked == []


def test_an_empty_answer_loses_in_either_arm_without_a_judge() -> None:
    judge = ScriptedJudge(lambda _: None)

    assert scored(judge, " ", "There.").strict == 0.0
    assert scored(judge, "Here.", "").strict == 1.0


def test_the_judge_reads_the_conversation_both_calls_and_the_tools_but_no_name() -> None:
    judge = ScriptedJudge(lambda _: {"winner": "tie"})

    scored(judge, calls({"id": 7}), calls({"id": 8}), tools=[TOOL], production={"model": "m-1"})

    (prompt, _) = judge.asked
    assert '"arguments": {"id": 7}' in prompt
    assert '"arguments": {"id": 8}' in prompt
    assert '"tools": [{"function"' in prompt
    assert "m-1" not in prompt
    assert "A longer answer is not better" in prompt


def test_a_judge_that_cannot_compare_leaves_the_pair_without_a_score() -> None:
    assert scored(ScriptedJudge(lambda _: {"winner": None}), "Here.", "There.").strict is None
