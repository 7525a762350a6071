"""The draw of agents' runs: which unit, which run, which turns, and what a log lacks."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.suites.items import Item, list_openings, read_turn
from evals.traffic.draw import Draw, DrawRule, describe_draw, draw_records
from evals.traffic.items import LoggedCall, build_item
from evals.traffic.recorded_runs import MOST_TURNS, RunName, find_coverage, find_runs
from harness.evals.recorded_turn import Coverage
from harness.frame.errors import InputError
from harness.routing.capture import CapturedRequest
from tests.unit.test_traffic_draw import FIRST, LAST, NAMES, record

pytestmark = pytest.mark.req("F2", "F9")

RULE = DrawRule(FIRST, LAST, "seed")
TOOLS = [{"type": "function", "function": {"name": "find_order", "parameters": {}}}]


def call(number: int) -> dict[str, Any]:
    function = {"name": "find_order", "arguments": f'{{"number": {number}}}'}
    return {"id": f"c{number}", "type": "function", "function": function}


def run_of(name: str, turns: int, **changed: Any) -> list[CapturedRequest]:
    """A run whose every turn but the last calls a function."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": f"Find order {name} {name}"}]
    made = []
    for number in range(turns):
        is_last = number == turns - 1
        answer: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": []}
        answer |= {"content": f"Done: {name}."} if is_last else {"tool_calls": [call(number)]}
        plain = record(0, caller=f"caller of {name}", conversation=name)
        turn = replace(
            plain,
            id=f"drw_{name}_{number:02}",
            at=plain.at + timedelta(minutes=number),
            content={"messages": [*messages], "tools": TOOLS, "answer": answer},
        )
        made.append(replace(turn, **changed))
        messages += [
            {key: value for key, value in answer.items() if value},
            {"role": "tool", "tool_call_id": f"c{number}", "content": f"{name} {number} found"},
        ]
    return made


def log_of(lengths: Sequence[int]) -> list[CapturedRequest]:
    return [
        turn for number, turns in enumerate(lengths) for turn in run_of(f"r{number}", turns)
    ]


def drawn(records: list[CapturedRequest], rule: DrawRule = RULE, **known: Any) -> Draw:
    return draw_records(records, rule, model_names=NAMES, **known)


def test_a_log_of_agents_gives_whole_runs_in_the_order_of_their_turns() -> None:
    draw = drawn(log_of([3, 1, 5]))

    turns = [entry.turn for entry in draw.records]
    assert draw.runs_by is RunName.CONVERSATION
    assert [(turn.run, turn.number, turn.of) for turn in turns if turn] == [
        *(("r0", number, 3) for number in (1, 2, 3)),
        ("r1", 1, 1),
        *(("r2", number, 5) for number in range(1, 6)),
    ]
    assert draw.coverage == {Coverage.COMPLETE: 3}
    assert "3 runs of agents (9 turns)" in describe_draw(draw)


def test_requests_of_a_chat_without_functions_are_drawn_as_before() -> None:
    chats = [
        replace(turn, content={**turn.content, "tools": []})
        for name in "abcdef"
        for turn in run_of(name, 1)
    ]

    assert drawn(chats).runs_by is None


def test_the_trace_names_the_run_and_a_trace_of_one_request_does_not() -> None:
    records = log_of([3, 3, 3])
    own = {one.id: f"trace of {one.id}" for one in records}
    shared = {one.id: f"trace of {one.conversation}" for one in records}

    by_trace = find_runs(records, shared)
    by_conversation = find_runs(records, own)

    assert by_trace is not None
    assert by_conversation is not None
    assert by_trace.by is RunName.TRACE
    assert by_trace.runs == shared
    assert by_conversation.by is RunName.CONVERSATION


def test_a_caller_gives_one_run_and_a_request_without_a_run_is_its_own() -> None:
    busy = [turn for n in range(4) for turn in run_of(f"b{n}", 3, caller="busy")]
    alone = run_of("alone", 1, conversation="", caller="")
    records = [*log_of([4] * 60), *busy, *alone]

    draw = drawn(records)

    runs = Counter(entry.turn.run for entry in draw.records if entry.turn)
    assert len([run for run in runs if run.startswith("b")]) == 1
    assert runs["drw_alone_00"] == 1
    assert draw.unnamed_runs == 1
    assert draw.left_out["of other runs of a drawn caller or conversation"] == 9
    weights = {entry.unit: entry.requests for entry in draw.records}
    assert weights["busy"] == 12


def test_a_run_of_two_callers_counts_for_the_caller_of_its_first_turn() -> None:
    handed_over = run_of("shared", 4)
    handed_over[2:] = [replace(turn, caller="another") for turn in handed_over[2:]]

    draw = drawn([*log_of([2] * 40), *handed_over])

    units = {entry.unit for entry in draw.records if entry.turn and entry.turn.run == "shared"}
    assert units == {"caller of shared"}
    assert sum(entry.unit == "caller of shared" for entry in draw.records) == 4


def test_a_log_whose_runs_all_have_one_name_is_refused() -> None:
    alike = [replace(turn, caller="", conversation="default") for turn in log_of([3] * 9)]

    with pytest.raises(InputError, match="all records name one conversation"):
        drawn(alike)


def test_a_long_run_gives_at_most_ten_turns_from_all_its_parts() -> None:
    records = log_of([40, 40, 40, 3, 3, 3])

    draw = drawn(records)

    numbers: dict[str, list[int]] = {}
    for entry in draw.records:
        assert entry.turn is not None
        numbers.setdefault(entry.turn.run, []).append(entry.turn.number)
    assert {run: len(of) for run, of in numbers.items()}["r0"] == MOST_TURNS
    assert all(of == sorted(of) for of in numbers.values())
    assert max(max(of) for of in numbers.values()) > 30
    assert draw.left_out[f"beyond {MOST_TURNS} turns of a run"] == 90


@given(st.lists(st.sampled_from(["good", "bad", None]), min_size=20, max_size=20))
def test_no_answer_changes_the_drawn_runs(answers: list[str | None]) -> None:
    plain = log_of([4] * 5)
    other = [
        replace(one, content={**one.content, "answer": answer and {"content": answer}})
        for one, answer in zip(plain, answers, strict=True)
    ]
    if not any(answers):
        return
    rule = replace(RULE, max_items=9)

    assert [entry.record.id for entry in drawn(other, rule).records] == [
        entry.record.id for entry in drawn(plain, rule).records
    ]


def test_a_number_of_items_takes_whole_runs_and_no_shorter_run_instead_of_a_longer() -> None:
    """A draw that fills its last places with short runs would favour them."""
    draws = [
        drawn(log_of([8, 1] * 10), DrawRule(FIRST, LAST, f"seed {n}", max_items=30))
        for n in range(40)
    ]

    lengths = [
        Counter(entry.turn.run for entry in draw.records if entry.turn).values()
        for draw in draws
    ]
    assert all(set(of) <= {1, 8} for of in lengths)
    short = sum(length == 1 for of in lengths for length in of)
    share = short / sum(map(len, lengths))
    assert 0.4 < share < 0.6


@pytest.mark.parametrize(
    ("turns", "coverage"),
    [
        (run_of("a", 4), Coverage.COMPLETE),
        (run_of("a", 1), Coverage.COMPLETE),
        (run_of("a", 4)[1:], Coverage.INCOMPLETE),
        (run_of("a", 4)[:3], Coverage.INCOMPLETE),
        ([run_of("a", 4)[0], *run_of("a", 4)[2:]], Coverage.INCOMPLETE),
        ([run_of("a", 1)[0], run_of("b", 1)[0]], Coverage.UNKNOWN),
    ],
    ids=["whole", "one turn", "no begin", "no end", "a gap", "two beginnings"],
)
def test_missing_turns_are_a_value_of_their_own(
    turns: list[CapturedRequest], coverage: Coverage
) -> None:
    assert find_coverage(turns, RunName.CONVERSATION) is coverage


def test_a_turn_without_an_answer_that_was_asked_again_is_no_gap() -> None:
    first, *rest = run_of("a", 3)
    failed = replace(first, content={**first.content, "answer": None})

    assert find_coverage([failed, first, *rest], RunName.TRACE) is Coverage.COMPLETE
    assert find_coverage([failed], RunName.TRACE) is Coverage.UNKNOWN


def test_a_conversation_that_began_before_the_log_lacks_turns_and_a_trace_does_not() -> None:
    (turn,) = run_of("a", 1)
    history = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    later = replace(
        turn, content={**turn.content, "messages": [*history, *turn.content["messages"]]}
    )

    assert find_coverage([later], RunName.CONVERSATION) is Coverage.INCOMPLETE
    assert find_coverage([later], RunName.TRACE) is Coverage.COMPLETE


def test_an_item_has_its_turn_and_its_run_is_its_cluster() -> None:
    draw = drawn(log_of([3, 3, 3]))

    item = build_item(draw.records[1], LoggedCall(), answers_of="sim/base")

    assert item["metadata"]["run"] == "r0"
    assert item["metadata"]["turn"] == {"number": 2, "of": 3, "coverage": "complete"}
    assert [message["role"] for message in item["metadata"]["messages"]] == [
        "user",
        "assistant",
        "tool",
    ]


def test_of_a_run_only_the_first_turn_shows_which_runs_begin_alike() -> None:
    lines = [
        build_item(entry, LoggedCall(), answers_of="sim/base")
        for entry in drawn(log_of([3, 1, 4])).records
    ]
    items = [
        Item(line["id"], line["input"], line["target"], metadata=line["metadata"])
        for line in reversed(lines)
    ]

    assert sorted(item.id for item in list_openings(items)) == [
        "drw_r0_00",
        "drw_r1_00",
        "drw_r2_00",
    ]
    users = replace(items[0], metadata={"turn": "left"})
    assert read_turn(users) is None
    with pytest.raises(InputError, match="draw the suite again"):
        read_turn(replace(items[0], metadata={**items[0].metadata, "turn": {"number": 1}}))
