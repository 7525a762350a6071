"""Writes one process's exposures and their events to its file. No request waits for the disk.

The lines wait in memory for at most WRITE_EVERY_S, and the file keeps them if the process is
killed. `exposure_flusher` brings the files of a router's processes into the database. If the
disk accepts no lines, the writer admits no further caller and counts those that it could not.
"""

import fcntl
import itertools
import os
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Final

from harness.frame.ports import Clock
from harness.gate.online.exposures import (
    KEPT,
    LOST,
    THINNED,
    EventKind,
    ExposureCount,
    hash_caller,
    kept_bps,
)
from harness.gate.online.outcome import ExposureOutcome, JudgeOutcome
from harness.gate.online.reading.scored_exposures import GuardrailSample
from harness.gate.online.rollout import FIRST_CALLERS
from harness.gate.online.uncounted import UncountedReason
from harness.routing.table import Canary
from router.frame.limits import BoundedMap
from router.recording.exposure_lines import (
    LineTag,
    count_microseconds,
    list_feedback,
    list_judgement,
    list_values,
    write_line,
)

WRITE_EVERY_S: Final = 0.05
# An idle process says this often that it has written everything.
TIME_EVERY_S: Final = 1.0
# The most callers of one rollout and period that a process remembers.
MAX_CALLERS: Final = 200_000
# The most exposures that may get feedback or a judgement after their end.
MAX_ANSWERED: Final = 20_000
# The flusher deletes whole files only, so a process begins a new one at this size.
MAX_FILE_BYTES: Final = 4 * 1024 * 1024
# The most bytes of all files of a process: two days of a database that does not answer.
MAX_BYTES: Final = 64 * 1024 * 1024
MAX_UNWRITTEN_BYTES: Final = 1024 * 1024
# The most requests whose end a process waits for. The ends of the oldest ones beyond it are not
# known: the caller of a flag may never tell an outcome.
MAX_OPEN: Final = 200_000


class _Caller:
    """A caller that this process has admitted in this period."""

    __slots__ = ("began_s", "requests", "ticket")

    def __init__(self, ticket: int, began_s: float) -> None:
        self.ticket = ticket
        self.began_s = began_s  # monotonic
        self.requests = 1


class _Rollout:
    """What this process knows of one rollout: its callers by the hash of their sticky keys."""

    __slots__ = ("callers", "number", "period")

    def __init__(self, number: int) -> None:
        self.number = number
        self.period = 0
        self.callers: dict[int, _Caller] = {}


class _OpenRequest:
    """A request whose end becomes an event of an exposure."""

    __slots__ = ("began_us", "kind", "rollout", "salt", "ticket")

    def __init__(
        self,
        rollout: int,
        ticket: int,
        kind: EventKind,
        began_us: int,
        salt: str,
    ) -> None:
        self.rollout = rollout
        self.ticket = ticket
        self.kind = kind
        self.began_us = began_us
        self.salt = salt  # of the rollout


class ExposureFile:
    """The files of one process, one after another. Each is locked while the process writes it,
    so that the flusher knows when it is complete.
    """

    def __init__(self, folder: Path, worker: str) -> None:
        self._folder = folder
        self._worker = worker
        self._part = 0
        self._descriptor = -1
        self._size = 0

    @property
    def is_open(self) -> bool:
        return self._descriptor >= 0

    @property
    def is_full(self) -> bool:
        """Tells whether the process has to begin a new file."""
        return self._size >= MAX_FILE_BYTES

    def count_bytes(self) -> int:
        """Counts the bytes that are not in the database yet."""
        sizes = 0
        for path in self._folder.glob(f"{self._worker}.*"):
            with suppress(FileNotFoundError):  # the flusher has just deleted it
                sizes += path.stat().st_size
        return sizes

    def open(self) -> None:
        """Begins the next file. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._part += 1
        path = self._folder / f"{self._worker}.{self._part:06}"
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._descriptor = descriptor
        self._size = 0

    def append(self, data: bytes) -> int:
        """Returns how many bytes were written. Raises OSError."""
        written = os.write(self._descriptor, data)
        self._size += written
        return written

    def close(self) -> None:
        if self.is_open:
            os.close(self._descriptor)
            self._descriptor = -1


class ExposureWriter:
    """Notes a process's exposures and their events, and writes them when `write` is called.

    folder: of the files of all processes of an installation on this machine.
    worker: the process's name, which is new for every process.
    """

    def __init__(
        self,
        folder: Path,
        worker: str,
        clock: Clock,
    ) -> None:
        self._file = ExposureFile(folder, worker)
        self._worker = worker
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: Counter[_CountKey] = Counter()
        self._rollouts: dict[str, _Rollout] = {}
        self._numbers = itertools.count()
        self._open: BoundedMap[int, _OpenRequest] = BoundedMap(MAX_OPEN)
        # The rollout's number by the exposure's ticket.
        self._exposures: BoundedMap[int, int] = BoundedMap(MAX_ANSWERED)
        self._lines: list[str] = []
        self._dropped = 0  # lines that neither the disk nor the memory could hold
        self._unwritten = b""
        self._ends_in_line = False  # the file ends with a part of a line
        self._is_stuck = False
        self._time_at_s = 0.0

    def admit(
        self,
        ticket: int,
        canary: Canary,
        key: str,
        *,
        candidate: bool,
        traits: int,
        client: str,
    ) -> None:
        """Notes an assigned request: a caller's first one of a period, or a later one.

        Args:
            ticket: the number of the request in this process.
            candidate: the request goes to the candidate.
        """
        rule = canary.unit_rule
        if not rule.keeps_ledger:
            return  # without a salt, a fingerprint would betray the caller
        at = self._clock.now()
        now_s = self._clock.monotonic()
        with self._lock:
            rollout = self._find_rollout(canary.rollout)
            period = rule.find_period(at)
            if period != rollout.period:
                rollout.period = period
                rollout.callers.clear()
            known = rollout.callers.get(hash(key))
            if known is not None:
                known.requests += 1
                is_counted = known.requests <= rule.window_requests
                if traits and is_counted and now_s - known.began_s <= rule.window_s:
                    began_us = count_microseconds(at)
                    turn = _OpenRequest(
                        rollout.number, known.ticket, EventKind.TURN, began_us, rule.ledger_salt
                    )
                    self._open.put(ticket, turn)
                return
            caller, sample = hash_caller(rule.ledger_salt, key)
            reason = KEPT
            if sample >= kept_bps(canary.candidate_bps, canary=candidate):
                reason = THINNED
            elif len(rollout.callers) >= MAX_CALLERS:
                reason = UncountedReason.MAX_KEYS
            elif self._is_stuck:
                reason = LOST
            if reason is KEPT:
                at_us = count_microseconds(at)
                rollout.callers[hash(key)] = _Caller(ticket, now_s)
                first = _OpenRequest(
                    rollout.number, ticket, EventKind.ENDED, at_us, rule.ledger_salt
                )
                self._open.put(ticket, first)
                self._exposures.put(ticket, rollout.number)
                self._lines.append(
                    write_line(
                        LineTag.EXPOSURE,
                        rollout.number,
                        ticket,
                        period,
                        caller,
                        sample,
                        int(candidate),
                        canary.candidate_bps,
                        at_us,
                        traits,
                        client,
                    )
                )
            self._count(canary, reason, candidate=candidate)

    def note_uncounted(self, canary: Canary, reason: str, *, candidate: bool) -> None:
        """Counts a request of a rollout that becomes no exposure.

        Args:
            reason: see `ExposureCount`.
        """
        with self._lock:
            self._count(canary, reason, candidate=candidate)

    def take_counts(self) -> Sequence[ExposureCount]:
        """Returns the counts since the last call."""
        with self._lock:
            counts = self._counts
            self._counts = Counter()
        return [
            ExposureCount(
                rollout, minute, self._worker, weight_bps, candidate, reason, requests
            )
            for (rollout, minute, weight_bps, candidate, reason), requests in counts.items()
        ]

    def take_dropped(self) -> int:
        """Returns how many lines were lost since the last call."""
        dropped = self._dropped
        self._dropped = 0
        return dropped

    def finish(
        self,
        ticket: int,
        outcome: ExposureOutcome,
        served: str = "",
        sample: GuardrailSample | None = None,
    ) -> None:
        """Notes the end of an admitted request.

        Args:
            served: the model that the answer names.
        """
        with self._lock:
            request = self._open.pop(ticket)
            if request is not None:
                if sample is not None:
                    sample = sample.hide_texts(request.salt)
                values = list_values(outcome, served, sample)
                self._note_event(
                    request.rollout, request.ticket, request.kind, values, request.began_us
                )

    def note_feedback(self, ticket: int, *, bad: bool) -> None:
        """Notes feedback about the answer to an exposure."""
        with self._lock:
            number = self._exposures.get(ticket)
            if number is not None:
                self._note_event(number, ticket, EventKind.FEEDBACK, list_feedback(bad=bad))

    def judged(
        self,
        rollout: str,
        ticket: int,
        verdict: JudgeOutcome,
        judge_usd: float,
    ) -> None:
        """Notes a judgement, and what it cost.

        Args:
            ticket: 0 if only the cost counts.
        """
        with self._lock:
            known = self._rollouts.get(rollout)
            if known is not None:
                is_exposure = self._exposures.get(ticket) is not None
                values = list_judgement(verdict, judge_usd)
                self._note_event(
                    known.number, ticket if is_exposure else 0, EventKind.JUDGED, values
                )

    def write(self) -> None:
        """Writes the lines that wait. Raises nothing: without a disk they wait.

        The process calls it every WRITE_EVERY_S, from one thread.
        """
        now_s = self._clock.monotonic()
        is_time_due = now_s - self._time_at_s >= TIME_EVERY_S
        if self._is_stuck and is_time_due:
            # Without the lock: requests wait for it, and this waits for the disk.
            self._is_stuck = self._file.count_bytes() >= MAX_BYTES
        with self._lock:
            if self._rollouts and is_time_due:
                self._time_at_s = now_s
                at_us = count_microseconds(self._clock.now())
                self._lines.append(write_line(LineTag.TIME, at_us))
            lines = self._lines
            self._lines = []
            is_idle = not (self._rollouts or self._open)
        if len(self._unwritten) > 2 * MAX_UNWRITTEN_BYTES:
            self._dropped += len(lines)
        elif lines:
            self._unwritten += "".join(lines).encode()
        if self._unwritten:
            self._write_bytes()
        elif is_idle:
            self._file.close()

    @property
    def has_work(self) -> bool:
        """Tells whether `write` has anything to do."""
        return bool(self._lines or self._unwritten or self._rollouts or self._file.is_open)

    def forget_ended(self, live_rollouts: frozenset[str]) -> None:
        """Forgets the callers of rollouts that have ended."""
        with self._lock:
            for rollout in list(self._rollouts):
                if rollout.removesuffix(FIRST_CALLERS) not in live_rollouts:
                    del self._rollouts[rollout]

    def close(self) -> None:
        """Writes the rest, and ends the file."""
        self.write()
        self._file.close()

    def _find_rollout(self, rollout: str) -> _Rollout:
        known = self._rollouts.get(rollout)
        if known is None:
            known = self._rollouts[rollout] = _Rollout(next(self._numbers))
            self._lines.append(write_line(LineTag.ROLLOUT, known.number, rollout))
        return known

    def _count(self, canary: Canary, reason: str, *, candidate: bool) -> None:
        minute = self._clock.now().replace(second=0, microsecond=0)
        key = (canary.rollout, minute, canary.candidate_bps, candidate, reason)
        self._counts[key] += 1

    def _note_event(
        self,
        rollout: int,
        ticket: int,
        kind: EventKind,
        values: Sequence[object],
        began_us: int | None = None,
    ) -> None:
        at_us = count_microseconds(self._clock.now())
        began_us = at_us if began_us is None else began_us
        self._lines.append(
            write_line(LineTag.EVENT, rollout, ticket, kind.value, at_us, began_us, *values)
        )

    def _write_bytes(self) -> None:
        try:
            if self._file.is_full and not self._ends_in_line:
                self._file.close()
            if not self._file.is_open:
                self._begin_file()
            written = self._file.append(self._unwritten)
        except OSError:
            self._is_stuck = len(self._unwritten) > MAX_UNWRITTEN_BYTES
            return
        self._ends_in_line = self._unwritten[written - 1 : written] != b"\n"
        self._unwritten = self._unwritten[written:]

    def _begin_file(self) -> None:
        """Begins a file, which names all rollouts again. Raises OSError."""
        self._is_stuck = self._file.count_bytes() >= MAX_BYTES
        self._file.open()
        with self._lock:
            names = [
                write_line(LineTag.ROLLOUT, known.number, rollout)
                for rollout, known in self._rollouts.items()
            ]
        self._unwritten = "".join(names).encode() + self._unwritten


# Rollout, minute, weight_bps, whether the arm is the candidate's, reason.
_CountKey = tuple[str, datetime, int, bool, str]
