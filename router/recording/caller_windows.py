"""Follows the later requests of callers in one rollout, and exchanges failures with the other
routers (statistics.md §2.19).

A caller's window begins with its unit, and contains its first `window_requests` requests that
arrive within `window_s`. Each router writes only failures: hash of the caller, time, arm. When
a block's windows are over, `CallerWindows` knows the failures of all routers.
"""

import logging
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from harness.frame.errors import StoreUnavailable
from harness.frame.ports import Clock
from harness.gate.online.guardrails import Guardrail, UnitRule
from harness.gate.online.late_outcomes import FailedTurn, FailedTurns
from harness.gate.online.observation import fingerprint
from harness.gate.online.outcome import ExposureOutcome, Reading, read
from router.recording.scored_units import LaterTurn, LedgerUnit

if TYPE_CHECKING:
    from harness.app.store.router_store import RouterStore

log = logging.getLogger(__name__)

# Failures that wait for the database; more are lost.
MAX_FAILED: Final = 100_000


class WindowReading(NamedTuple):
    """What a caller's window shows. counts: an outcome of the window is known."""

    failed: bool
    missing: bool = False
    counts: bool = True


class CallerWindows:
    """The windows of one rollout's callers, for one router with all its workers.

    exchanged_s: when the failures of all routers were last read, in monotonic seconds.
    cursor: number of the last read failures.
    """

    def __init__(self, rollout: str, rule: UnitRule) -> None:
        self.rollout = rollout
        self.exchanged_s = -float("inf")
        self.cursor = 0
        self._rule = rule
        self._open: dict[int, LedgerUnit] = {}  # by the key's hash, oldest first
        self._failed: list[FailedTurn] = []
        # Times of failures at all routers, by the caller's fingerprint and arm.
        self._elsewhere: dict[tuple[int, bool], list[float]] = {}

    def open(self, known: int, unit: LedgerUnit) -> None:
        """Opens the window of a new unit. known: the hash of its key."""
        if self._rule.has_windows and unit.has_window:
            self._open.pop(known, None)
            self._open[known] = unit

    def admit(
        self,
        known: int,
        *,
        canary: bool,
        now: float,
        at: float,
    ) -> LaterTurn | None:
        """Admits a later request; None if no open window counts it.

        now: monotonic seconds. at: seconds since 1970.
        """
        unit = self._open.get(known)
        if (
            unit is None
            or unit.canary is not canary
            or unit.requests >= self._rule.window_requests
            or now >= unit.arrived_s + self._rule.window_s
        ):
            return None
        unit.requests += 1
        unit.pending += 1
        return LaterTurn(unit, at)

    def finish(self, turn: LaterTurn, outcome: ExposureOutcome) -> None:
        """Ends a later request with its outcome."""
        turn.unit.pending -= 1
        self.note(turn.unit, outcome, turn.arrived_at)

    def note(
        self,
        unit: LedgerUnit,
        outcome: ExposureOutcome,
        at: float,
    ) -> None:
        """Keeps a failure. at: when the request arrived, in seconds since 1970."""
        if not (self._rule.has_windows and unit.has_window):
            return
        if read(Guardrail.CALLER_ERRORS, outcome) is not Reading.BAD:
            return
        unit.caller_failed = True
        if self._rule.keeps_ledger and len(self._failed) < MAX_FAILED:
            self._failed.append(FailedTurn(self._print(unit), at, unit.canary))

    def end(self) -> None:
        """Ends all windows: later requests count for neither arm."""
        self._open.clear()

    def forget_ended(self, now: float) -> None:
        """Forgets windows that are over, which lie in the order of their beginning."""
        for known, unit in list(self._open.items()):
            if now < unit.arrived_s + self._rule.window_s:
                return
            del self._open[known]

    @property
    def unsent(self) -> Sequence[FailedTurn]:
        """The failures that the other routers do not know yet."""
        return tuple(self._failed)

    def enter(
        self,
        found: FailedTurns,
        *,
        sent: int,
        now: float,
        oldest_at: float,
    ) -> None:
        """Enters the failures of all routers. sent: how many of `unsent` are stored.

        now: when they were read. oldest_at: earlier failures are in no window.
        """
        del self._failed[:sent]
        self.cursor = found.cursor
        self.exchanged_s = now
        for turn in found.turns:
            place = (turn.fingerprint, turn.canary)
            self._elsewhere.setdefault(place, []).append(turn.at)
        for place, times in list(self._elsewhere.items()):
            if max(times) < oldest_at:
                del self._elsewhere[place]

    def read(
        self,
        unit: LedgerUnit,
        *,
        ended_at: float,
        is_known: bool,
    ) -> WindowReading:
        """Reads a caller's window when its time is over.

        ended_at: when an event ended all windows. is_known: the other routers' failures are.
        """
        failed = unit.caller_failed
        if not failed and self._elsewhere:
            until = min(ended_at, unit.arrived_at + self._rule.window_s)
            times = self._elsewhere.get((self._print(unit), unit.canary), ())
            failed = any(unit.arrived_at <= at < until for at in times)
        if failed:
            return WindowReading(failed=True)
        if unit.lost or unit.pending or not is_known:
            return WindowReading(failed=True, missing=True)
        known = unit.reading(Guardrail.CALLER_ERRORS) is not Reading.UNKNOWN
        return WindowReading(failed=False, counts=known)

    def _print(self, unit: LedgerUnit) -> int:
        return fingerprint(self._rule.ledger_salt, unit.key)


class WindowsOfLedger(NamedTuple):
    """A rollout's windows, and when the oldest open one began, in seconds since 1970."""

    windows: CallerWindows
    oldest_at: float


class FailureExchange:
    """Writes the failures of all ledgers of a process, and reads those of the other routers.

    lock: held while a ledger is read or changed.
    """

    def __init__(
        self,
        store: "RouterStore",
        clock: Clock,
        lock: threading.Lock,
        counters: Counter[str],
    ) -> None:
        self._store = store
        self._clock = clock
        self._lock = lock
        self._counters = counters

    def exchange(self, due: Iterable[WindowsOfLedger]) -> None:
        """Exchanges failures. While the database is down, they wait.

        due: the windows that have failures to write, or that are over.
        """
        for windows, oldest_at in sorted(due, key=lambda one: one.windows.rollout):
            now = self._clock.monotonic()
            with self._lock:
                unsent = windows.unsent
                cursor = windows.cursor
            try:
                with self._store.write() as tx:
                    found = tx.observations.exchange_failures(
                        windows.rollout, unsent, after=cursor, since=oldest_at
                    )
            except StoreUnavailable:
                self._counters["claims_failed"] += 1
                return
            except Exception:
                # The windows become missing; everything else must still be recorded.
                log.exception("the store refused the failures of rollout %s", windows.rollout)
                self._counters["claims_failed"] += 1
                continue
            with self._lock:
                windows.enter(found, sent=len(unsent), now=now, oldest_at=oldest_at)
