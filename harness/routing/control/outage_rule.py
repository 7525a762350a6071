"""Decides from a route's recorded minutes whether its callers get errors or a fallback's
answers. Pure.

`outages` loads the minutes and raises the alerts. The rule reads only counts: it does not
measure quality, and it changes no route. `harness.routing.reliability` has the circuits of
single targets.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from harness.gate.online.observation import TrafficMinute
from harness.routing.table import Arm, Route

# An outage needs at least this many requests as evidence.
MIN_REQUESTS: Final = 3
# A larger share of errors in a minute counts as an outage.
TOLERATED_ERRORS: Final = 0.01
# Callers may leave for reasons of their own. They show an outage if at least MIN_CALLERS_LEFT
# left, and if these and the failed requests exceed LEFT_SHARE of all requests.
MIN_CALLERS_LEFT: Final = 5
LEFT_SHARE: Final = 0.5
# A fallback that answers a larger share of the requests serves the route.
CARRIED_SHARE: Final = 0.5
# Only minutes that began within this time show a route's present state.
RECENT: Final = timedelta(minutes=15)
# Minutes younger than this are better evidence than the targets' circuits.
FRESH: Final = timedelta(minutes=2)
# Routers report their requests every second, and long requests later. An alert ends only this
# long after its last good minute, because reports may be late.
REPORT_DELAY: Final = timedelta(seconds=10)
_MINUTE: Final = timedelta(minutes=1)


class OutageKind(StrEnum):
    """DOWN: callers get errors, or leave without an answer. ON_FALLBACK: fallbacks answer most
    requests.
    """

    DOWN = "down"
    ON_FALLBACK = "on fallback"


@dataclass(frozen=True, slots=True)
class RouteOutage:
    """A route's outage, counted from its beginning.

    no_answers: True without any request means that all targets' circuits are open.
    """

    kind: OutageKind
    since: datetime
    requests: int = 0  # this count and the following counts begin at `since`
    failed: int = 0
    carried: int = 0  # requests that fallbacks answered
    no_answers: bool = False  # callers get no answers now
    fallback: str = ""  # id of the fallback that answers most requests; empty without one
    refused: int = 0  # failed requests for which the router called no target (`TrafficMinute`)
    only_refused: bool = (
        False  # whether the router refused all failed requests of the newest minutes
    )
    unanswered: int = 0  # requests whose callers left without an answer


@dataclass(slots=True)
class _Window:
    """Counts of consecutive minutes. begin: start of its oldest minute. carried: by fallback's
    id.
    """

    begin: datetime
    requests: int = 0
    failed: int = 0
    refused: int = 0
    unanswered: int = 0
    carried: Counter[str] = field(default_factory=Counter)

    def add(self, other: "_Window") -> None:
        self.begin = min(self.begin, other.begin)
        self.requests += other.requests
        self.failed += other.failed
        self.refused += other.refused
        self.unanswered += other.unanswered
        self.carried.update(other.carried)

    @property
    def kind(self) -> OutageKind | None:
        """The kind of outage that the counts show; None without one."""
        has_enough = self.failed >= MIN_REQUESTS or self.unanswered >= MIN_CALLERS_LEFT
        if has_enough and self.shows(OutageKind.DOWN):
            return OutageKind.DOWN
        if self.carried.total() >= MIN_REQUESTS and self.shows(OutageKind.ON_FALLBACK):
            return OutageKind.ON_FALLBACK
        return None

    def shows(self, kind: OutageKind) -> bool:
        """Tells whether the shares show this outage, for any number of requests."""
        if kind is OutageKind.DOWN:
            callers_left = self.unanswered > 0 and self.lost > LEFT_SHARE * self.requests
            return callers_left or self.failed > TOLERATED_ERRORS * self.requests
        return self.carried.total() > CARRIED_SHARE * self.requests

    @property
    def lost(self) -> int:
        """The requests without an answer, because they failed or the caller left."""
        return self.failed + self.unanswered

    @property
    def is_one_sided(self) -> bool:
        """Whether all requests got no answer, or fallbacks answered all of them."""
        return self.requests in (self.lost, self.carried.total())


def find_outage(
    route: Route,
    minutes: Iterable[TrafficMinute],
    open_since: Mapping[str, datetime],
    now: datetime,
    alerted_kind: OutageKind | None = None,
    *,
    fails_in_a_row: bool = False,
) -> RouteOutage | None:
    """Finds a route's outage; None without one.

    Recent minutes decide. A route is down at once if targets failed its last MIN_REQUESTS
    requests, though earlier requests of the same minute got answers. A route is also down if
    all targets' circuits are open and its minutes are old or show failures: routers then call
    none of its targets.

    Args:
        minutes: of the last hour, in any order.
        open_since: when each target's circuit opened, by target id.
        alerted_kind: the kind of the route's open alert. Such an outage ends only after a
            complete good minute, and not while the newest minute shows it again.
        fails_in_a_row: whether targets failed the last requests (`failure_runs`).
    """
    counts = _sum_minutes(route, minutes)
    newest = counts[0] if counts and now - counts[0].begin < RECENT else None
    settled_until = now - REPORT_DELAY if alerted_kind else now
    windows = list(_join_minutes(counts, settled_until)) if newest else []
    kind = windows[0].kind if windows else None
    target_ids = route.may_answer
    if (
        kind is not OutageKind.DOWN
        and target_ids
        and all(target_id in open_since for target_id in target_ids)
    ):
        since = max(open_since[target] for target in target_ids)
        if newest is None or now - newest.begin >= FRESH:
            return RouteOutage(OutageKind.DOWN, since, no_answers=True)
        if newest.lost:
            return RouteOutage(
                OutageKind.DOWN,
                since,
                newest.requests,
                newest.failed,
                no_answers=True,
                unanswered=newest.unanswered,
            )
    if (
        alerted_kind
        and newest
        and kind not in (alerted_kind, OutageKind.DOWN)
        and newest.shows(alerted_kind)
    ):
        kind = alerted_kind
        windows = [newest]
    if fails_in_a_row and newest and newest.failed and kind is not OutageKind.DOWN:
        kind = OutageKind.DOWN
        windows = [newest]
    return _build_outage(kind, windows) if kind else None


def _build_outage(kind: OutageKind, windows: Sequence[_Window]) -> RouteOutage:
    """Sums the newest windows of one kind.

    Args:
        windows: newest first.
    """
    no_answers = windows[0].lost == windows[0].requests
    total = _Window(windows[0].begin)
    total.add(windows[0])
    for window in windows[1:]:
        if window.kind is not kind:
            break
        total.add(window)
    answers_by_fallback = windows[0].carried or total.carried
    return RouteOutage(
        kind=kind,
        since=total.begin,
        requests=total.requests,
        failed=total.failed,
        carried=total.carried.total(),
        no_answers=no_answers,
        fallback=answers_by_fallback.most_common(1)[0][0]
        if answers_by_fallback and not no_answers
        else "",
        refused=total.refused,
        only_refused=0 < windows[0].refused == windows[0].lost,
        unanswered=total.unanswered,
    )


def _sum_minutes(route: Route, minutes: Iterable[TrafficMinute]) -> Sequence[_Window]:
    """Adds up the rows of each minute, newest first.

    Requests that keep a fallback warm do not count as carried.
    """
    counts: dict[datetime, _Window] = {}
    for row in minutes:
        count = counts.setdefault(row.minute, _Window(row.minute))
        count.requests += row.requests
        count.failed += row.failed
        count.refused += row.refused
        count.unanswered += row.unanswered
        if row.target in route.fallbacks and row.arm != Arm.KEEP_WARM.value:
            carried = max(0, row.charged - row.failed)
            count.carried += Counter({row.target: carried})  # `+=` drops zeros
    return [counts[minute] for minute in sorted(counts, reverse=True)]


def _join_minutes(counts: Iterable[_Window], now: datetime) -> Iterator[_Window]:
    """Joins minutes, newest first, until a window has enough requests to judge it.

    A window of only the current minute counts only if it is one-sided, because further requests
    of the minute may follow.
    """
    window: _Window | None = None
    for count in counts:
        if window is None:
            window = _Window(count.begin)
        window.add(count)
        is_whole = window.begin + _MINUTE <= now
        if window.requests >= MIN_REQUESTS and (is_whole or window.is_one_sided):
            yield window
            window = None
