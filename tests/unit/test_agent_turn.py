"""A turn of an agent: what follows each observation, and that it ends within its bounds."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.domain.agents.message import MessageToolCall, MessageUsage
from harness.domain.agents.turn import (
    LIMIT_REACHED,
    MAX_CALL_ID,
    MAX_TOOL_CALLS,
    AskModel,
    EndTurn,
    FailTurn,
    ModelAnswered,
    ModelFailed,
    OfferedTool,
    RunTools,
    ToolsAnswered,
    TurnBegun,
    TurnBounds,
    TurnProgress,
    decide,
    name_calls,
    sort_calls,
)

pytestmark = pytest.mark.req("E2")

SEARCH = OfferedTool("search", "", {"type": "object"}, runs_at_client=False)
OPEN_DOOR = OfferedTool("open_door", "", {"type": "object"}, runs_at_client=True)
TOOLS = (SEARCH, OPEN_DOOR)
BUSY = ModelFailed("all_targets_failed", "nobody answered", retryable=True)


def call(name: str, id_: str = "c1", arguments: str = "{}") -> MessageToolCall:
    return MessageToolCall(id_, name, arguments)


def answered(
    *calls: MessageToolCall, tokens: int = 10, usd: float | None = 0.01
) -> ModelAnswered:
    return ModelAnswered(MessageUsage(tokens, tokens, 0, usd), calls)


def begun(**bounds: float) -> TurnProgress:
    return TurnProgress(replace(TurnBounds(), **bounds), began_s=100.0, tools=TOOLS)  # type: ignore[arg-type]


def after(state: TurnProgress, *observations: object, now_s: float = 101.0) -> object:
    """The action after all of these."""
    action: object = None
    for observation in observations:
        state, action = decide(state, observation, now_s)  # type: ignore[arg-type]
    return action


def test_a_text_ends_the_turn() -> None:
    assert after(begun(), TurnBegun()) == AskModel(timeout_s=299.0)
    assert after(begun(), TurnBegun(), answered()) == EndTurn()


def test_functions_of_the_client_come_back_after_the_server_has_run_its_own() -> None:
    both = answered(call("open_door", "c1"), call("search", "c2"))

    assert after(begun(), TurnBegun(), both) == RunTools((call("search", "c2"),), (), 299.0)
    returned = after(begun(), TurnBegun(), both, ToolsAnswered())
    assert returned == EndTurn((call("open_door", "c1"),))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (call("serch"), "there is no tool 'serch'; there are: search, open_door"),
        (call("search", arguments="{"), "no JSON"),
        (call("search", arguments="[1]"), "no JSON object"),
        (call("search", arguments="[" * 100_000), "no JSON"),
        (call("search", arguments='{"q": NaN}'), "no JSON"),
        (call("search", arguments='{"q": "\\ud800"}'), "no JSON"),
    ],
)
def test_the_model_is_told_which_call_is_not_run_and_why(
    wrong: MessageToolCall, words: str
) -> None:
    run = after(begun(), TurnBegun(), answered(wrong))

    assert isinstance(run, RunTools)
    assert not run.calls
    assert words in run.refused[0][1]


def test_of_too_many_calls_the_first_ones_are_run() -> None:
    calls = [call("search", f"c{number}") for number in range(5)]
    server, _, refused = sort_calls(calls, TOOLS, most=2)

    assert [server_call.id for server_call in server] == ["c0", "c1"]
    assert [refused_call.id for refused_call, _ in refused] == ["c2", "c3", "c4"]


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ({"max_steps": 1}, "1 steps"),
        ({"max_tokens": 20}, "20 tokens"),
        ({"max_usd": 0.01}, "0.01 USD"),
        ({"timeout_s": 1.0}, "1 s"),
    ],
)
def test_a_bound_ends_the_turn_before_a_tool_runs_whose_result_nobody_reads(
    bounds: dict[str, float], words: str
) -> None:
    state, _ = decide(begun(**bounds), TurnBegun(), 100.0)
    _, action = decide(state, answered(call("search")), 101.0)

    assert isinstance(action, FailTurn)
    assert action.code == LIMIT_REACHED
    assert words in action.reason


def test_a_bound_takes_no_whole_answer_away() -> None:
    assert after(begun(max_steps=1, max_tokens=1), TurnBegun(), answered()) == EndTurn()


@pytest.mark.req("E1", "E5")
def test_the_fallback_is_asked_once_for_a_retryable_failure_and_stays_for_the_turn() -> None:
    state = replace(begun(), has_fallback=True)
    fallback = AskModel(299.0, fallback=True, reason="nobody answered")

    assert after(state, TurnBegun(), BUSY) == fallback
    after_tools = after(state, TurnBegun(), BUSY, answered(call("search")), ToolsAnswered())
    assert after_tools == AskModel(299.0, fallback=True)
    ended = FailTurn("all_targets_failed", "nobody answered", retryable=True)
    assert after(state, TurnBegun(), BUSY, BUSY) == ended


@pytest.mark.req("E1")
@pytest.mark.parametrize(
    "failure",
    [
        replace(BUSY, retryable=False),
        # The client has read a part of an answer: another model's would not fit to it.
        replace(BUSY, has_output=True),
    ],
)
def test_the_fallback_is_not_asked_where_it_would_not_help(failure: ModelFailed) -> None:
    state = replace(begun(), has_fallback=True)

    action = after(state, TurnBegun(), failure)

    assert action == FailTurn(failure.code, failure.reason, failure.retryable)


calls_of_models = st.builds(
    MessageToolCall,
    id=st.sampled_from(["", "a", "b", "x" * 300]),
    name=st.sampled_from(["search", "open_door", "nothing"]),
    arguments=st.sampled_from(["{}", "{", '{"q": 1}']),
)
usages = st.builds(
    MessageUsage,
    input_tokens=st.integers(0, 500),
    output_tokens=st.integers(0, 500),
    cost_usd=st.none() | st.floats(0, 1),
)
answers = st.builds(ModelAnswered, usages, st.lists(calls_of_models, max_size=4).map(tuple))
failures = st.builds(
    ModelFailed, st.just("code"), st.just("why"), st.booleans(), has_output=st.booleans()
)
bounds_of_turns = st.builds(
    TurnBounds,
    max_steps=st.integers(0, 5),
    max_tokens=st.integers(0, 2000),
    max_usd=st.floats(0, 2),
    timeout_s=st.floats(0, 60),
)


@given(bounds=bounds_of_turns, has_fallback=st.booleans(), data=st.data())
def test_every_turn_ends_within_its_bounds(
    bounds: TurnBounds,
    has_fallback: bool,  # noqa: FBT001 - drawn
    data: st.DataObject,
) -> None:
    now_s = 5.0
    state = TurnProgress(bounds, now_s, TOOLS, has_fallback)
    state, action = decide(state, TurnBegun(), now_s)
    asked = ran = 0
    while isinstance(action, AskModel | RunTools):
        assert asked + ran <= 2 * bounds.max_steps + 1
        now_s += data.draw(st.floats(0, 20))
        match action:
            case AskModel(timeout_s):
                asked += 1
                # Each bound left something when it was asked.
                assert 0 < timeout_s <= bounds.timeout_s
                assert state.steps < bounds.max_steps
                assert state.tokens < bounds.max_tokens
                assert state.usd < bounds.max_usd
                state, action = decide(state, data.draw(answers | failures), now_s)
            case RunTools(server_calls, refused):
                ran += 1
                assert len(server_calls) <= MAX_TOOL_CALLS
                assert server_calls or refused
                state, action = decide(state, ToolsAnswered(), now_s)
    assert isinstance(action, EndTurn | FailTurn)
    assert asked <= bounds.max_steps + has_fallback


@given(st.lists(calls_of_models, max_size=8))
def test_every_call_is_sorted_once_and_in_order(calls: list[MessageToolCall]) -> None:
    named = name_calls(calls, "ms_1")
    groups = sort_calls(named, TOOLS, most=4)
    sorted_calls = [*groups[0], *groups[1], *(refused_call for refused_call, _ in groups[2])]

    assert sorted(c.id for c in sorted_calls) == sorted(c.id for c in named)
    for group in (groups[0], groups[1], tuple(refused_call for refused_call, _ in groups[2])):
        places = [named.index(group_call) for group_call in group]
        assert places == sorted(places)


@given(st.lists(calls_of_models, max_size=8))
def test_every_call_of_an_answer_has_an_id_of_its_own(calls: list[MessageToolCall]) -> None:
    ids = [named_call.id for named_call in name_calls(calls, "ms_1")]

    assert len(set(ids)) == len(calls)
    assert all(0 < len(id_) <= MAX_CALL_ID for id_ in ids)


def test_an_id_that_a_model_could_have_guessed_is_given_to_one_call() -> None:
    named = name_calls([call("search", "call_ms_1_2"), call("search", "")], "ms_1")

    assert [named_call.id for named_call in named] == ["call_ms_1_2", "call_ms_1_3"]
