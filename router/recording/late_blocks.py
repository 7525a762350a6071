"""Sends outcomes that become known later than their block: windows of callers, and users'
feedback (statistics.md §2.19).

A block leaves as soon as the outcomes of its first requests are known. Its late outcomes follow
in blocks of their own. The time at which these leave does not depend on any outcome but the end
of an answer, which begins the time for feedback.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from harness.gate.online.guardrails import (
    ArmSplit,
    ExposureRule,
    FailureTally,
    FeedbackTally,
    Guardrail,
    WindowTally,
)
from harness.gate.online.observation import KeyHistory, NeverSeen, ObservationBlock
from harness.gate.online.one_key import MAX_BLOCK_KEYS, count_keys
from router.recording.caller_windows import CallerWindows
from router.recording.observation_builder import counts_for
from router.recording.scored_exposures import FAULTS, LedgerExposure, OpenBlock

# Other routers write their failures every second, and clocks differ.
SPARE_S: Final = 2.0
# At the process's end, failures that were read so shortly before are those of all routers.
LAST_READ_S: Final = 10.0
_FEEDBACK: Final = FAULTS[Guardrail.FEEDBACK]


class LateReading(NamedTuple):
    """An exposure's late outcome. A missing outcome is bad, too."""

    exposure: LedgerExposure
    bad: bool
    missing: bool


class LatePart(NamedTuple):
    """The late outcomes of a block for one guardrail. of: the sent block, without late ones."""

    guardrail: Guardrail
    block: OpenBlock
    units: Sequence[LedgerExposure]
    of: ObservationBlock
    known_s: float  # when all outcomes are known, in monotonic seconds


class LateBlocks:
    """Keeps the blocks whose late outcomes are not known yet, in order."""

    def __init__(self, rule: ExposureRule, windows: CallerWindows) -> None:
        self._rule = rule
        self._windows = windows
        self._parts: dict[Guardrail, deque[LatePart]] = {
            Guardrail.CALLER_ERRORS: deque(),
            Guardrail.FEEDBACK: deque(),
        }

    def add(
        self,
        block: OpenBlock,
        exposures: Sequence[LedgerExposure],
        of: ObservationBlock,
        now: float,
    ) -> None:
        """Keeps a block that was just sent. exposures: those that count. of: the sent block."""
        if not exposures:
            return
        closed_s = now if block.closed_s is None else block.closed_s
        if of.windows_known_s:
            self._put(
                Guardrail.CALLER_ERRORS, block, exposures, of, closed_s + of.windows_known_s
            )
        if Guardrail.FEEDBACK in self._rule.guardrails:
            heard_s = max(exposure.heard_until_s for exposure in exposures)
            self._put(Guardrail.FEEDBACK, block, exposures, of, max(now, heard_s))

    def _put(
        self,
        guardrail: Guardrail,
        block: OpenBlock,
        exposures: Sequence[LedgerExposure],
        of: ObservationBlock,
        known_s: float,
    ) -> None:
        self._parts[guardrail].append(LatePart(guardrail, block, exposures, of, known_s))

    def _known_s(self, part: LatePart) -> float:
        if part.guardrail is Guardrail.FEEDBACK:
            return part.known_s
        ended_s = part.block.ended_s + self._rule.total_timeout_s
        return min(part.known_s, ended_s) + SPARE_S

    @property
    def waits(self) -> bool:
        """Whether late outcomes of a sent block are not known yet."""
        return any(self._parts.values())

    @property
    def sent_blocks(self) -> Iterable[OpenBlock]:
        """The blocks that were sent, and whose windows are open."""
        return (part.block for part in self._parts[Guardrail.CALLER_ERRORS])

    def awaits_failures(self, now: float) -> bool:
        """Tells whether windows are over, and the routers' failures are not read since."""
        parts = self._parts[Guardrail.CALLER_ERRORS]
        return bool(parts) and self._windows.exchanged_s < self._known_s(parts[0]) <= now

    def take(self, now: float, *, hears: bool, final: bool = False) -> list[ObservationBlock]:
        """Returns the late outcomes that are known, without their numbers.

        hears: users give feedback. final: at the process's end, the windows are over, and
        feedback that may still come is lost in both arms alike.
        """
        found = []
        for guardrail, parts in self._parts.items():
            while parts:
                known_s = self._known_s(parts[0])
                if not final and (now < known_s or not self._may_leave(parts[0], known_s, now)):
                    break
                part = parts.popleft()
                if guardrail is Guardrail.CALLER_ERRORS:
                    read_s = min(known_s, now - LAST_READ_S) if final else known_s
                    found.append(self._read_windows(part, read_s))
                elif hears and now >= known_s:
                    found.append(self._read_feedback(part))
        return found

    def _may_leave(self, part: LatePart, known_s: float, now: float) -> bool:
        """Tells whether the other routers' failures are known, or overdue."""
        if part.guardrail is Guardrail.FEEDBACK or not self._rule.keeps_ledger:
            return True
        return self._windows.exchanged_s >= known_s or now >= known_s + self._rule.missing_s

    def _read_windows(self, part: LatePart, read_s: float) -> ObservationBlock:
        """Reads the windows of a block. read_s: failures that were read since are complete."""
        is_known = not self._rule.keeps_ledger or self._windows.exchanged_s >= read_s
        readings = []
        for exposure in part.units:
            if exposure.has_window:
                found = self._windows.read(
                    exposure, ended_at=part.block.ended_at, is_known=is_known
                )
                if found.counts:
                    readings.append(LateReading(exposure, found.failed, found.missing))
        return build_late(part, readings)

    def _read_feedback(self, part: LatePart) -> ObservationBlock:
        readings = [
            LateReading(
                exposure, exposure.lost or bool(exposure.bad & _FEEDBACK), exposure.lost
            )
            for exposure in part.units
            if counts_for(exposure, Guardrail.FEEDBACK)
        ]
        return build_late(part, readings)


def build_late(part: LatePart, readings: Sequence[LateReading]) -> ObservationBlock:
    """Builds the block of late outcomes of a part, without its number."""
    new = None
    by_key = _by_key(part.guardrail, readings)
    if part.block.claimed:
        exposures = [
            exposure for exposure in part.units if exposure.history is KeyHistory.NEVER_SEEN
        ]
        of_new = [one for one in readings if one.exposure.history is KeyHistory.NEVER_SEEN]
        keys = _by_key(part.guardrail, of_new)
        new = NeverSeen(
            len(exposures),
            sum(exposure.canary for exposure in exposures),
            0,
            0,
            None
            if len(exposures) == len(part.units)
            else {part.guardrail: _tally(part.guardrail, of_new)},
            by_key=None if keys == by_key else keys,
        )
    of = part.of
    return ObservationBlock(
        rollout=of.rollout,
        worker=of.worker,
        sequence=0,
        weight_bps=of.weight_bps,
        units=0,
        canary_units=0,
        failures=0,
        canary_failures=0,
        missing=0,
        opened_at=of.opened_at,
        closed_at=of.closed_at,
        period=of.period,
        usual_rates=of.usual_rates,
        counts={part.guardrail: _tally(part.guardrail, readings)},
        by_key=by_key,
        never_seen=new,
        late_of=of.sequence,
        late_units=len(part.units),
        late_canary_units=sum(exposure.canary for exposure in part.units),
    )


def _tally(guardrail: Guardrail, readings: Sequence[LateReading]) -> FailureTally:
    bad = [one for one in readings if one.bad]
    missing = _split([one for one in readings if one.missing])
    counts = (*_split(readings), *_split(bad))
    if guardrail is Guardrail.FEEDBACK:
        heard = [one for one in readings if one.exposure.heard]
        return FeedbackTally(*counts, opinions=_split(heard), missing=missing)
    known = [one.exposure for one in readings if not one.missing]
    return WindowTally(
        *counts,
        missing=missing,
        requests=ArmSplit(
            sum(exposure.requests for exposure in known),
            sum(exposure.requests for exposure in known if exposure.canary),
        ),
        squares=ArmSplit(
            sum(exposure.requests**2 for exposure in known),
            sum(exposure.requests**2 for exposure in known if exposure.canary),
        ),
    )


def _by_key(
    guardrail: Guardrail, readings: Sequence[LateReading]
) -> dict[str, dict[Guardrail, FailureTally]]:
    """Counts exposures by client key. A missing outcome counts for the canary."""
    by_client: dict[str, list[LateReading]] = {}
    for one in readings:
        if one.exposure.client:
            by_client.setdefault(one.exposure.client, []).append(one)
    found: dict[str, dict[Guardrail, FailureTally]] = {}
    for client, own in by_client.items():
        bad = [one for one in own if one.bad and not (one.missing and one.exposure.canary)]
        found[client] = {guardrail: FailureTally(*_split(own), *_split(bad))}
    return count_keys(found, MAX_BLOCK_KEYS)


def _split(readings: Sequence[LateReading]) -> ArmSplit:
    return ArmSplit(len(readings), sum(one.exposure.canary for one in readings))
