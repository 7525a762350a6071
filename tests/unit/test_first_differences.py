"""When a candidate's calls first differ from a recorded run; a description, and no test."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from harness.evals.recorded_turn import Coverage, RecordedTurn
from harness.gate.run import Sample, SampleError
from harness.proposals.report.recorded_runs import (
    NO_CALLS,
    NOT_ALL_TURNS,
    NOT_ANSWERED,
    NOT_LOGGED,
    FirstDifferences,
    describe_runs,
    read_calls,
)
from tests.support.store.records import PLAIN_SAMPLE

pytestmark = pytest.mark.req("F2", "F6")


def calls(*numbers: int) -> str:
    made = [{"name": "find", "arguments": {"number": number, "x": 1}} for number in numbers]
    return json.dumps({"content": "text beside", "tool_calls": made})


def turn(number: int, turns: int, **changed: object) -> RecordedTurn:
    plain = RecordedTurn("r", number, turns, Coverage.COMPLETE, is_logged=True)
    return replace(plain, **changed)  # type: ignore[arg-type] # fields by name


def described(
    candidate: Sequence[str | None], recorded: Sequence[str], **changed: object
) -> FirstDifferences:
    """One run.

    Args:
        candidate: None for an answer that the provider did not give.
    """
    turns = {f"t{n}": turn(n + 1, len(recorded), **changed) for n in range(len(recorded))}

    def samples(answers: Sequence[str | None]) -> Mapping[str, Sample]:
        return {
            f"t{n}": replace(
                PLAIN_SAMPLE,
                item=f"t{n}",
                prompt="asked",
                answer=answer or "",
                error=None if answer is not None else SampleError.INFRA,
            )
            for n, answer in enumerate(answers)
        }

    return describe_runs(turns, samples(candidate), samples(recorded))


def test_a_run_is_counted_by_the_turns_before_its_first_other_call() -> None:
    found = described([calls(1), calls(9), "Done."], [calls(1), calls(2), "Done."])

    assert (found.same, found.differ, found.median_turns) == (0, 1, 1)
    assert "the first call that differs comes after 1 turn (median)" in found.text
    assert "decides nothing" in found.text


def test_the_order_of_calls_and_the_text_beside_them_are_no_difference() -> None:
    found = described([calls(2, 1), "Other words."], [calls(1, 2), "Done."])

    assert (found.same, found.differ) == (1, 0)
    assert read_calls(calls(2, 1)) == read_calls(calls(1, 2))


def test_a_call_where_the_record_has_none_differs() -> None:
    assert described(["Hello", calls(1)], ["Hello", "Done."]).median_turns == 1


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (described(["Hello", "Bye"], ["Hi", "Ciao"]), NO_CALLS),
        (described([None, calls(1)], [calls(1), calls(1)]), NOT_ANSWERED),
        (described([calls(1)], [calls(1)], of=3), NOT_ALL_TURNS),
        (described([calls(1)], [calls(1)], coverage=Coverage.INCOMPLETE), NOT_ALL_TURNS),
        (described([calls(1)], [calls(1)], coverage=Coverage.UNKNOWN), NOT_ALL_TURNS),
        (described([calls(1)], [calls(1)], is_logged=False), NOT_LOGGED),
    ],
)
def test_what_is_unknown_is_a_value_of_its_own(found: FirstDifferences, reason: str) -> None:
    assert found.unknown == {reason: 1}
    assert (found.same, found.differ, found.median_turns) == (0, 0, None)
    assert f"Unknown for 1 run (1: {reason})" in found.text


def test_an_answer_that_failed_after_the_first_difference_does_not_matter() -> None:
    assert described([calls(2), None], [calls(1), calls(1)]).median_turns == 0


def test_numbers_are_equal_by_value_and_no_answer_breaks_the_description() -> None:
    def call(arguments: str) -> Sequence[str]:
        return read_calls(f'{{"tool_calls": [{{"name": "f", "arguments": {arguments}}}]}}')

    assert call('{"n": 1.0}') == call('{"n": 1}')
    assert call('{"n": NaN}') != call('{"n": 1e999}')
    assert call("[" * 100_000) == []
