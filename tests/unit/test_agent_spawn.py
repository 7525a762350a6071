"""Sub-tasks as a model asks for them, and what they may use up."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.domain.agents.message import MessageUsage
from harness.domain.agents.spawn import (
    MAX_ANSWERS_CHARS,
    SubTask,
    SubTaskResult,
    SubTaskStatus,
    cut_answers,
    parse_sub_tasks,
    share_bounds,
)
from harness.domain.agents.turn import (
    FailTurn,
    ToolsAnswered,
    TurnBounds,
    TurnProgress,
    decide,
    remaining,
)
from harness.domain.errors import InputError

pytestmark = pytest.mark.req("C6")


def test_tasks_come_as_a_list_or_as_one() -> None:
    both = (SubTask("one", "cheap"), SubTask("two"))

    assert (
        parse_sub_tasks({"tasks": [{"task": "one", "model": " cheap "}, {"task": "two"}]}, 2)
        == both
    )
    assert parse_sub_tasks({"task": "one", "model": "cheap"}, 2) == both[:1]
    assert parse_sub_tasks({"tasks": [{"task": "two", "model": None}]}, 2) == both[1:]


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        ({}, "tasks: give a list"),
        ({"tasks": {}}, "tasks: give a list"),
        ({"tasks": "one"}, "tasks: give a list"),
        ({"tasks": [{"task": "x"}] * 3}, "tasks: there are 3"),
        ({"tasks": ["one"]}, r"tasks\[0\]: it is no object"),
        ({"tasks": [{"task": "x"}, {"model": "m"}]}, r"tasks\[1\].task"),
        ({"tasks": [{"task": "x" * 20_001}]}, r"tasks\[0\].task"),
        ({"tasks": [{"task": "x", "model": "m" * 301}]}, r"tasks\[0\].model"),
    ],
)
def test_what_is_no_task_is_refused_with_its_place(
    arguments: dict[str, Any], place: str
) -> None:
    with pytest.raises(InputError, match=place):
        parse_sub_tasks(arguments, 2)


@given(
    left=st.builds(
        TurnBounds,
        max_tokens=st.integers(0, 10**7),
        max_usd=st.floats(0, 100),
        timeout_s=st.floats(0, 1000),
    ),
    usd=st.floats(0, 100),
    count=st.integers(1, 20),
)
def test_sub_tasks_together_may_use_no_more_than_the_turn_has_left(
    left: TurnBounds, usd: float, count: int
) -> None:
    one = share_bounds(left, usd, count)

    assert one.max_usd * count <= min(left.max_usd, usd) * (1 + 1e-9)
    assert one.max_tokens * count <= left.max_tokens
    assert one.timeout_s <= left.timeout_s


def test_what_sub_tasks_used_counts_against_the_turn() -> None:
    state = TurnProgress(TurnBounds(max_tokens=100, max_usd=1.0), 0.0)
    state, _ = decide(state, ToolsAnswered(MessageUsage(30, 10, cost_usd=0.25)), 10.0)
    left = remaining(state, 20.0)

    assert (left.max_tokens, left.max_usd, left.timeout_s) == (60, 0.75, 280.0)
    _, action = decide(state, ToolsAnswered(MessageUsage(60, 0, cost_usd=0.0)), 10.0)
    assert isinstance(action, FailTurn)
    assert "100 tokens" in action.reason


def test_long_answers_are_cut_and_say_so() -> None:
    results = [
        SubTaskResult(SubTaskStatus.DONE, "m", "se_1", answer="x" * MAX_ANSWERS_CHARS),
        SubTaskResult(SubTaskStatus.DONE, "m", "se_2", answer="short"),
    ]
    long, short = cut_answers(results)

    assert long.is_cut
    assert len(long.answer) == MAX_ANSWERS_CHARS // 2
    assert short == results[1]
