"""Follows the later requests of a rollout's callers, and exchanges failures with other routers.

A caller's window begins with its exposure, and contains its first `window_requests` requests
that arrive within `window_s`. A router writes only failures: hash of the caller, time, arm.
After the end of a block's windows, `CallerWindows` knows the failures of all routers. Source:
statistics.md §2.19.
"""

import logging
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from harness.frame.errors import StoreUnavailable
from harness.frame.ports import Clock
from harness.gate.online.guardrails import ExposureRule, Guardrail
from harness.gate.online.late_outcomes import FailedTurn, FailedTurns
from harness.gate.online.observation import fingerprint
from harness.gate.online.outcome import ExposureOutcome, Reading, read
from harness.gate.online.reading.scored_exposures import LaterTurn, LedgerExposure
from router.frame.caller_database import CallerDatabase

log = logging.getLogger(__name__)

# The most failures that wait for the database; further failures are lost.
MAX_FAILED: Final = 100_000


class WindowReading(NamedTuple):
    """The outcome of a caller's window. counts: an outcome of the window is known."""

    failed: bool
    missing: bool = False
    counts: bool = True


class CallerWindows:
    """The windows of one rollout's callers, for one router with all its workers.

    exchanged_s: the time of the last exchange of failures, in monotonic seconds.
    cursor: the number of the last failure that this router has read.
    """

    def __init__(self, rollout: str, rule: ExposureRule) -> None:
        self.rollout = rollout
        self.exchanged_s = -float("inf")
        self.cursor = 0
        self._rule = rule
        self._open: dict[int, LedgerExposure] = {}  # by the key's hash, oldest first
        self._unsent_failures: list[FailedTurn] = []
        # Times of failures at all routers, by the caller's fingerprint and arm.
        self._failure_times: dict[tuple[int, bool], list[float]] = {}

    def open(self, key_hash: int, exposure: LedgerExposure) -> None:
        """Opens the window of a new exposure.

        Args:
            key_hash: the hash of its key.
        """
        if self._rule.has_windows and exposure.has_window:
            self._open.pop(key_hash, None)
            self._open[key_hash] = exposure

    def admit(
        self,
        key_hash: int,
        *,
        canary: bool,
        now: float,
        at: float,
    ) -> LaterTurn | None:
        """Admits a later request; None if no open window counts it.

        Args:
            now: monotonic seconds.
            at: seconds since 1970.
        """
        exposure = self._open.get(key_hash)
        if (
            exposure is None
            or exposure.canary is not canary
            or exposure.requests >= self._rule.window_requests
            or now >= exposure.arrived_s + self._rule.window_s
        ):
            return None
        exposure.requests += 1
        exposure.pending += 1
        return LaterTurn(exposure, at)

    def finish(self, turn: LaterTurn, outcome: ExposureOutcome) -> None:
        """Ends a later request with its outcome."""
        turn.exposure.pending -= 1
        self.note(turn.exposure, outcome, turn.arrived_at)

    def note(
        self,
        exposure: LedgerExposure,
        outcome: ExposureOutcome,
        at: float,
    ) -> None:
        """Keeps a failure.

        Args:
            at: the request's arrival, in seconds since 1970.
        """
        if not (self._rule.has_windows and exposure.has_window):
            return
        if read(Guardrail.CALLER_ERRORS, outcome) is not Reading.BAD:
            return
        exposure.caller_failed = True
        if self._rule.keeps_ledger and len(self._unsent_failures) < MAX_FAILED:
            self._unsent_failures.append(
                FailedTurn(self._fingerprint(exposure), at, exposure.canary)
            )

    def end(self) -> None:
        """Ends all windows: later requests count for neither arm."""
        self._open.clear()

    def forget_ended(self, now: float) -> None:
        """Forgets windows that have ended. They are in the order of their beginning."""
        for key_hash, exposure in list(self._open.items()):
            if now < exposure.arrived_s + self._rule.window_s:
                return
            del self._open[key_hash]

    @property
    def unsent(self) -> Sequence[FailedTurn]:
        """The failures that the other routers do not know yet."""
        return tuple(self._unsent_failures)

    def enter(
        self,
        failures: FailedTurns,
        *,
        sent: int,
        now: float,
        oldest_at: float,
    ) -> None:
        """Enters the failures of all routers.

        Args:
            sent: the number of `unsent` failures that the database has stored.
            now: the time of the exchange.
            oldest_at: earlier failures are in no window.
        """
        del self._unsent_failures[:sent]
        self.cursor = failures.cursor
        self.exchanged_s = now
        for turn in failures.turns:
            caller_and_arm = (turn.fingerprint, turn.canary)
            self._failure_times.setdefault(caller_and_arm, []).append(turn.at)
        for caller_and_arm, times in list(self._failure_times.items()):
            if max(times) < oldest_at:
                del self._failure_times[caller_and_arm]

    def read(
        self,
        exposure: LedgerExposure,
        *,
        ended_at: float,
        is_known: bool,
    ) -> WindowReading:
        """Reads a caller's window after its end.

        Args:
            ended_at: the time of an event that ended all windows.
            is_known: this router knows the other routers' failures.
        """
        has_failed = exposure.caller_failed
        if not has_failed and self._failure_times:
            ends_at = min(ended_at, exposure.arrived_at + self._rule.window_s)
            times = self._failure_times.get((self._fingerprint(exposure), exposure.canary), ())
            has_failed = any(exposure.arrived_at <= at < ends_at for at in times)
        if has_failed:
            return WindowReading(failed=True)
        if exposure.lost or exposure.pending or not is_known:
            return WindowReading(failed=True, missing=True)
        is_outcome_known = exposure.reading(Guardrail.CALLER_ERRORS) is not Reading.UNKNOWN
        return WindowReading(failed=False, counts=is_outcome_known)

    def _fingerprint(self, exposure: LedgerExposure) -> int:
        return fingerprint(self._rule.ledger_salt, exposure.key)


class WindowsOfLedger(NamedTuple):
    """A rollout's windows. oldest_at: the beginning of the oldest, in seconds since 1970."""

    windows: CallerWindows
    oldest_at: float


class FailureExchange:
    """Writes the failures of a process's ledgers, and reads the other routers' failures.

    lock: guards the ledgers.
    """

    def __init__(
        self,
        store: CallerDatabase,
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

        Args:
            due: the windows that have failures to write, or that have ended.
        """
        for windows, oldest_at in sorted(
            due, key=lambda ledger_windows: ledger_windows.windows.rollout
        ):
            now = self._clock.monotonic()
            with self._lock:
                unsent = windows.unsent
                cursor = windows.cursor
            try:
                with self._store.write() as tx:
                    failures = tx.observations.exchange_failures(
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
                windows.enter(failures, sent=len(unsent), now=now, oldest_at=oldest_at)
