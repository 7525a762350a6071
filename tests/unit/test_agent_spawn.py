"""Sub-tasks as a model asks for them, and what they may use up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from harness.control.agents.conversation import TurnOutcome
from harness.control.agents.spawn import SpawnArguments, SubTask, read_outcome, share_bounds
from harness.domain.agents.message import MessageRole, MessageUsage, SessionMessage
from harness.domain.agents.turn import TurnBounds, TurnBudget
from tests.support.store.agent_records import SESSION
from tests.support.store.records import NOW

pytestmark = pytest.mark.req("C6")


def test_tasks_come_as_a_list_or_as_one() -> None:
    one, two = SubTask(task="one", model="cheap"), SubTask(task="two")
    given = [{"task": " one", "model": "cheap"}, {"task": "two", "model": None}]

    assert SpawnArguments.model_validate({"tasks": given}).tasks == [one, two]
    assert SpawnArguments.model_validate({"task": "one", "model": "cheap"}).tasks == [one]


@pytest.mark.parametrize(
    ("tasks", "place"),
    [
        ([], ("tasks",)),
        ("all", ("tasks",)),
        ([{"task": " "}], ("tasks", 0, "task")),
        ([{"task": "x", "model": 7}], ("tasks", 0, "model")),
    ],
)
def test_what_is_no_list_of_tasks_is_said(tasks: object, place: tuple[object, ...]) -> None:
    with pytest.raises(ValidationError) as wrong:
        SpawnArguments.model_validate({"tasks": tasks})
    assert wrong.value.errors()[0]["loc"] == place


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


def test_a_long_answer_is_cut_and_says_so() -> None:
    said = SessionMessage("se_1", 2, "ms_2", MessageRole.ASSISTANT, NOW, "x" * 11)
    long = TurnOutcome(said)

    assert read_outcome(SESSION, long, 11).answer == "x" * 11
    cut = read_outcome(SESSION, long, 10)
    assert (cut.answer, cut.is_cut) == ("x" * 10, True)
