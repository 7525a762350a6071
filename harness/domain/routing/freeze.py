"""Route freezes: times in which no canary of a route opens, advances or is promoted (G2).

A `Freeze` is set by a person, from one time to another. A `FreezeWindow` comes back every week
in a time zone, by the configuration's `freezes:`. `find_freeze` says which one holds a route
now, `measure_frozen_time` how long it was frozen, so that a canary's deadlines stand still.
"""

import datetime as dt
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from harness.domain.errors import InputError

LONGEST: Final = timedelta(days=365)
# Of the audit events that set and lift a freeze.
ADDED: Final = "freeze.add"
LIFTED: Final = "freeze.lift"
DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_WEEK: Final = timedelta(days=7)
_WEEK_TIME: Final = re.compile(rf"({'|'.join(DAYS)})\w* (\d{{1,2}}):(\d\d)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Freeze:
    """One freeze, as a person set it."""

    id: str
    route: str | None  # None for all routes
    reason: str
    actor: str
    created_at: datetime
    starts_at: datetime
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class FreezeRecord:
    """A freeze as it is stored."""

    freeze: Freeze
    lifted_at: datetime | None = None  # lifted_at, lifted_by: None until somebody lifts it
    lifted_by: str | None = None

    @property
    def ended_at(self) -> datetime:
        """Says when it ended, or will end unless somebody lifts it."""
        ends = self.freeze.ends_at
        return ends if self.lifted_at is None else min(ends, self.lifted_at)

    def describe_state(self, now: datetime) -> str:
        """Says whether it is to come, in force, over or lifted, and then by whom."""
        if self.lifted_at is not None:
            return f"lifted by {self.lifted_by}"
        if self.freeze.ends_at <= now:
            return "over"
        return "in force" if self.freeze.starts_at <= now else "to come"


@dataclass(frozen=True, slots=True)
class WeekTime:
    """A day of the week and a time of that day."""

    weekday: int  # from Monday, 0
    time: dt.time

    def __str__(self) -> str:
        return f"{DAYS[self.weekday]} {self.time:%H:%M}"


@dataclass(frozen=True, slots=True)
class FreezeWindow:
    """A freeze that comes back every week."""

    starts: WeekTime
    ends: WeekTime
    zone: ZoneInfo
    reason: str
    routes: frozenset[str]  # empty for all

    def __str__(self) -> str:
        return f"{self.starts} to {self.ends}, {self.zone.key}"

    def as_json(self) -> dict[str, object]:
        """Returns it in the words of the configuration."""
        return {
            "from": str(self.starts),
            "until": str(self.ends),
            "time_zone": self.zone.key,
            "reason": self.reason,
            "routes": sorted(self.routes),
        }

    def list_spans(self, since: datetime, until: datetime) -> Iterator["FreezeSpan"]:
        """Lists its occurrences that touch the time between two moments, in order."""
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
                yield FreezeSpan(starts_at, ends_at, self.reason, f"every week, {self}")
            monday += _WEEK

    def _moments(self, day: date, time: dt.time) -> list[datetime]:
        local = datetime.combine(day, time, self.zone)
        return [local.replace(fold=fold).astimezone(UTC) for fold in (0, 1)]


@dataclass(frozen=True, slots=True)
class FreezeSpan:
    """One time in which a route is frozen, and by what."""

    starts_at: datetime
    ends_at: datetime
    reason: str
    source: str  # who set it, or which window of the configuration


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


def list_freeze_spans(
    route: str,
    records: Iterable[FreezeRecord],
    windows: Iterable[FreezeWindow],
    since: datetime,
    until: datetime,
) -> Sequence[FreezeSpan]:
    """Lists the times between two moments in which a route is frozen; they may overlap."""
    found = [
        FreezeSpan(
            record.freeze.starts_at,
            record.ended_at,
            record.freeze.reason,
            f"by {record.freeze.actor}, {record.freeze.id}",
        )
        for record in records
        if record.freeze.route in (None, route)
    ]
    for window in windows:
        if not window.routes or route in window.routes:
            found += window.list_spans(since, until)
    return [span for span in found if span.starts_at <= until and span.ends_at > since]


def find_freeze(spans: Iterable[FreezeSpan], now: datetime) -> FreezeSpan | None:
    """Finds the freeze that holds a route now: of several, the one that ends last."""
    live = [span for span in spans if span.starts_at <= now < span.ends_at]
    return max(live, key=lambda span: span.ends_at, default=None)


def measure_frozen_time(
    spans: Iterable[FreezeSpan], since: datetime, now: datetime
) -> timedelta:
    """Adds up how long a route was frozen between two moments, each minute once."""
    frozen, counted_until = timedelta(0), since
    for span in sorted(spans, key=lambda span: span.starts_at):
        starts, ends = max(span.starts_at, counted_until), min(span.ends_at, now)
        if ends > starts:
            frozen += ends - starts
            counted_until = ends
    return frozen


def describe_reach(route: str | None) -> str:
    """Names what a freeze is about, as the audit log does."""
    return "all routes" if route is None else f"route {route}"
