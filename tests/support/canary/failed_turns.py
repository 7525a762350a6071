"""The shared store of callers' failed requests, in memory, as all routers of a test use it."""

from datetime import datetime

from harness.gate.online.late_outcomes import FailedTurn, FailedTurns
from router.recording.ledger import Ledger


class SharedFailures:
    def __init__(self) -> None:
        self._turns: list[FailedTurn] = []

    def exchange(
        self,
        ledger: Ledger,
        now: float,
        at: datetime,
        *,
        final: bool = False,
    ) -> None:
        """Does for one ledger what `FailureExchange` does for all of a process."""
        due = ledger.due_windows(now, at, final=final)
        if due is None:
            return
        windows, oldest_at = due
        unsent = windows.unsent
        self._turns += unsent
        found = FailedTurns(len(self._turns), self._turns[windows.cursor :])
        windows.enter(found, sent=len(unsent), now=now, oldest_at=oldest_at)
