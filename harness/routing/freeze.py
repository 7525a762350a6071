"""Freezes: while one covers a route, no candidate advances. A switch, a weekly window of the
configuration, or `control.observe_only` freezes routes. Pure.

A freeze never stops an abort, a rollback or a kill switch. `harness.routing.control.freezes`
loads the freezes in force.
"""

import datetime as dt
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from harness.frame.errors import InputError
from harness.frame.formatting import format_date_time
from harness.frame.plain_data import ShownAsJson
from harness.gate.online.rollout import RolloutSignal
from harness.providers.force import SwitchRecord

DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_WEEK: Final = timedelta(days=7)
_WEEK_TIME: Final = re.compile(rf"({'|'.join(DAYS)})\w* (\d{{1,2}}):(\d\d)", re.IGNORECASE)
# The end of a freeze without an end.
NEVER: Final = datetime.max.replace(tzinfo=UTC)
# A freeze stops these signals. BAKED and FINISH are among them, so the bake of a promotion does
# not end during a freeze.
FROZEN_SIGNALS: Final = frozenset(
    {
        RolloutSignal.STEP_DONE,
        RolloutSignal.ADVANCE,
        RolloutSignal.BAKED,
        RolloutSignal.PROVEN,
        RolloutSignal.PROMOTE,
        RolloutSignal.FINISH,
    }
)


@dataclass(frozen=True, slots=True)
class Freeze:
    """A freeze of a switch, of a weekly window, or of `control.observe_only`."""

    switch: str  # the switch's id; empty for a freeze of the configuration
    route: str | None  # None for all routes
    reason: str
    source: str  # the person who set it, or the window or setting
    starts_at: datetime
    ends_at: datetime

    def covers(self, route: str | None) -> bool:
        """Tells whether the freeze applies to the route.

        Args:
            route: None asks for any route.
        """
        return route is None or self.route in (None, route)

    @property
    def heading(self) -> str:
        """A sentence with the frozen routes and the end of the freeze."""
        scope = "All routes are" if self.route is None else f"Route {self.route} is"
        return f"{scope} frozen{self._until}."

    @property
    def text(self) -> str:
        reason = f"{self.reason.rstrip('.')} ({self.source})."
        return (
            f"{reason} No canary opens, continues or is promoted. Abort, rollback and "
            "kill switch work."
        )

    def describe(self, route: str) -> str:
        """Describes the freeze within a sentence, for an error about one route."""
        source = f"by {self.source}, {self.switch}" if self.switch else self.source
        return f"route {route} is frozen{self._until} ({self.reason.rstrip('.')}; {source})"

    @property
    def _until(self) -> str:
        return "" if self.ends_at == NEVER else f" until {format_date_time(self.ends_at)}"


def build_freeze(stored: SwitchRecord) -> Freeze:
    """Builds a switch's freeze. A freeze that a person lifted ends at that time."""
    switch = stored.switch
    ends_at = min(stored.lifted_at or NEVER, switch.expires_at or NEVER)
    starts_at = switch.starts_at or switch.created_at
    return Freeze(
        switch.id,
        switch.route,
        switch.reason,
        switch.actor,
        starts_at,
        ends_at,
    )


def build_standing_freeze(
    reason: str,
    source: str,
    now: datetime,
) -> Freeze:
    """Builds a freeze of all routes without an end."""
    return Freeze("", None, reason, source, now, NEVER)


@dataclass(frozen=True, slots=True)
class WeekTime:
    """A time of the week, in a window's own time zone."""

    weekday: int  # 0 is Monday
    time: dt.time

    def __str__(self) -> str:
        return f"{DAYS[self.weekday]} {self.time:%H:%M}"


@dataclass(frozen=True, slots=True)
class FreezeWindow(ShownAsJson):
    """A weekly window. It may cross the end of the week."""

    starts: WeekTime
    ends: WeekTime
    zone: ZoneInfo
    reason: str
    routes: frozenset[str]  # empty for all

    def __str__(self) -> str:
        return f"{self.starts} to {self.ends}, {self.zone.key}"

    def as_json(self) -> dict[str, object]:
        return {
            "from": str(self.starts),
            "until": str(self.ends),
            "time_zone": self.zone.key,
            "reason": self.reason,
            "routes": sorted(self.routes),
        }

    def list_freezes(self, since: datetime, until: datetime) -> Iterator[Freeze]:
        """Lists the window's freezes that overlap the time from `since` to `until`."""
        local_date = since.astimezone(self.zone).date()
        monday = local_date - timedelta(days=local_date.weekday()) - _WEEK
        length_days = (self.ends.weekday - self.starts.weekday) % 7
        if length_days == 0 and self.ends.time <= self.starts.time:
            length_days = 7
        while True:
            day = monday + timedelta(days=self.starts.weekday)
            # Daylight saving time can skip or repeat a time. Then the longer freeze applies.
            starts_at = min(self._possible_moments(day, self.starts.time))
            ends_at = max(
                self._possible_moments(day + timedelta(days=length_days), self.ends.time)
            )
            if starts_at > until:
                return
            if ends_at > since:
                source = f"every week, {self}"
                for route in tuple(sorted(self.routes)) or (None,):
                    yield Freeze("", route, self.reason, source, starts_at, ends_at)
            monday += _WEEK

    def _possible_moments(self, day: date, time: dt.time) -> list[datetime]:
        local = datetime.combine(day, time, self.zone)
        return [local.replace(fold=fold).astimezone(UTC) for fold in (0, 1)]


def parse_week_time(text: str) -> WeekTime:
    """Parses `Fri 16:00`. Raises InputError."""
    match = _WEEK_TIME.fullmatch(text.strip())
    if match is None or int(match[2]) > 23 or int(match[3]) > 59:
        raise InputError(
            f"{text!r} is not a time of the week: write a day and a time, `Fri 16:00`"
        )
    weekday = DAYS.index(match[1].capitalize())
    return WeekTime(weekday, dt.time(int(match[2]), int(match[3])))


def build_window(
    starts: str,
    ends: str,
    time_zone: str,
    reason: str,
    routes: Iterable[str],
) -> FreezeWindow:
    """Builds a window from the configuration's texts. Raises InputError."""
    if not reason.strip():
        raise InputError("a freeze needs a `reason`: everybody whom it stops will see it")
    start = parse_week_time(starts)
    end = parse_week_time(ends)
    if start == end:
        raise InputError(f"the window from {start} to {end} is empty: change one of the two")
    try:
        zone = ZoneInfo(time_zone)
    except (ValueError, OSError, KeyError):
        raise InputError(
            f"this machine does not know the time zone {time_zone!r}: write a name such as "
            "Europe/Berlin, or install the time zone data (the package tzdata)"
        ) from None
    return FreezeWindow(start, end, zone, reason.strip(), frozenset(routes))


def measure_frozen_time(
    freezes: Iterable[Freeze],
    since: datetime,
    now: datetime,
) -> timedelta:
    """Measures how long a route was frozen; overlapping freezes count once."""
    frozen = timedelta(0)
    counted_until = since
    for freeze in sorted(freezes, key=lambda freeze: freeze.starts_at):
        starts = max(freeze.starts_at, counted_until)
        ends = min(freeze.ends_at, now)
        if ends > starts:
            frozen += ends - starts
            counted_until = ends
    return frozen
