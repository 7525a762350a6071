"""Holds keep candidates where they are, and their deadlines stand still (G2). Pure."""

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
# Of the audit events that set and lift a freeze.
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
# An installation that only observes gives a candidate no users, and keeps none with it.
OBSERVED_SIGNALS: Final = _TO_USERS | {RolloutSignal.RESUME}
# A freeze also keeps the watch over a promotion.
FROZEN_SIGNALS: Final = _TO_USERS | {RolloutSignal.BAKED, RolloutSignal.FINISH}


@dataclass(frozen=True, slots=True)
class Hold:
    """Keeps the candidates of routes where they are for a time."""

    starts_at: datetime
    ends_at: datetime
    reason: str
    source: str  # who set it, or which window of the configuration
    routes: frozenset[str] = frozenset()  # empty for all
    freeze: str = ""  # its id, where a person set it

    def covers(self, route: str) -> bool:
        return not self.routes or route in self.routes

    @property
    def scope(self) -> str:
        """Names what is held, as the beginning of a sentence: `Routes faq and chat are`."""
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
        return f"{why} No canary opens, goes on or is promoted. {STILL_WORKS}"

    def describe(self, route: str) -> str:
        until = format_date_time(self.ends_at)
        source = f"by {self.source}, {self.freeze}" if self.freeze else self.source
        return f"route {route} is frozen until {until} ({self.reason}; {source})"


def may_go_on(
    route: str, step: RolloutSignal | None, holds: Iterable[Hold], now: datetime
) -> list[Hold]:
    """Lists the holds that refuse a step, the last to end first. step: None for the opening."""
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
    lifted_at: datetime | None = None  # lifted_at, lifted_by: None until somebody lifts it
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
    weekday: int  # from Monday, 0
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
            # A time that a clock change skips or repeats: the freeze is the longer one.
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
            f"{text!r} is no time of the week: write a day and a time, `Fri 16:00`"
        )
    weekday = DAYS.index(found[1].capitalize())
    return WeekTime(weekday, dt.time(int(found[2]), int(found[3])))


def build_window(
    starts: str, ends: str, time_zone: str, reason: str, routes: Iterable[str]
) -> FreezeWindow:
    """Builds a window of the configuration's words. Raises InputError."""
    if not reason.strip():
        raise InputError("a freeze needs a `reason`: everybody who waits for it will see it")
    first, last = parse_week_time(starts), parse_week_time(ends)
    if first == last:
        raise InputError(f"from {first} to {last} is no part of a week: change one")
    try:
        zone = ZoneInfo(time_zone)
    except (ValueError, OSError, KeyError):
        raise InputError(
            f"{time_zone!r} is no time zone that this machine knows: write one such as "
            "Europe/Berlin, or install its time zone data (the package tzdata)"
        ) from None
    return FreezeWindow(first, last, zone, reason.strip(), frozenset(routes))


def list_holds(
    freezes: Iterable[Freeze],
    windows: Iterable[FreezeWindow],
    since: datetime,
    until: datetime,
) -> Sequence[Hold]:
    """Lists the freezes that touch the time between two moments; they may overlap."""
    found = [freeze.hold for freeze in freezes]
    for window in windows:
        found += window.list_holds(since, until)
    return [hold for hold in found if hold.starts_at <= until and hold.ends_at > since]


def measure_frozen_time(holds: Iterable[Hold], since: datetime, now: datetime) -> timedelta:
    """Adds up how long a route was frozen between two moments, each minute once."""
    frozen, counted_until = timedelta(0), since
    for hold in sorted(holds, key=lambda hold: hold.starts_at):
        starts, ends = max(hold.starts_at, counted_until), min(hold.ends_at, now)
        if ends > starts:
            frozen += ends - starts
            counted_until = ends
    return frozen


def describe_reach(route: str | None) -> str:
    return "all routes" if route is None else f"route {route}"
