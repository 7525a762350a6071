"""A turn of an agent: which calls of an answer are run, and what its bounds leave to it and its
sub-tasks.
"""

import re
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from harness.agents.caller import AgentCaller
from harness.agents.conversation import TurnOutcome
from harness.agents.message import (
    MessageRole,
    MessageToolCall,
    MessageUsage,
    SessionMessage,
)
from harness.agents.sub_task import (
    SpawnArguments,
    SubTask,
    read_outcome,
    share_bounds,
)
from harness.agents.turn import (
    MAX_CALL_ID,
    ModelCallRequest,
    OfferedTool,
    TurnBudget,
    name_calls,
    sort_calls,
)
from harness.app.agents import RouterModelCalls
from harness.frame.errors import CallFailed
from harness.routing.settings import TurnBounds
from tests.support.control.manual_clock import ManualClock
from tests.support.store.agent_records import SESSION
from tests.support.store.records import NOW

pytestmark = pytest.mark.req("E2")

SEARCH = OfferedTool("search", "", {"type": "object"}, runs_at_client=False)
OPEN_DOOR = OfferedTool("open_door", "", {"type": "object"}, runs_at_client=True)
TOOLS = (SEARCH, OPEN_DOOR)


def call(
    name: str,
    id_: str = "c1",
    arguments: str = "{}",
) -> MessageToolCall:
    return MessageToolCall(id_, name, arguments)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (
            call("serch"),
            "there is no tool 'serch'; there are: search, open_door",
        ),
        (call("search", arguments="{"), "not JSON"),
        (call("search", arguments="[1]"), "not a JSON object"),
        (call("search", arguments="[" * 100_000), "not JSON"),
        (call("search", arguments='{"q": NaN}'), "not JSON"),
        (call("search", arguments='{"q": "\\ud800"}'), "not JSON"),
    ],
)
def test_the_model_is_told_which_call_is_not_run_and_why(
    wrong: MessageToolCall, words: str
) -> None:
    server, client, refused = sort_calls([wrong], TOOLS)

    assert not server
    assert not client
    assert words in refused[0][1]


def test_of_too_many_calls_the_first_ones_are_run() -> None:
    calls = [call("search", f"c{number}") for number in range(5)]
    server, _, refused = sort_calls(
        calls,
        TOOLS,
        max_calls=2,
    )

    assert [server_call.id for server_call in server] == ["c0", "c1"]
    assert [refused_call.id for refused_call, _ in refused] == [
        "c2",
        "c3",
        "c4",
    ]


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ({}, ""),
        ({"max_steps": 1}, "its 1 steps"),
        ({"max_tokens": 20}, "its 20 tokens (20)"),
        ({"max_usd": 0.01}, "its 0.01 USD (0.01)"),
        ({"timeout_s": 1.0}, "its 1 s"),
    ],
)
def test_a_bound_that_is_used_up_leaves_no_further_step(
    bounds: dict[str, float], words: str
) -> None:
    budget = TurnBudget(replace(TurnBounds(), **bounds), began_s=100.0)  # type: ignore[arg-type]
    budget.require_left(100.0)
    budget.steps += 1
    budget.charge(MessageUsage(10, 10, 0, 0.01))

    fails = pytest.raises(CallFailed, match=f"{re.escape(words)}$") if words else nullcontext()
    with fails:
        budget.require_left(101.0)


calls_of_models = st.builds(
    MessageToolCall,
    id=st.sampled_from(["", "a", "b", "x" * 300]),
    name=st.sampled_from(["search", "open_door", "nothing"]),
    arguments=st.sampled_from(["{}", "{", '{"q": 1}']),
)


@given(st.lists(calls_of_models, max_size=8))
def test_every_call_is_sorted_once_and_in_order(calls: list[MessageToolCall]) -> None:
    named = name_calls(calls, "ms_1")
    groups = sort_calls(named, TOOLS, max_calls=4)
    sorted_calls = [
        *groups[0],
        *groups[1],
        *(refused_call for refused_call, _ in groups[2]),
    ]

    assert sorted(c.id for c in sorted_calls) == sorted(c.id for c in named)
    for group in (
        groups[0],
        groups[1],
        tuple(refused_call for refused_call, _ in groups[2]),
    ):
        places = [named.index(group_call) for group_call in group]
        assert places == sorted(places)


@given(st.lists(calls_of_models, max_size=8))
def test_every_call_of_an_answer_has_an_id_of_its_own(calls: list[MessageToolCall]) -> None:
    ids = [named_call.id for named_call in name_calls(calls, "ms_1")]

    assert len(set(ids)) == len(calls)
    assert all(0 < len(id_) <= MAX_CALL_ID for id_ in ids)


def test_an_id_that_a_model_could_have_guessed_is_given_to_one_call() -> None:
    named = name_calls([call("search", "call_ms_1_2"), call("search", "")], "ms_1")

    assert [named_call.id for named_call in named] == [
        "call_ms_1_2",
        "call_ms_1_3",
    ]


@pytest.mark.req("C6")
def test_a_call_names_task_and_model_or_several_of_them() -> None:
    one = SubTask(task="one", model="cheap")
    two = SubTask(task="two")
    given = [
        {"task": " one", "model": "cheap"},
        {"task": "two", "model": None},
    ]
    named = SpawnArguments.model_validate({"task": " one", "model": "cheap"})

    assert list(SpawnArguments.model_json_schema()["properties"])[:2] == [
        "task",
        "model",
    ]
    assert named.sub_tasks == (one,)
    assert SpawnArguments.model_validate({"tasks": given}).sub_tasks == [
        one,
        two,
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "give either `task`"),
        ({"model": "cheap"}, "give either `task`"),
        ({"task": "one", "tasks": [{"task": "two"}]}, "give either `task`"),
        (
            {"tasks": [{"task": "two"}], "model": "cheap"},
            "`model` belongs to `task`",
        ),
    ],
)
@pytest.mark.req("C6")
def test_a_call_of_both_forms_or_of_neither_is_refused(
    arguments: dict[str, object], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        SpawnArguments.model_validate(arguments)


@pytest.mark.parametrize(
    ("tasks", "place"),
    [
        ([], ("tasks",)),
        ("all", ("tasks",)),
        ([{"task": " "}], ("tasks", 0, "task")),
        ([{"task": "x", "model": 7}], ("tasks", 0, "model")),
    ],
)
@pytest.mark.req("C6")
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
@pytest.mark.req("C6")
def test_sub_tasks_together_may_use_no_more_than_the_turn_has_left(
    left: TurnBounds,
    usd: float,
    count: int,
) -> None:
    one = share_bounds(left, usd, count)

    assert one.max_usd * count <= min(left.max_usd, usd) * (1 + 1e-9)
    assert one.max_tokens * count <= left.max_tokens
    assert one.timeout_s <= left.timeout_s


@pytest.mark.req("C6")
def test_what_sub_tasks_used_counts_against_the_turn() -> None:
    budget = TurnBudget(TurnBounds(max_tokens=100, max_usd=1.0), 0.0)
    budget.charge(MessageUsage(30, 10, cost_usd=0.25))
    left = budget.left(20.0)

    assert (left.max_tokens, left.max_usd, left.timeout_s) == (60, 0.75, 280.0)
    budget.charge(MessageUsage(60, 0, cost_usd=0.25))
    assert budget.left(20.0).max_usd == 0.5
    with pytest.raises(CallFailed, match="100 tokens"):
        budget.require_left(10.0)


@pytest.mark.req("C6")
def test_a_long_answer_is_cut_and_says_so() -> None:
    said = SessionMessage("se_1", 2, "ms_2", MessageRole.ASSISTANT, NOW, "x" * 11)
    long = TurnOutcome(said)

    whole = read_outcome(SESSION, long, 11)
    assert (whole.answer, whole.is_cut) == ("x" * 11, False)
    cut = read_outcome(SESSION, long, 10)
    assert (cut.answer, cut.is_cut) == ("x" * 10, True)


class NewToTheRouter:
    """A router's answer about a model that it does not know."""

    status = 404
    headers: Mapping[str, str] = {}

    async def post(self, *_: object) -> "NewToTheRouter":
        return self

    async def body(self) -> bytes:
        return b'{"error": {"message": "no such model", "code": "model_not_found"}}'

    async def aclose(self) -> None: ...


@pytest.mark.parametrize(
    ("grant", "code", "is_temporary"),
    [("gr_1", "model_not_ready", True), ("", "model_not_found", False)],
)
async def test_a_model_that_was_just_granted_may_be_asked_again(
    monkeypatch: pytest.MonkeyPatch,
    grant: str,
    code: str,
    *,
    is_temporary: bool,
) -> None:
    calls = RouterModelCalls(
        "http://127.0.0.1:9", b"secret", ManualClock(), new_grant_wait_s=0.0
    )
    monkeypatch.setattr(calls, "_channel", NewToTheRouter())
    caller = AgentCaller("ag_1", "se_1", grant=grant)
    asked = ModelCallRequest("@sim/m", ({"role": "user", "content": "hi"},), caller, 60.0)

    with pytest.raises(CallFailed) as failed:
        await calls.ask(asked)

    assert (failed.value.code, failed.value.retryable) == (
        code,
        is_temporary,
    )
