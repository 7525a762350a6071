"""Draws the records of a suite of traffic (statistics.md §1.22). Pure.

The draw reads times, models, callers and questions, but no answer and no outcome: refused and
cut answers stay. The same records, dates and seed give the same draw.

The log decides the unit, not a person: if most of its requests are turns of agents' runs, the
draw takes one run of each caller, else at most MOST_OF_A_CALLER requests.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from evals.traffic.recorded_runs import (
    MOST_TURNS,
    RunName,
    RunNames,
    find_runs,
    has_answer,
    number_turns,
    order_by_run,
)
from harness.evals.recorded_turn import Coverage, RecordedTurn
from harness.frame.errors import InputError
from harness.frame.formatting import format_percent, format_quantity
from harness.frame.plain_data import hash_content
from harness.routing.capture import (
    MOST_OF_A_CALLER,
    CapturedRequest,
    day_start,
    message_text,
    user_text,
)
from harness.routing.similar_texts import find_near_duplicates

MAX_AGE_DAYS: Final = 14
# A caller with a larger share of the requests counts by conversation.
HEAVY_SHARE: Final = 0.05
MIN_DAYS: Final = 1
_ALIKE: Final = 0.9  # similarity of two questions that count as one
_MOST_COMPARED: Final = 500  # questions; if so many are alike, the others are too

OUTSIDE: Final = "outside the dates of the draw"
OTHER_MODEL: Final = "of another model than the incumbent's model of today"
FREQUENT: Final = f"of callers or conversations with more than {MOST_OF_A_CALLER} requests"
BEYOND: Final = "beyond the number of items"
OTHER_RUNS: Final = "of other runs of a drawn caller or conversation"
MORE_TURNS: Final = f"beyond {MOST_TURNS} turns of a run"


@dataclass(frozen=True, slots=True)
class DrawRule:
    """The rule of a draw, fixed before an answer is read.

    first, last: whole days in UTC, both included. max_items: None for no limit.
    """

    first: date
    last: date
    seed: str
    max_items: int | None = None

    @property
    def days(self) -> int:
        return (self.last - self.first).days + 1

    def includes(self, at: datetime) -> bool:
        """Tells whether a time is within the days of the draw."""
        return self.first <= at.astimezone(UTC).date() <= self.last


@dataclass(frozen=True, slots=True)
class DrawnRecord:
    """A drawn record. unit: the caller, the conversation or the run that it counts for.

    requests: the number of the unit's requests in the log, its weight in the estimate that is
    weighted by requests.
    """

    record: CapturedRequest
    unit: str
    requests: int
    turn: RecordedTurn | None = None  # only in a draw of runs


@dataclass(frozen=True, slots=True)
class Draw:
    """The drawn records, oldest first, and the counts that the manifest registers.

    A draw of runs has the turns of a run together, in their order.
    """

    rule: DrawRule
    records: Sequence[DrawnRecord]
    served: str  # the served model of all records
    per_day: Mapping[date, int]
    left_out: Mapping[str, int]  # by reason
    callers: int
    split_callers: int  # callers whose conversations count on their own
    unnamed: int  # drawn records without a caller and without a conversation
    failed: int  # drawn records without an answer, which both models are asked again
    runs_by: RunName | None = None  # only in a draw of runs

    @property
    def coverage(self) -> Counter[Coverage]:
        """Counts the drawn runs by their coverage."""
        turns = (entry.turn for entry in self.records if entry.turn is not None)
        return Counter({turn.run: turn.coverage for turn in turns}.values())

    @property
    def unnamed_runs(self) -> int:
        """Counts the drawn records whose log names no run."""
        return sum(
            entry.turn is not None and entry.turn.run == entry.record.id
            for entry in self.records
        )


def draw_dates(now: datetime, days: int) -> tuple[date, date]:
    """Returns the first and the last of whole days (UTC) that end yesterday.

    Raises InputError for days that would include records older than MAX_AGE_DAYS.
    """
    if not MIN_DAYS <= days <= MAX_AGE_DAYS:
        raise InputError(f"a draw has {MIN_DAYS} to {MAX_AGE_DAYS} whole days, not {days}")
    today = day_start(now).date()
    return today - timedelta(days=days), today - timedelta(days=1)


def draw_records(
    records: Iterable[CapturedRequest],
    rule: DrawRule,
    *,
    model_names: frozenset[str],
    served_today: str = "",
    traces: Mapping[str, str] | None = None,
) -> Draw:
    """Draws records by the rule.

    Args:
        model_names: the names, in lower case, under which the log may have the incumbent.
        served_today: the model that the incumbent's provider named last; empty if unknown, and
            the newest record's name counts instead.
        traces: by record, where the log names a trace.

    Raises InputError if the records cannot give a verdict.
    """
    left_out: Counter[str] = Counter()
    dated = []
    for record in sorted(records, key=lambda record: (record.at, record.id)):
        if rule.includes(record.at):
            dated.append(record)
        else:
            left_out[OUTSIDE] += 1
    own = [record for record in dated if is_named(record.target, model_names)]
    served = _find_served([record.target for record in own], served_today, model_names)
    eligible = [record for record in own if _bare_name(record.target) == served]
    left_out[OTHER_MODEL] += len(dated) - len(eligible)
    named = find_runs(eligible, traces or {})
    _check_records(eligible, rule, left_out, has_runs=named is not None)
    callers = Counter(record.caller for record in eligible if record.caller)
    heavy = {caller for caller, count in callers.items() if count > HEAVY_SHARE * len(eligible)}
    units = _find_units(eligible, heavy, named)
    if named and len(eligible) > 1 and len({*units.values()}) == 1:
        raise InputError(
            f"all records name one {named.by.value}, so they count as one run, which says "
            "nothing about the others: log another name for each run, and draw again"
        )
    sizes: Counter[str] = Counter()
    for record in eligible:
        sizes[units[record.id]] += record.seen
    kept_ids = _draw_units(units, named, rule, left_out)
    turns = number_turns(eligible, named) if named else {}
    drawn = [
        DrawnRecord(record, units[record.id], sizes[units[record.id]], turns.get(record.id))
        for record in (order_by_run(eligible, named) if named else eligible)
        if record.id in kept_ids
    ]
    return Draw(
        rule,
        drawn,
        served,
        per_day=dict(Counter(entry.record.at.astimezone(UTC).date() for entry in drawn)),
        left_out={reason: count for reason, count in sorted(left_out.items()) if count},
        callers=len(callers),
        split_callers=len(heavy),
        unnamed=sum(not (entry.record.caller or entry.record.conversation) for entry in drawn),
        failed=sum(not has_answer(entry.record) for entry in drawn),
        runs_by=named.by if named else None,
    )


def is_named(model: str, names: frozenset[str]) -> bool:
    """Tells whether a log's model is one of the names, also with a provider or a date.

    A date follows as `-2024-08-06` or `-20250514`; any other end is another model.
    """
    lower = _bare_name(model)
    return lower in names or any(
        lower.startswith(f"{name}-") and lower[len(name) :].replace("-", "").isdigit()
        for name in names
    )


def _bare_name(model: str) -> str:
    return model.rpartition("/")[2].lower()


def _find_served(names: Sequence[str], served_today: str, aliases: frozenset[str]) -> str:
    """Returns the served model whose records count: today's; empty if no record has it.

    Args:
        names: of the incumbent's records, oldest first. A log may have only an alias, which
            names no build; the re-ask then shows whether the model has changed.
    """
    bare_names = [_bare_name(name) for name in names]
    today = _bare_name(served_today)
    if today in bare_names:
        return today
    fitting = [name for name in bare_names if not today or name in aliases]
    return fitting[-1] if fitting else ""


def _check_records(
    eligible: Sequence[CapturedRequest],
    rule: DrawRule,
    left_out: Counter[str],
    *,
    has_runs: bool,
) -> None:
    """Raises InputError for records that cannot give a verdict, with the next step."""
    if not eligible:
        reasons = "; ".join(f"{count} {reason}" for reason, count in left_out.items() if count)
        raise InputError(
            f"the log has no record of the incumbent's model from {rule.first} to "
            f"{rule.last}{f' ({reasons})' if reasons else ''}: export these days, or draw from "
            "another route"
        )
    if not any(map(has_answer, eligible)):
        raise InputError(
            "no record has an answer, so there is nothing to compare a candidate with: let the "
            "tool store answers (LiteLLM: `store_prompts_in_spend_logs: true`), and draw again"
        )
    callers = {record.caller for record in eligible}
    if len(callers) == 1 and "" not in callers and len(eligible) > 1:
        raise InputError(
            "all records are one caller's, and one caller says nothing about the others: log "
            "the end user of each request (`user`), and draw again"
        )
    # The turns of a run have the same question, and different results of functions.
    read_text = _incoming_text if has_runs else user_text
    texts = {record.id: read_text(record.content) for record in eligible[:_MOST_COMPARED]}
    alike = find_near_duplicates(texts, threshold=_ALIKE)
    if len(texts) > 1 and len(alike) == len(texts) - 1:
        raise InputError(
            "all requests are alike, so they are one item: draw from a route whose requests "
            "differ"
        )


def _incoming_text(content: Mapping[str, Any]) -> str:
    """Returns the texts of users and of functions' results."""
    messages = content.get("messages", ())
    heard = (message for message in messages if message.get("role") in ("user", "tool"))
    return "\n".join(message_text(message.get("content")) for message in heard)


def _find_units(
    records: Sequence[CapturedRequest], heavy: set[str], named: RunNames | None
) -> Mapping[str, str]:
    """Maps each record to the unit that it counts for: its caller, its conversation, or itself.
    All turns of a run count for the unit of its first turn.

    A heavy caller without conversations and runs stays one unit; else its requests would be the
    most.
    """
    units: dict[str, str] = {}
    units_by_run: dict[str, str] = {}
    for record in records:
        run = named.runs[record.id] if named else record.id
        part = record.conversation or (run if run != record.id else "")
        own = part if record.caller in heavy and part else record.caller or part or record.id
        units[record.id] = units_by_run.setdefault(run, own)
    return units


def _draw_units(
    units: Mapping[str, str], named: RunNames | None, rule: DrawRule, left_out: Counter[str]
) -> frozenset[str]:
    """Draws whole units: of each, one run or at most MOST_OF_A_CALLER records."""

    def place(name: str) -> tuple[str, str]:
        return hash_content(f"{rule.seed}:{name}"), name

    records_by_unit: dict[str, list[str]] = {}
    for id_ in sorted(units, key=place):
        records_by_unit.setdefault(units[id_], []).append(id_)
    kept: list[str] = []
    is_full = False
    for unit in sorted(records_by_unit, key=place):
        ids = records_by_unit[unit]
        chosen = _choose_of_unit(ids, named, place, left_out)
        # A later, shorter run must not take the place of a longer one.
        is_full |= rule.max_items is not None and len(kept) + len(chosen) > rule.max_items
        if is_full:
            left_out[BEYOND] += len(chosen)
            continue
        kept += chosen
    return frozenset(kept)


def _choose_of_unit(
    ids: Sequence[str],
    named: RunNames | None,
    place: Callable[[str], tuple[str, str]],
    left_out: Counter[str],
) -> Sequence[str]:
    """Chooses the records of a unit, and counts the others.

    Args:
        ids: in the order of the draw.

    A run's turns are drawn at random too, so that their mean estimates the mean of all turns.
    """
    if named is None:
        left_out[FREQUENT] += len(ids[MOST_OF_A_CALLER:])
        return ids[:MOST_OF_A_CALLER]
    run = min({named.runs[id_] for id_ in ids}, key=place)
    turns = [id_ for id_ in ids if named.runs[id_] == run]
    left_out[OTHER_RUNS] += len(ids) - len(turns)
    left_out[MORE_TURNS] += len(turns[MOST_TURNS:])
    return turns[:MOST_TURNS]


def describe_draw(draw: Draw) -> str:
    """Describes a draw in a sentence, for people."""
    rule = draw.rule
    failed = (
        f"; {draw.failed} without an answer, which both models are asked again"
        if draw.failed
        else ""
    )
    days = f"of {draw.served} from {rule.first} to {rule.last}"
    part = "conversation" if draw.runs_by is None else "conversation or run"
    split = (
        f"; each {part} of {format_quantity(draw.split_callers, 'caller')} with more than "
        f"{format_percent(HEAVY_SHARE)} of the requests counts as a caller"
        if draw.split_callers
        else ""
    )
    if draw.runs_by is not None:
        runs = format_quantity(draw.coverage.total(), "run")
        turns = format_quantity(len(draw.records), "turn")
        each = ", one of each caller" if draw.callers else "; the log names no caller"
        return f"{runs} of agents ({turns}) {days}{each}{split}{failed}"
    units = format_quantity(len({entry.unit for entry in draw.records}), "caller")
    records = format_quantity(len(draw.records), "record")
    return f"{records} {days}, of {units}{split}{failed}"
