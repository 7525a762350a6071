"""Sub-tasks as a model asks for them, and what they may use up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.control.agents.spawn import (
    MAX_ANSWERS_CHARS,
    SubTask,
    SubTaskResult,
    SubTaskStatus,
    cut_answers,
    parse_sub_tasks,
    share_bounds,
)
from harness.domain.agents.message import MessageUsage
from harness.domain.agents.turn import TurnBounds, TurnBudget
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
    ("tasks", "reason"),
    [
        ([], "tasks: give a list"),
        ("all", "tasks: give a list"),
        ([{"task": ""}], r"tasks\[0\].task"),
        ([{"task": "x", "model": 7}], r"tasks\[0\].model"),
    ],
)
def test_what_is_no_list_of_tasks_is_said(tasks: object, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        parse_sub_tasks({"tasks": tasks}, 2)


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
    budget = TurnBudget(TurnBounds(max_tokens=100, max_usd=1.0), 0.0)
    budget.charge(MessageUsage(30, 10, cost_usd=0.25))
    left = budget.left(20.0)

    assert (left.max_tokens, left.max_usd, left.timeout_s) == (60, 0.75, 280.0)
    budget.charge(MessageUsage(60, 0, cost_usd=0.0))
    exhausted = budget.find_exhausted(10.0)
    assert exhausted is not None
    assert "100 tokens" in exhausted.reason


def test_long_answers_are_cut_and_say_so() -> None:
    results = [
        SubTaskResult(SubTaskStatus.DONE, "m", "se_1", answer="x" * MAX_ANSWERS_CHARS),
        SubTaskResult(SubTaskStatus.DONE, "m", "se_2", answer="short"),
    ]
    long, short = cut_answers(results)

    assert long.is_cut
    assert len(long.answer) == MAX_ANSWERS_CHARS // 2
    assert short == results[1]
