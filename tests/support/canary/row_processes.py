"""Processes of routers that write a rollout's rows, by the product's writer and its files."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from harness.gate.online.exposures import Exposure, ExposureCount, ExposureEvent
from harness.gate.online.guardrails import ExposureRule
from harness.gate.online.outcome import ExposureOutcome, JudgeOutcome
from harness.gate.online.reading.block_fold import RolloutRows
from harness.gate.online.reading.scored_exposures import GuardrailSample
from harness.routing.table import Canary
from router.recording.exposure_lines import LineReader
from router.recording.exposure_writer import ExposureWriter
from tests.support.control.manual_clock import ManualClock


class RowProcess:
    """One process of a router, with its own files."""

    def __init__(
        self, folder: Path, worker: str, clock: ManualClock, rule: ExposureRule
    ) -> None:
        self._folder = folder / worker
        self._worker = worker
        self._rule = rule
        self._writer = ExposureWriter(self._folder, worker, clock)
        self._tickets = 0
        self._read_bytes: dict[Path, int] = {}
        self._rollouts: dict[Path, dict[int, str]] = {}

    def admit(
        self,
        key: str,
        *,
        canary: bool,
        weight_bps: int,
        traits: int,
        client: str = "",
    ) -> int:
        """Admits a request, and returns its ticket."""
        self._tickets += 1
        self._writer.admit(
            self._tickets,
            Canary("t_new", weight_bps, "salt", "r", self._rule),
            key,
            candidate=canary,
            traits=traits,
            client=client,
        )
        return self._tickets

    def finish(
        self,
        ticket: int,
        outcome: ExposureOutcome,
        sample: GuardrailSample | None = None,
    ) -> None:
        self._writer.finish(ticket, outcome, sample=sample)

    def note_feedback(self, ticket: int, *, bad: bool) -> None:
        self._writer.note_feedback(ticket, bad=bad)

    def judged(self, ticket: int, verdict: JudgeOutcome, judge_usd: float) -> None:
        self._writer.judged("r", ticket, verdict, judge_usd)

    def take_counts(self) -> Sequence[ExposureCount]:
        return self._writer.take_counts()

    def take_rows(self) -> list[Exposure | ExposureEvent]:
        """Writes the lines, and returns the rows that were not read before."""
        self._writer.write()
        found: list[Exposure | ExposureEvent] = []
        for path in sorted(self._folder.glob("*.*")):
            data = path.read_bytes()[self._read_bytes.get(path, 0) :]
            self._read_bytes[path] = self._read_bytes.get(path, 0) + len(data)
            reader = LineReader(self._worker, self._rollouts.setdefault(path, {}))
            rows = (reader.read(line, timedelta(0)) for line in data.splitlines())
            found += [row for row in rows if isinstance(row, Exposure | ExposureEvent)]
        return found


class RowStore:
    """The rows of a rollout that have arrived, with their numbers."""

    def __init__(self) -> None:
        self.number = 0
        self.exposures: list[Exposure] = []
        self.events: list[ExposureEvent] = []
        self.counts: list[ExposureCount] = []

    def flush(self, processes: Sequence[RowProcess]) -> RolloutRows:
        """Brings the rows of the processes into the store. Returns the new rows."""
        exposures = []
        events = []
        for process in processes:
            for row in process.take_rows():
                self.number += 1
                if isinstance(row, Exposure):
                    exposures.append(replace(row, number=self.number))
                else:
                    events.append(replace(row, number=self.number))
            self.counts += process.take_counts()
        self.exposures += exposures
        self.events += events
        return RolloutRows(exposures, events, tuple(self.counts))

    @property
    def rows(self) -> RolloutRows:
        return RolloutRows(tuple(self.exposures), tuple(self.events), tuple(self.counts))
