"""Decides from a route's recorded minutes whether its callers get errors or a fallback's
answers. Pure.

`outages` loads the minutes and raises the alerts. The rule reads counts only: it knows no
model's quality, and changes no route. Circuits of single targets are in
`harness.routing.reliability`.
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
FEW_REQUESTS: Final = 3
# A larger share of errors in a minute counts as an outage.
TOLERATED_ERRORS: Final = 0.01
# Callers may leave for reasons of their own. They count as an outage if they are at least this
# many, and with those who got errors more than this share.
FEW_LEFT: Final = 5
LEFT_SHARE: Final = 0.5
# A fallback that answers a larger share of the requests serves the route.
CARRIED_SHARE: Final = 0.5
# Only minutes that began within this time show a route's present state.
RECENT: Final = timedelta(minutes=15)
# Minutes of this age are better evidence than the targets' circuits.
FRESH: Final = timedelta(minutes=2)
# Routers report their requests every second, and long requests later. Before an alert ends, its
# last good minute waits this long for late reports.
REPORTED_AFTER: Final = timedelta(seconds=10)
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

    no_answers: with no recorded request, all targets' circuits are open.
    """

    kind: OutageKind
    since: datetime
    requests: int = 0  # requests, failed, carried: since `since`
    failed: int = 0
    carried: int = 0  # requests that fallbacks answered
    no_answers: bool = False  # callers get no answers now
    fallback: str = ""  # id of the fallback that answers most requests; empty without one
    refused: int = 0  # failed requests for which the router called no target (`TrafficMinute`)
    only_refused: bool = False  # all of them now: no target has failed
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
        has_lost = self.failed >= FEW_REQUESTS or self.unanswered >= FEW_LEFT
        if has_lost and self.shows(OutageKind.DOWN):
            return OutageKind.DOWN
        if self.carried.total() >= FEW_REQUESTS and self.shows(OutageKind.ON_FALLBACK):
            return OutageKind.ON_FALLBACK
        return None

    def shows(self, kind: OutageKind) -> bool:
        """Tells whether the shares show this outage, however few the requests are."""
        if kind is OutageKind.DOWN:
            many_left = self.unanswered > 0 and self.lost > LEFT_SHARE * self.requests
            return many_left or self.failed > TOLERATED_ERRORS * self.requests
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
    shut: Mapping[str, datetime],
    now: datetime,
    known: OutageKind | None = None,
) -> RouteOutage | None:
    """Finds a route's outage; None without one.

    Recent minutes decide. If all targets' circuits are open, and the minutes are old or show
    failures, the route is down, because routers then call none of its targets.

    minutes: of the last hour, in any order.
    shut: when each target's circuit opened, by target id.
    known: the kind of the route's open alert. Such an outage ends only by a good minute that is
    reported completely, and not while the newest minute, whole or not, shows it again.
    """
    tallies = _tally(route, minutes)
    newest = tallies[0] if tallies and now - tallies[0].begin < RECENT else None
    reported = now - REPORTED_AFTER if known else now
    windows = list(_windows(tallies, reported)) if newest else []
    kind = windows[0].kind if windows else None
    answering = route.may_answer
    if kind is not OutageKind.DOWN and answering and all(t in shut for t in answering):
        since = max(shut[target] for target in answering)
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
    if known and newest and kind not in (known, OutageKind.DOWN) and newest.shows(known):
        kind = known
        windows = [newest]
    return _describe(kind, windows) if kind else None


def _describe(kind: OutageKind, windows: Sequence[_Window]) -> RouteOutage:
    """Sums the newest windows of one kind. windows: newest first."""
    no_answers = windows[0].lost == windows[0].requests
    whole = _Window(windows[0].begin)
    whole.add(windows[0])
    for window in windows[1:]:
        if window.kind is not kind:
            break
        whole.add(window)
    carriers = windows[0].carried or whole.carried
    return RouteOutage(
        kind=kind,
        since=whole.begin,
        requests=whole.requests,
        failed=whole.failed,
        carried=whole.carried.total(),
        no_answers=no_answers,
        fallback=carriers.most_common(1)[0][0] if carriers and not no_answers else "",
        refused=whole.refused,
        only_refused=0 < windows[0].refused == windows[0].lost,
        unanswered=whole.unanswered,
    )


def _tally(route: Route, minutes: Iterable[TrafficMinute]) -> Sequence[_Window]:
    """Adds up the rows of each minute, newest first.

    Requests that keep a fallback warm do not count as carried.
    """
    tallies: dict[datetime, _Window] = {}
    for row in minutes:
        tally = tallies.setdefault(row.minute, _Window(row.minute))
        tally.requests += row.requests
        tally.failed += row.failed
        tally.refused += row.refused
        tally.unanswered += row.unanswered
        if row.target in route.fallbacks and row.arm != Arm.KEEP_WARM.value:
            carried = max(0, row.charged - row.failed)
            tally.carried += Counter({row.target: carried})  # `+=` drops zeros
    return [tallies[at] for at in sorted(tallies, reverse=True)]


def _windows(tallies: Iterable[_Window], now: datetime) -> Iterator[_Window]:
    """Joins minutes, newest first, until a window has enough requests to judge it.

    A window of only the current minute counts if it is one-sided; its other requests are to
    come.
    """
    window: _Window | None = None
    for tally in tallies:
        if window is None:
            window = _Window(tally.begin)
        window.add(tally)
        is_whole = window.begin + _MINUTE <= now
        if window.requests >= FEW_REQUESTS and (is_whole or window.is_one_sided):
            yield window
            window = None
