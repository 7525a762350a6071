"""Finds the runs of agents in a log, and the turns of a run (statistics.md §1.22). Pure.

A run is one trace, or one conversation if most traces have one request. A turn is one request,
with the history that the log recorded. No choice of runs or turns reads an answer. Only the
coverage does, which people read and no test uses.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby, pairwise
from typing import Any, Final

from harness.evals.recorded_turn import Coverage, RecordedTurn
from harness.routing.capture import CapturedRequest

MOST_TURNS: Final = 10  # of a run; further turns of the same run would tell little more
_FEWEST_TURNS: Final = 2  # of a run; one request alone is no run


class RunName(StrEnum):
    """The field of a log that names the run of a request."""

    TRACE = "trace"
    CONVERSATION = "conversation"


@dataclass(frozen=True, slots=True)
class RunNames:
    """The runs of a log. by: the field that names them. runs: by record; a record without a
    name is a run of its own.
    """

    by: RunName
    runs: Mapping[str, str]


def find_runs(records: Sequence[CapturedRequest], traces: Mapping[str, str]) -> RunNames | None:
    """Finds the runs, if most records are turns of agents' runs; None otherwise.

    Args:
        traces: by record, for records whose log names a trace.
    """
    names_by_field = {
        RunName.TRACE: traces,
        RunName.CONVERSATION: {record.id: record.conversation for record in records},
    }
    agents = [record.id for record in records if _is_turn(record)]
    for field, names in names_by_field.items():
        turns_by_run = Counter(name for id_ in agents if (name := names.get(id_)))
        turns = sum(count for count in turns_by_run.values() if count >= _FEWEST_TURNS)
        if 2 * turns > len(records):
            runs = {record.id: names.get(record.id) or record.id for record in records}
            return RunNames(field, runs)
    return None


def _is_turn(record: CapturedRequest) -> bool:
    """Tells whether a request offers functions, or has the result of one."""
    messages = record.content.get("messages", ())
    return bool(record.content.get("tools")) or any(map(_is_result, messages))


def _is_result(message: Mapping[str, Any]) -> bool:
    return message.get("role") == "tool"


def number_turns(
    records: Sequence[CapturedRequest], named: RunNames
) -> Mapping[str, RecordedTurn]:
    """Numbers the turns of each run, by record.

    Args:
        records: of the log, oldest first.
    """
    records_by_run: dict[str, list[CapturedRequest]] = {}
    for record in records:
        records_by_run.setdefault(named.runs[record.id], []).append(record)
    turns: dict[str, RecordedTurn] = {}
    for run, own in records_by_run.items():
        coverage = find_coverage(own, named.by)
        for number, record in enumerate(own, start=1):
            turns[record.id] = RecordedTurn(
                run, number, len(own), coverage, is_logged=has_answer(record)
            )
    return turns


def order_by_run(
    records: Sequence[CapturedRequest], named: RunNames
) -> Sequence[CapturedRequest]:
    """Puts the turns of a run together, oldest first.

    Args:
        records: of the log, oldest first.
    """
    starts: dict[str, int] = {}
    for number, record in enumerate(records):
        starts.setdefault(named.runs[record.id], number)
    return sorted(records, key=lambda record: starts[named.runs[record.id]])


def find_coverage(records: Sequence[CapturedRequest], by: RunName) -> Coverage:
    """Tells whether the log has all turns of a run.

    Args:
        records: of the run, oldest first.

    Each history must have one answer more than the history before it, unless that request got
    no answer. A conversation begins without an answer; a trace may continue a conversation.
    """
    first = records[0]
    last = records[-1]
    begins_late = _is_result(first.content["messages"][-1]) or (
        by is RunName.CONVERSATION and _count_answers(first) > 0
    )
    growths = [
        _count_answers(after) - _count_answers(before) - has_answer(before)
        for before, after in pairwise(records)
    ]
    if begins_late or _has_calls(last) or any(growth > 0 for growth in growths):
        return Coverage.INCOMPLETE
    if not has_answer(last) or any(growth < 0 for growth in growths):
        return Coverage.UNKNOWN
    return Coverage.COMPLETE


def _count_answers(record: CapturedRequest) -> int:
    """Counts the answers in a request's history. An answer may have several messages."""
    roles = [message.get("role") for message in record.content["messages"]]
    return sum(role == "assistant" for role, _ in groupby(roles))


def has_answer(record: CapturedRequest) -> bool:
    """Tells whether the log has the answer that the user got, also an empty one."""
    return isinstance(record.content.get("answer"), Mapping)


def _has_calls(record: CapturedRequest) -> bool:
    """Tells whether the answer calls functions, whose results a further turn would have."""
    answer = record.content.get("answer")
    return isinstance(answer, Mapping) and bool(answer.get("tool_calls"))
