"""The clock watch notices that somebody set the clock, so that nothing final rests on it."""

from datetime import datetime, timedelta
from typing import Final

JUMP_S: Final = 5.0
# How long a clock that was set is not trusted for what cannot be undone.
SETTLE_S: Final = 120.0
# How long rows of the last time that comes again may still pass for new ones: each is a
# minute's, and a silence shows after another one.
PASS_FOR_NEW: Final = timedelta(seconds=180)


class ClockWatch:
    """Compares the wall clock with the monotonic one at each `observe`, to notice jumps."""

    def __init__(self) -> None:
        self._lead: float | None = None
        self._behind_s = 0.0
        self._jumped_s: float | None = None
        self._latest: datetime | None = None
        self._new_from: datetime | None = None

    def observe(self, now: datetime, monotonic: float) -> None:
        lead = now.timestamp() - monotonic
        if self._lead is not None and abs(lead - self._lead) > JUMP_S:
            self._behind_s += lead - self._lead
            self._jumped_s = monotonic
        self._lead = lead
        self._latest = max(now, self._latest or now)
        if self._latest - now > timedelta(seconds=JUMP_S):
            self._new_from = self._latest + PASS_FOR_NEW

    def lives_again_until(self, now: datetime) -> datetime | None:
        """Says until when an old row cannot be told from a new one, after a clock was set back:
        rows bear a time that comes again. None when no time does.
        """
        return self._new_from if self._new_from is not None and now < self._new_from else None

    def unsettled(self, monotonic: float) -> bool:
        return self._jumped_s is not None and monotonic - self._jumped_s < SETTLE_S

    def steady(self, now: datetime) -> datetime:
        """What the wall clock would say had nobody set it."""
        return now - timedelta(seconds=self._behind_s)
