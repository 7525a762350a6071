"""Freezes and freeze windows: while one holds a route, no candidate advances. Pure."""

import datetime as dt
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from harness.frame.errors import InputError
from harness.frame.formatting import format_date_time
from harness.frame.plain_data import ShownAsJson
from harness.gate.online.rollout import RolloutSignal

LONGEST: Final = timedelta(days=365)
# Audit actions.
ADDED: Final = "freeze.add"
LIFTED: Final = "freeze.lift"
DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_WEEK: Final = timedelta(days=7)
_WEEK_TIME: Final = re.compile(rf"({'|'.join(DAYS)})\w* (\d{{1,2}}):(\d\d)", re.IGNORECASE)
STILL_WORKS: Final = "Abort, rollback and kill switch work."
_TO_USERS: Final = frozenset(
    {
        *(RolloutSignal.STEP_DONE, RolloutSignal.ADVANCE),
        *(RolloutSignal.PROVEN, RolloutSignal.PROMOTE),
    }
)
# observe_only stops these: a candidate gets no users, and a paused canary stays paused.
OBSERVED_SIGNALS: Final = _TO_USERS | {RolloutSignal.RESUME}
# A freeze stops these: it also keeps the bake of a promotion from ending.
FROZEN_SIGNALS: Final = _TO_USERS | {RolloutSignal.BAKED, RolloutSignal.FINISH}


@dataclass(frozen=True, slots=True)
class Hold:
    """Stops the candidates of routes from advancing, for a time."""

    starts_at: datetime
    ends_at: datetime
    reason: str
    source: str  # the person who set it, or the window of the configuration
    routes: frozenset[str] = frozenset()  # empty for all
    freeze: str = ""  # the freeze's id; empty for a weekly window

    def covers(self, route: str) -> bool:
        return not self.routes or route in self.routes

    @property
    def scope(self) -> str:
        """Begins a sentence with the held routes: `Routes faq and chat are`."""
        if not self.routes:
            return "All routes are"
        *others, last = sorted(self.routes)
        return f"Routes {', '.join(others)} and {last} are" if others else f"Route {last} is"

    @property
    def heading(self) -> str:
        return f"{self.scope} frozen until {format_date_time(self.ends_at)}."

    @property
    def text(self) -> str:
        why = f"{self.reason.rstrip('.')} ({self.source})."
        return f"{why} No canary opens, continues or is promoted. {STILL_WORKS}"

    def describe(self, route: str) -> str:
        until = format_date_time(self.ends_at)
        source = f"by {self.source}, {self.freeze}" if self.freeze else self.source
        return f"route {route} is frozen until {until} ({self.reason}; {source})"


def may_go_on(
    route: str, step: RolloutSignal | None, holds: Iterable[Hold], now: datetime
) -> list[Hold]:
    """Lists the holds that refuse a step, latest end first. step: None to open a canary."""
    if step is not None and step not in FROZEN_SIGNALS:
        return []
    live = [h for h in holds if h.covers(route) and h.starts_at <= now < h.ends_at]
    return sorted(live, key=lambda hold: hold.ends_at, reverse=True)


@dataclass(frozen=True, slots=True)
class Freeze:
    id: str
    route: str | None  # None for all routes
    reason: str
    actor: str
    created_at: datetime
    starts_at: datetime
    ends_at: datetime
    lifted_at: datetime | None = None  # lifted_at, lifted_by: None until a person lifts it
    lifted_by: str | None = None

    @property
    def ended_at(self) -> datetime:
        return self.ends_at if self.lifted_at is None else min(self.ends_at, self.lifted_at)

    @property
    def hold(self) -> Hold:
        routes = frozenset() if self.route is None else frozenset({self.route})
        return Hold(self.starts_at, self.ended_at, self.reason, self.actor, routes, self.id)

    def describe_state(self, now: datetime) -> str:
        if self.lifted_at is not None:
            return f"lifted by {self.lifted_by}"
        if self.ends_at <= now:
            return "over"
        return "in force" if self.starts_at <= now else "to come"


@dataclass(frozen=True, slots=True)
class WeekTime:
    weekday: int  # 0 is Monday
    time: dt.time

    def __str__(self) -> str:
        return f"{DAYS[self.weekday]} {self.time:%H:%M}"


@dataclass(frozen=True, slots=True)
class FreezeWindow(ShownAsJson):
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

    def list_holds(self, since: datetime, until: datetime) -> Iterator[Hold]:
        local = since.astimezone(self.zone).date()
        monday = local - timedelta(days=local.weekday()) - _WEEK
        lasts_days = (self.ends.weekday - self.starts.weekday) % 7
        if lasts_days == 0 and self.ends.time <= self.starts.time:
            lasts_days = 7
        while True:
            day = monday + timedelta(days=self.starts.weekday)
            # Daylight saving time can skip or repeat a time. Then the longer freeze applies.
            starts_at = min(self._moments(day, self.starts.time))
            ends_at = max(self._moments(day + timedelta(days=lasts_days), self.ends.time))
            if starts_at > until:
                return
            if ends_at > since:
                source = f"every week, {self}"
                yield Hold(starts_at, ends_at, self.reason, source, self.routes)
            monday += _WEEK

    def _moments(self, day: date, time: dt.time) -> list[datetime]:
        local = datetime.combine(day, time, self.zone)
        return [local.replace(fold=fold).astimezone(UTC) for fold in (0, 1)]


def parse_week_time(text: str) -> WeekTime:
    """Parses `Fri 16:00`. Raises InputError."""
    found = _WEEK_TIME.fullmatch(text.strip())
    if found is None or int(found[2]) > 23 or int(found[3]) > 59:
        raise InputError(
            f"{text!r} is not a time of the week: write a day and a time, `Fri 16:00`"
        )
    weekday = DAYS.index(found[1].capitalize())
    return WeekTime(weekday, dt.time(int(found[2]), int(found[3])))


def build_window(
    starts: str, ends: str, time_zone: str, reason: str, routes: Iterable[str]
) -> FreezeWindow:
    """Builds a window from the configuration's texts. Raises InputError."""
    if not reason.strip():
        raise InputError("a freeze needs a `reason`: everybody whom it stops will see it")
    first, last = parse_week_time(starts), parse_week_time(ends)
    if first == last:
        raise InputError(f"the window from {first} to {last} is empty: change one of the two")
    try:
        zone = ZoneInfo(time_zone)
    except (ValueError, OSError, KeyError):
        raise InputError(
            f"this machine does not know the time zone {time_zone!r}: write a name such as "
            "Europe/Berlin, or install the time zone data (the package tzdata)"
        ) from None
    return FreezeWindow(first, last, zone, reason.strip(), frozenset(routes))


def list_holds(
    freezes: Iterable[Freeze],
    windows: Iterable[FreezeWindow],
    since: datetime,
    until: datetime,
) -> Sequence[Hold]:
    """Lists the holds that overlap the time from `since` to `until`."""
    found = [freeze.hold for freeze in freezes]
    for window in windows:
        found += window.list_holds(since, until)
    return [hold for hold in found if hold.starts_at <= until and hold.ends_at > since]


def measure_frozen_time(holds: Iterable[Hold], since: datetime, now: datetime) -> timedelta:
    """Measures how long a route was frozen; overlapping holds count once."""
    frozen, counted_until = timedelta(0), since
    for hold in sorted(holds, key=lambda hold: hold.starts_at):
        starts, ends = max(hold.starts_at, counted_until), min(hold.ends_at, now)
        if ends > starts:
            frozen += ends - starts
            counted_until = ends
    return frozen


def describe_reach(route: str | None) -> str:
    return "all routes" if route is None else f"route {route}"
