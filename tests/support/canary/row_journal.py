"""Rows of a rollout, written by hand: when a row is about something, and when it arrives."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from harness.gate.online.exposures import (
    EventKind,
    Exposure,
    ExposureCount,
    ExposureEvent,
)
from harness.gate.online.guardrails import ExposureRule
from harness.gate.online.observation import ObservationBlock
from harness.gate.online.outcome import JudgeOutcome
from harness.gate.online.reading.block_fold import BlockFold, RolloutRows
from harness.gate.online.reading.scored_exposures import RequestTraits
from harness.gate.online.reading.seals import Seal, Watermark
from tests.support.canary.outcomes import outcome_of

START: Final = datetime(2026, 1, 1, tzinfo=UTC)
SERVED: Final = RequestTraits.SERVED.value
Row = Exposure | ExposureEvent


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


@dataclass
class Journal:
    """All rows, each with the time of its arrival in seconds, and the counts."""

    rows: list[tuple[float, Row]] = field(default_factory=list)
    counts: list[ExposureCount] = field(default_factory=list)

    def admit(
        self,
        at_s: float,
        caller: int,
        *,
        worker: str = "w-0",
        canary: bool = False,
        weight_bps: int = 5_000,
        period: int = 1,
        sample: int = 0,
        traits: int = SERVED,
        client: str = "",
        arrives_s: float | None = None,
    ) -> Exposure:
        exposure = Exposure(
            "r",
            0,
            worker,
            len(self.rows) + 1,
            period,
            caller,
            sample,
            canary,
            weight_bps,
            at(at_s),
            traits,
            client,
        )
        self.rows.append((at_s if arrives_s is None else arrives_s, exposure))
        return exposure

    def end(
        self,
        exposure: Exposure,
        at_s: float,
        *,
        failed: bool = False,
        kind: EventKind = EventKind.ENDED,
        began_s: float | None = None,
        arrives_s: float | None = None,
    ) -> None:
        """Ends the exposure's own request, or a later turn of its caller."""
        outcome = outcome_of(failed=failed)
        event = ExposureEvent(
            "r",
            0,
            exposure.worker,
            exposure.ticket,
            kind,
            at(at_s),
            at(at_s if began_s is None else began_s),
            outcome.kind,
            outcome.reason,
        )
        self.rows.append((at_s if arrives_s is None else arrives_s, event))

    def turn(
        self,
        exposure: Exposure,
        began_s: float,
        *,
        failed: bool = False,
        lasts_s: float = 1.0,
    ) -> None:
        at_s = began_s + lasts_s
        self.end(exposure, at_s, failed=failed, kind=EventKind.TURN, began_s=began_s)

    def dislike(self, exposure: Exposure, at_s: float, *, bad: bool = True) -> None:
        self._note(exposure, at_s, EventKind.FEEDBACK, bad=bad)

    def judge(self, exposure: Exposure, at_s: float, verdict: JudgeOutcome) -> None:
        self._note(exposure, at_s, EventKind.JUDGED, verdict=verdict)

    def _note(
        self,
        exposure: Exposure,
        at_s: float,
        kind: EventKind,
        *,
        bad: bool | None = None,
        verdict: JudgeOutcome | None = None,
    ) -> None:
        event = ExposureEvent(
            "r",
            0,
            exposure.worker,
            exposure.ticket,
            kind,
            at(at_s),
            at(at_s),
            bad=bad,
            verdict=verdict,
            judge_usd=0.25 if verdict is not None else None,
        )
        self.rows.append((at_s, event))

    def count(
        self,
        minute: int,
        reason: str,
        requests: int,
        *,
        canary: bool = False,
        weight_bps: int = 5_000,
    ) -> None:
        count = ExposureCount(
            "r", at(60.0 * minute), "w-0", weight_bps, canary, reason, requests
        )
        self.counts.append(count)

    def numbered(self) -> list[tuple[float, Row]]:
        """Returns the rows in the order of arrival, with their numbers."""
        arrived = sorted(self.rows, key=lambda row: row[0])
        return [
            (at_s, replace(row, number=number))
            for number, (at_s, row) in enumerate(arrived, start=1)
        ]


def rows_of(rows: Iterable[Row], counts: Sequence[ExposureCount] = ()) -> RolloutRows:
    found = list(rows)
    return RolloutRows(
        [row for row in found if isinstance(row, Exposure)],
        [row for row in found if isinstance(row, ExposureEvent)],
        counts,
    )


def read(
    journal: Journal,
    rule: ExposureRule,
    until_s: float = 100_000.0,
    *times_s: float,
) -> tuple[list[ObservationBlock], list[Seal]]:
    """Reads a journal at several times, as if every row before each time had arrived.

    Args:
        until_s, times_s: the times of the readings.
    """
    fold = BlockFold("r", rule)
    numbered = journal.numbered()
    seals: list[Seal] = []
    read_until_s = -1.0
    for time_s in (until_s, *times_s):
        arrived = [row for at_s, row in numbered if read_until_s < at_s <= time_s]
        number = sum(at_s <= time_s for at_s, _ in numbered)
        fold.add(rows_of(arrived, journal.counts))
        seals += fold.read(Watermark(number, at(time_s)))
        read_until_s = time_s
    return fold.blocks, seals
