"""Describes when the calls of a candidate first differ from those of agents' recorded runs.

The description decides nothing: after the first difference, the recorded history is no longer
the history that the candidate would have.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import median
from typing import Final

from harness.evals.recorded_turn import Coverage, RecordedTurn
from harness.frame.errors import SwapproofError
from harness.frame.formatting import format_percent, format_quantity
from harness.frame.plain_data import canonical_json
from harness.frame.records.transaction import Transaction
from harness.gate.run import Sample, SampleError
from harness.gate.suite_plan import SuitePlan
from harness.proposals.context import ProposalsContext
from harness.proposals.labels.label_items import first_answers, is_deleted
from harness.routing.proposal import SuiteRuns
from harness.routing.records.runs import EvalRuns

# Answers of more turns take long to read and to check.
MOST_READ_TURNS: Final = 1_000
NO_CALLS: Final = "neither model calls a function"
NOT_ALL_TURNS: Final = "the log or the draw may lack turns"
NOT_LOGGED: Final = "the log lacks an answer"
NOT_ANSWERED: Final = "the candidate gave no answer"
DELETED: Final = "answers were deleted after their retention"
CHANGED: Final = "the suite's file has changed"


@dataclass(frozen=True, slots=True)
class FirstDifferences:
    """Counts runs by the turn in which the candidate's calls first differ.

    same: runs in which no call differs. median_turns: turns before the first difference, of the
    runs that differ; None without one. unknown: runs by the reason.
    """

    runs: int
    same: int
    differ: int
    median_turns: float | None
    unknown: Mapping[str, int]

    @property
    def text(self) -> str:
        known = self.same + self.differ
        parts = []
        if known:
            parts.append(
                f"In {self.same:,} of {format_quantity(known, 'run')} "
                f"({format_percent(self.same / known)}), no call differs from the recorded run."
            )
        if self.median_turns is not None:
            turns = "turn" if self.median_turns == 1 else "turns"
            parts.append(
                f"In the {self.differ:,} others, the first call that differs comes after "
                f"{self.median_turns:g} {turns} (median)."
            )
        if self.unknown:
            reasons = "; ".join(f"{count:,}: {why}" for why, count in self.unknown.items())
            unknown = format_quantity(sum(self.unknown.values()), "run")
            parts.append(f"Unknown for {unknown} ({reasons}).")
        return f"{' '.join(parts)} This describes the runs, and decides nothing."


def load_first_differences(
    ctx: ProposalsContext,
    tx: Transaction,
    plan: SuitePlan,
    runs: SuiteRuns,
    items: int,
) -> FirstDifferences | None:
    """Describes the runs behind a verdict, up to MOST_READ_TURNS turns; None without such a
    run.

    Args:
        items: of the verdict, in the order of the plan.
    """
    units = plan.units_in(min(items, MOST_READ_TURNS))
    if not plan.has_recorded_runs or not units:
        return None
    turns = _find_turns(ctx, plan, units)
    if not turns:
        return FirstDifferences(units, 0, 0, None, {CHANGED: units})
    answers = [
        first_answers(EvalRuns(tx).samples_of(run, [*turns]))
        for run in (runs.candidate, runs.incumbent)
    ]
    return describe_runs(turns, *answers)


def _find_turns(
    ctx: ProposalsContext, plan: SuitePlan, units: int
) -> Mapping[str, RecordedTurn]:
    """Finds the turns of the first units in the order of the plan; empty if the suite is no
    longer the registered one.
    """
    try:
        if ctx.suites.pin(plan.suite).digest != plan.suite_digest:
            return {}
        order = ctx.suites.groups(plan.suite).order(plan.order_seed)
        turns = ctx.suites.recorded_turns(plan.suite)
    except SwapproofError:
        return {}
    return {item: turns[item] for item in order[: plan.items_in(units)] if item in turns}


def describe_runs(
    turns: Mapping[str, RecordedTurn],
    candidate: Mapping[str, Sample],
    incumbent: Mapping[str, Sample],
) -> FirstDifferences:
    """Describes runs by their answers.

    Args:
        turns: by item.
        candidate: by item.
        incumbent: by item.
    """
    found = [
        _find_first([(turn, candidate.get(item), incumbent.get(item)) for item, turn in own])
        for own in _group_turns(turns)
    ]
    differ = [turns_before for turns_before in found if isinstance(turns_before, int)]
    unknown = Counter(reason for reason in found if isinstance(reason, str))
    return FirstDifferences(
        len(found),
        found.count(None),
        len(differ),
        median(differ) if differ else None,
        dict(sorted(unknown.items())),
    )


def _group_turns(
    turns: Mapping[str, RecordedTurn],
) -> Iterator[Sequence[tuple[str, RecordedTurn]]]:
    """Yields the turns of each run, in their order."""

    def place(entry: tuple[str, RecordedTurn]) -> tuple[str, int]:
        return entry[1].run, entry[1].number

    ordered = sorted(turns.items(), key=place)
    for _, own in groupby(ordered, key=lambda entry: entry[1].run):
        yield list(own)


def _find_first(
    turns: Sequence[tuple[RecordedTurn, Sample | None, Sample | None]],
) -> int | str | None:
    """Returns the number of turns before the first turn whose calls differ, None if no call
    differs, or the reason why it is unknown.

    Args:
        turns: with the candidate's and the recorded answer.
    """
    first = turns[0][0]
    if first.coverage is not Coverage.COMPLETE or len(turns) < first.of:
        return NOT_ALL_TURNS
    has_calls = False
    for turns_before, (turn, answer, recorded) in enumerate(turns):
        if not turn.is_logged or recorded is None:
            return NOT_LOGGED
        if answer is None or answer.error not in (None, SampleError.UNSCORED):
            return NOT_ANSWERED
        if is_deleted(answer) or is_deleted(recorded):
            return DELETED
        calls = read_calls(answer.answer)
        if calls != read_calls(recorded.answer):
            return turns_before
        has_calls |= bool(calls)
    return None if has_calls else NO_CALLS


def read_calls(answer: str) -> Sequence[str]:
    """Reads the calls of a stored answer in an order of their own, each as canonical JSON.

    1 and 1.0 are equal, as for the scorer. A model may write NaN or JSON that is too deep.
    """
    if not answer.lstrip().startswith("{"):
        return []
    try:
        value = json.loads(answer, parse_float=_read_float, parse_constant=str)
        calls = value.get("tool_calls")
        return sorted(map(canonical_json, calls)) if isinstance(calls, list) else []
    except (ValueError, RecursionError):
        return []


def _read_float(text: str) -> float | str:
    """Reads a number; returns the text of a number that is too large for JSON."""
    number = float(text)
    if not math.isfinite(number):
        return text
    return int(number) if number.is_integer() else number
