"""Reads what became known about a block's exposures: outcomes, windows and feedback.

Each function reads one stream of a block. `find_…_due` tells when its facts are known. Only
events up to then count, so a later reading gives the same result. Pure.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Final, NamedTuple

from harness.frame.formatting import add_seconds
from harness.gate.online.exposures import Exposure, canary_share
from harness.gate.online.guardrails import ArmSplit, ExposureRule, Guardrail
from harness.gate.online.observation import KeyHistory, ObservationBlock
from harness.gate.online.outcome import LATE, ExposureOutcome, Reading, read
from harness.gate.online.reading.caller_order import CallerOrder, FormedBlock
from harness.gate.online.reading.event_index import (
    EventIndex,
    read_outcome,
    read_sample,
    read_verdict,
)
from harness.gate.online.reading.late_outcome_blocks import LateReading
from harness.gate.online.reading.minute_counts import find_counted_end
from harness.gate.online.reading.observation_builder import counts_for
from harness.gate.online.reading.scored_exposures import (
    FAULTS,
    LedgerExposure,
    OpenBlock,
    RequestTraits,
)

# A closed block waits this long for its judge's verdicts. Later verdicts do not count.
JUDGED_WITHIN_S: Final = 180.0
# Windows are read this long after their end: routers write every second, and clocks differ.
SPARE_S: Final = 2.0
_FEEDBACK: Final = FAULTS[Guardrail.FEEDBACK]


class Due(NamedTuple):
    """The time at which a block's stream is read, at the latest.

    has_arrived: all facts of the stream arrived before `at`.
    """

    at: datetime
    has_arrived: bool = False

    def is_over(self, complete_until: datetime) -> bool:
        return self.has_arrived or self.at < complete_until


@dataclass(frozen=True, slots=True)
class ReadBlock:
    """A block whose first outcomes were read.

    scored: the exposures with their outcomes, those of `formed` first.
    row: the block as the gate reads it.
    """

    formed: FormedBlock
    open_block: OpenBlock
    scored: Sequence[LedgerExposure]
    row: ObservationBlock

    def iter_exposures(self) -> Iterator[tuple[Exposure, LedgerExposure]]:
        """Yields the exposures that were in time, as they were admitted and as they ended."""
        return zip(self.formed.exposures, self.scored, strict=False)


def find_outcomes_due(block: FormedBlock, events: EventIndex, rule: ExposureRule) -> Due:
    """Finds when the outcomes and verdicts of a block's first requests are known."""
    ends_by = add_seconds(block.ends_at, rule.missing_s)
    judged_by = add_seconds(block.ends_at, min(JUDGED_WITHIN_S, rule.missing_s))
    counted_at = find_counted_end(block)
    ends = [events.find_end(exposure, ends_by) for exposure in block.exposures]
    ended_at = [event.at for event in ends if event is not None]
    if len(ended_at) < len(ends):
        return Due(max(ends_by, counted_at))
    at = max(counted_at, *ended_at)
    verdicts = [
        events.find_verdict(exposure, judged_by)
        for exposure in block.exposures
        if exposure.traits & RequestTraits.JUDGED
    ]
    judged_at = [event.at for event in verdicts if event is not None]
    if len(judged_at) < len(verdicts):
        return Due(max(at, judged_by))
    return Due(max([at, *judged_at]), has_arrived=not block.ends_step)


def score_block(
    block: FormedBlock,
    order: CallerOrder,
    events: EventIndex,
    rule: ExposureRule,
    lost: ArmSplit,
) -> OpenBlock:
    """Returns the block with the outcomes of its exposures.

    The late exposures and the lost ones have an outcome that no guardrail reads.

    Args:
        lost: exposures without a row; both arms, canary.
    """
    period, weight_bps = block.part
    opened_at = block.first.admitted_at
    scored = OpenBlock(weight_bps, opened_at.timestamp(), opened_at, period)
    scored.closed_s = block.ends_at.timestamp()
    scored.closed_at = block.ends_at
    scored.claimed = True
    scored.share = canary_share(weight_bps)
    scored.new_share = canary_share(weight_bps, block.fewest_bps)
    for exposure in block.exposures:
        is_seen = order.has_earlier_period(exposure) or exposure.sample >= block.fewest_bps
        unit = _score(exposure, scored, events, rule)
        unit.history = KeyHistory.RETURNED if is_seen else KeyHistory.NEVER_SEEN
        scored.units.append(unit)
    arms = [exposure.canary for exposure in block.late]
    arms += [True] * lost.canary + [False] * (lost.failures - lost.canary)
    scored.units += [_score_late(scored, canary=canary) for canary in arms]
    return scored


def _score(
    exposure: Exposure,
    block: OpenBlock,
    events: EventIndex,
    rule: ExposureRule,
) -> LedgerExposure:
    admitted_s = exposure.admitted_at.timestamp()
    scored = LedgerExposure(
        block,
        key=exposure.caller,
        canary=exposure.canary,
        traits=exposure.traits,
        client=exposure.client,
        arrived_s=admitted_s,
        arrived_at=admitted_s,
    )
    ended = events.find_end(exposure, add_seconds(block.closed_at, rule.missing_s))
    if ended is not None:
        scored.outcome = read_outcome(ended)
        scored.served = ended.served
        scored.heard_until_s = ended.at.timestamp() + rule.missing_s
        if (sample := read_sample(ended)) is not None:
            scored.values = sample.values
            scored.bad = sample.bad
            scored.text = sample.text
            scored.text_length = sample.text_length
            scored.question = sample.question
    if scored.judging:
        judged_by = add_seconds(block.closed_at, min(JUDGED_WITHIN_S, rule.missing_s))
        scored.judge(read_verdict(events.find_verdict(exposure, judged_by)))
    return scored


def _score_late(block: OpenBlock, *, canary: bool) -> LedgerExposure:
    """Returns an exposure that only counts as left out.

    Without traits it has no window. Its caller may have a row elsewhere, so it is not new.
    """
    scored = LedgerExposure(block, key=0, canary=canary, traits=0)
    scored.outcome = LATE
    scored.history = KeyHistory.RETURNED
    return scored


def find_windows_due(block: ReadBlock, order: CallerOrder, rule: ExposureRule) -> Due:
    """Finds when the windows of a block's callers are known. A next step ends them early."""
    known_at = add_seconds(block.formed.ends_at, block.row.windows_known_s)
    step = order.find_step(block.formed.first)
    if step is not None:
        known_at = min(known_at, add_seconds(step.admitted_at, rule.total_timeout_s))
    return Due(add_seconds(known_at, SPARE_S))


def read_windows(
    block: ReadBlock,
    order: CallerOrder,
    events: EventIndex,
    rule: ExposureRule,
) -> list[LateReading]:
    """Reads whether any of each caller's first requests in its window failed."""
    by = find_windows_due(block, order, rule).at
    step = order.find_step(block.formed.first)
    readings = []
    for exposure, scored in block.iter_exposures():
        if not scored.has_window:
            continue
        ends_at = add_seconds(exposure.admitted_at, rule.window_s)
        if order.is_behind(exposure):
            ends_at = exposure.admitted_at
        elif step is not None:
            ends_at = min(ends_at, step.admitted_at)
        turns = [
            turn
            for turn in _list_turns(exposure, order, events, by)
            if exposure.admitted_at <= turn.began_at < ends_at
        ]
        turns = sorted(turns, key=attrgetter("began_at", "worker", "at"))
        reading = _read_window(scored, turns[: rule.window_requests - 1])
        if reading is not None:
            readings.append(reading)
    return readings


class _Turn(NamedTuple):
    """A later request of a caller. outcome: None if it is not known."""

    began_at: datetime
    worker: str
    at: datetime
    outcome: ExposureOutcome | None


def _list_turns(
    exposure: Exposure,
    order: CallerOrder,
    events: EventIndex,
    by: datetime,
) -> Iterator[_Turn]:
    """Yields the later requests of the exposure's caller in the same arm, at all processes.

    The caller's exposure at another process is a later request, too.
    """
    for own in order.list_of_caller(exposure):
        if own.canary is not exposure.canary:
            continue
        if own is not exposure:
            outcome = read_outcome(events.find_end(own, by))
            yield _Turn(own.admitted_at, own.worker, own.admitted_at, outcome)
        for event in events.list_turns(own):
            if event.at <= by:
                yield _Turn(event.began_at, own.worker, event.at, read_outcome(event))


def _read_window(scored: LedgerExposure, turns: Sequence[_Turn]) -> LateReading | None:
    """Reads a caller's window; None if the window tells nothing."""
    scored.requests = 1 + len(turns)
    outcomes = [scored.outcome, *(turn.outcome for turn in turns)]
    readings = [
        None if outcome is None else read(Guardrail.CALLER_ERRORS, outcome)
        for outcome in outcomes
    ]
    if Reading.BAD in readings:
        return LateReading(scored, bad=True, missing=False)
    if None in readings:
        return LateReading(scored, bad=True, missing=True)
    if readings[0] is Reading.UNKNOWN:
        return None
    return LateReading(scored, bad=False, missing=False)


def find_feedback_due(block: ReadBlock) -> Due:
    """Finds when it is too late for feedback about any answer of the block."""
    heard_until = [
        datetime.fromtimestamp(scored.heard_until_s, block.formed.ends_at.tzinfo)
        for _, scored in block.iter_exposures()
        if not scored.lost
    ]
    return Due(max([block.formed.ends_at, *heard_until]))


def read_feedback(block: ReadBlock, events: EventIndex) -> list[LateReading]:
    """Reads the users' opinions about a block's answers."""
    for exposure, scored in block.iter_exposures():
        for event in events.list_feedback(exposure):
            scored.note_feedback(bad=bool(event.bad), now=event.at.timestamp())
    return [
        LateReading(scored, scored.lost or bool(scored.bad & _FEEDBACK), scored.lost)
        for scored in block.scored
        if counts_for(scored, Guardrail.FEEDBACK)
    ]
