"""The state audit compares stored rows with the audit log: every row must be as its last event
left it (F1).

Every unit of work leaves, in one of its audit events, the digests of the rows that it wrote:
before and after. Who writes around us leaves none, and cannot: an event needs the
installation's secret. `RowHistory` folds the events and finds rows that disagree;
`AuditProgress` is how far a process has compared.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import groupby
from typing import Final

from harness.domain.operations.audit import AuditEvent, AuditPosition

# Of an event that says nothing but which rows were written.
ROWS_WRITTEN: Final = "rows.written"
# Of the events that take over what was there before rows were recorded.
ROWS_BASELINE: Final = "rows.baseline"
# Of the event with which an admin takes out rows that nobody signed: he was shown them.
ROWS_REMOVED: Final = "database.remove"
# Of the event with which a worker says that samples which it had stored, or found, are gone.
SAMPLES_GONE: Final = "run.samples_gone"
_TAKES_OVER: Final = frozenset({ROWS_BASELINE, ROWS_REMOVED})


# Tables whose rows hold something back, so that nothing fails where one is deleted: a freeze, a
# break-glass that is to end, two names of one person.
_WITHHOLDING: Final = ("route_freeze:", "break_glass:", "person_link:")
# The newest so many are looked for each time.
MOST_WITHHOLDING: Final = 200

# Who writes into the database's file itself commits nothing: that is found after so long.
LOOK_AGAIN_S: Final = 60.0


class Disagreement(StrEnum):
    UNRECORDED = "unrecorded"
    CHANGED = "changed"
    GONE = "gone"
    SHORT = "short"


DISAGREEMENT_TEXT: Final[Mapping[Disagreement, str]] = {
    Disagreement.UNRECORDED: "no audit event wrote it",
    Disagreement.CHANGED: "it is not as audit event {number} left it",
    Disagreement.GONE: "audit event {number} wrote it, and it is gone",
    Disagreement.SHORT: "as audit event {number} says, samples of it were deleted",
}


def fold_writes(events: Iterable[AuditEvent]) -> list[Sequence[AuditEvent]]:
    """Groups neighbouring events of one person or process that say nothing but which rows were
    written, in the order given: a table shows each group as one line.
    """

    def kind(event: AuditEvent) -> object:
        is_write = event.action == ROWS_WRITTEN
        return (event.actor, event.key, event.subject) if is_write else event.number

    return [list(group) for _, group in groupby(events, kind)]


@dataclass(frozen=True, slots=True)
class RecordedRow:
    """What the log says of a row."""

    digest: str | None  # None where it was deleted
    number: int  # of the event


@dataclass(frozen=True, slots=True)
class RowFinding:
    """Names a stored row that disagrees with the audit log, and how it does."""

    row: str  # `route_version:chat/3`
    kind: Disagreement
    number: int = 0  # of the event that it disagrees with, or 0

    @property
    def text(self) -> str:
        return f"{self.row.replace(':', ' ', 1)}: {self._why}"

    @property
    def _why(self) -> str:
        return DISAGREEMENT_TEXT[self.kind].format(number=self.number)


@dataclass(slots=True)
class RowHistory:
    """The log's last record of each row, up to `mark`; `add` takes further events."""

    mark: AuditPosition = field(default_factory=AuditPosition)
    rows: dict[str, RecordedRow] = field(default_factory=dict)
    # Rows that an event found otherwise than the one before it had left them, or without what
    # belongs to them; what it wrote then covers what somebody did in between.
    rewritten: dict[str, RowFinding] = field(default_factory=dict)
    # Of the tables whose rows hold something back, the oldest first: the last event of each,
    # without its rows. Kept here, where nobody who writes to the database changes it.
    withholding: dict[str, AuditEvent] = field(default_factory=dict)

    def add(self, events: Iterable[AuditEvent]) -> None:
        """Adds events in their order, from `mark` on."""
        for event in events:
            if event.action == SAMPLES_GONE:
                row = event.subject.replace(" ", ":", 1)
                self.rewritten[row] = RowFinding(row, Disagreement.SHORT, event.number)
            for row, (before, after) in event.rows.items():
                known = self.rows.get(row)
                expected = known.digest if known is not None else None
                if before != expected and event.action not in _TAKES_OVER:
                    number = known.number if known is not None else 0
                    kind = (
                        Disagreement.CHANGED if known is not None else Disagreement.UNRECORDED
                    )
                    self.rewritten[row] = RowFinding(row, kind, number)
                elif event.action in _TAKES_OVER:
                    self.rewritten.pop(row, None)
                self.rows[row] = RecordedRow(after, event.number)
                if row.startswith(_WITHHOLDING):
                    self.withholding[row] = replace(event, rows={})
            self.mark = AuditPosition(event.number, event.mac)

    @property
    def newest_withholding(self) -> list[str]:
        return list(self.withholding)[-MOST_WITHHOLDING:]

    def compare(self, stored: Mapping[str, str | None]) -> list[RowFinding]:
        """Returns the rows that disagree with the log. stored: digests of rows by name, None
        for a missing row.
        """
        found = []
        for row, digest in stored.items():
            finding = self.rewritten.get(row) or self._finding(row, digest)
            if finding is not None:
                found.append(finding)
        return found

    def _finding(self, row: str, digest: str | None) -> RowFinding | None:
        known = self.rows.get(row)
        if known is None or known.digest is None:
            return None if digest is None else RowFinding(row, Disagreement.UNRECORDED)
        if digest == known.digest:
            return None
        kind = Disagreement.GONE if digest is None else Disagreement.CHANGED
        return RowFinding(row, kind, known.number)


@dataclass(slots=True)
class AuditProgress:
    """How far a process has compared."""

    log: RowHistory = field(default_factory=RowHistory)
    etag: str = ""  # of what served at its last look
    stored: str = ""  # the last row looked at
    # Rows of the log still to be looked for.
    recorded: Iterator[str] = field(default_factory=lambda: iter(()))
    # Rows that disagreed when they were compared last; kept here, where nobody who writes to
    # the database ends it.
    unrecorded: set[str] = field(default_factory=set)
    trouble: str = ""  # why the log says nothing; empty where it does
    epoch: int = 0  # of the database; see `domain.routing.snapshot_lineage`
    mark: str = ""  # of the database when it was compared last; see `ports.Store.change_mark`
    # How often, under this mark, a walk through the rows came to its end.
    stored_rounds: int = 0
    recorded_rounds: int = 0
    again_at: float = 0.0  # by the monotonic clock: then all is compared once more

    def is_due(self, mark: str, now: float) -> bool:
        """Tells whether rows may disagree that were not compared yet: something was committed,
        not all was compared since, or that was LOOK_AGAIN_S ago. mark: of the database as it is
        compared now. now: in seconds, by the monotonic clock.
        """
        if mark != self.mark or now >= self.again_at:
            self.mark, self.again_at = mark, now + LOOK_AGAIN_S
            self.stored_rounds = self.recorded_rounds = 0
        return not self._went_round

    @property
    def is_done(self) -> bool:
        """Tells whether all rows were compared, and the log says of them what it should."""
        return self._went_round and not self.trouble and not self.unrecorded

    @property
    def _went_round(self) -> bool:
        # The first end is that of a round which had begun before.
        return self.stored_rounds >= 2 and self.recorded_rounds >= 2

    def begin(self, epoch: int) -> None:
        """Start from the log's first event where a restored database was accepted since."""
        if epoch != self.epoch:
            self.mark = ""
            self.log, self.etag, self.stored, self.recorded = RowHistory(), "", "", iter(())
            self.unrecorded = set()
            self.epoch = epoch

    def compare(self, stored: Mapping[str, str | None]) -> list[RowFinding]:
        """Compares as `RowHistory.compare` does, adds all rewritten rows, and remembers the
        result.
        """
        rewritten = [
            finding for row, finding in self.log.rewritten.items() if row not in stored
        ]
        found = [*self.log.compare(stored), *rewritten]
        self.unrecorded = (self.unrecorded - stored.keys()) | {finding.row for finding in found}
        return found
