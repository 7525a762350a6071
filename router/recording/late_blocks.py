"""Sends late outcomes, which become known after their block: callers' windows, users' feedback.

The ledger sends a block when the outcomes of its first requests are known. The late outcomes
follow in later blocks. The time of a later block does not depend on an outcome. Only the end of
an answer matters, because it begins the time for feedback. Source: statistics.md §2.19.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

from harness.gate.online.guardrails import ExposureRule, Guardrail
from harness.gate.online.observation import ObservationBlock
from harness.gate.online.reading.late_outcome_blocks import LatePart, LateReading, build_late
from harness.gate.online.reading.observation_builder import counts_for
from harness.gate.online.reading.scored_exposures import FAULTS, LedgerExposure, OpenBlock
from router.recording.caller_windows import CallerWindows

# Other routers write their failures every second, and clocks differ.
SPARE_S: Final = 2.0
# At the process's end, an exchange of failures within this time counts as complete.
LAST_READ_S: Final = 10.0
_FEEDBACK: Final = FAULTS[Guardrail.FEEDBACK]


class LateBlocks:
    """Keeps the sent blocks in order until their late outcomes are known."""

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
        """Keeps a sent block.

        Args:
            exposures: the exposures that count.
            of: the block as sent.
        """
        if not exposures:
            return
        closed_s = now if block.closed_s is None else block.closed_s
        if of.windows_known_s:
            self._put(
                Guardrail.CALLER_ERRORS, block, exposures, of, closed_s + of.windows_known_s
            )
        if Guardrail.FEEDBACK in self._rule.guardrails:
            feedback_end_s = max(exposure.heard_until_s for exposure in exposures)
            self._put(Guardrail.FEEDBACK, block, exposures, of, max(now, feedback_end_s))

    def _put(
        self,
        guardrail: Guardrail,
        block: OpenBlock,
        exposures: Sequence[LedgerExposure],
        of: ObservationBlock,
        known_s: float,
    ) -> None:
        self._parts[guardrail].append(LatePart(guardrail, block, exposures, of, known_s))

    def _find_known_s(self, part: LatePart) -> float:
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
        """The sent blocks with open windows."""
        return (part.block for part in self._parts[Guardrail.CALLER_ERRORS])

    def awaits_failures(self, now: float) -> bool:
        """Returns whether windows have ended since the last exchange of failures."""
        parts = self._parts[Guardrail.CALLER_ERRORS]
        return bool(parts) and self._windows.exchanged_s < self._find_known_s(parts[0]) <= now

    def take(self, now: float, *, hears: bool, final: bool = False) -> list[ObservationBlock]:
        """Returns the blocks of known late outcomes, without their numbers.

        Args:
            hears: users give feedback.
            final: at the process's end, the windows end, and later feedback is lost in both
                arms alike.
        """
        blocks = []
        for guardrail, parts in self._parts.items():
            while parts:
                known_s = self._find_known_s(parts[0])
                if not final and (now < known_s or not self._may_send(parts[0], known_s, now)):
                    break
                part = parts.popleft()
                if guardrail is Guardrail.CALLER_ERRORS:
                    read_s = min(known_s, now - LAST_READ_S) if final else known_s
                    blocks.append(self._read_windows(part, read_s))
                elif hears and now >= known_s:
                    blocks.append(self._read_feedback(part))
        return blocks

    def _may_send(self, part: LatePart, known_s: float, now: float) -> bool:
        """Returns whether the other routers' failures are known, or overdue."""
        if part.guardrail is Guardrail.FEEDBACK or not self._rule.keeps_ledger:
            return True
        return self._windows.exchanged_s >= known_s or now >= known_s + self._rule.missing_s

    def _read_windows(self, part: LatePart, read_s: float) -> ObservationBlock:
        """Reads the windows of a block.

        Args:
            read_s: an exchange since then is complete.
        """
        is_known = not self._rule.keeps_ledger or self._windows.exchanged_s >= read_s
        readings = []
        for exposure in part.units:
            if exposure.has_window:
                window_reading = self._windows.read(
                    exposure, ended_at=part.block.ended_at, is_known=is_known
                )
                if window_reading.counts:
                    readings.append(
                        LateReading(exposure, window_reading.failed, window_reading.missing)
                    )
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
