"""`World` is what alerts and idempotent requests need of a process: its store and its clock."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from harness.frame.ports import AlertSinks, Chance, Clock

if TYPE_CHECKING:
    from harness.store.store import Store

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
        """The wall clock's time without the steps by which it was set."""
        return now - timedelta(seconds=self._behind_s)


@dataclass(frozen=True)
class World:
    """Holds a process's store, clock and chance, and where its alerts go."""

    store: "Store"
    clock: Clock
    chance: Chance
    sinks: AlertSinks | None = field(default=None, kw_only=True)  # None where alerts go nowhere
    # Where people reach the dashboard; alerts link to its pages.
    dashboard_url: str = field(default="", kw_only=True)
    clock_watch: ClockWatch = field(default_factory=ClockWatch, kw_only=True)
