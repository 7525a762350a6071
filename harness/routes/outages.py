"""Finds routes whose callers get errors or a fallback's answers in their recorded minutes, and
raises alerts.

`find_outage` is pure; `load_outages` reads minutes, alerts and scores for it. An outage is only
reported: routers fail over and open circuits by themselves (`harness.routing.reliability`), and
`harness.canary` ends a canary that harms.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cache, partial
from typing import Final

from harness.frame.alerts import alerts
from harness.frame.alerts.alert import AlertEvent, AlertKind
from harness.frame.alerts.alert_record import AlertRecord, Notified
from harness.frame.alerts.alerts import AlertNotice
from harness.frame.alerts.records import Alerts
from harness.frame.errors import NotFound, SignatureInvalid
from harness.frame.formatting import format_percent, format_quantity, format_score
from harness.frame.records.transaction import Transaction
from harness.gate.online.observation import TrafficMinute
from harness.providers.target import MeasuredScore, Target
from harness.registry.targets import describe_price, find_price
from harness.routes import routes
from harness.routes.scorecard import load_target_scores
from harness.routing.context import Context
from harness.routing.records.observations import Observations
from harness.routing.records.preload import Preload
from harness.routing.records.routes import Routing
from harness.routing.table import Arm, Route

# An outage needs at least this many requests as evidence.
FEW_REQUESTS: Final = 3
# A larger share of errors in a minute counts as an outage.
TOLERATED_ERRORS: Final = 0.01
# A fallback that answers a larger share of the requests serves the route.
CARRIED_SHARE: Final = 0.5
# Only minutes that began within this time show a route's present state.
RECENT: Final = timedelta(minutes=15)
# Minutes of this age are better evidence than the targets' circuits.
FRESH: Final = timedelta(minutes=2)
_MINUTE: Final = timedelta(minutes=1)


class OutageKind(StrEnum):
    """DOWN: callers get errors. ON_FALLBACK: fallbacks answer most requests."""

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


@dataclass(slots=True)
class _Window:
    """Counts of consecutive minutes. begin: start of its oldest minute. carried: by fallback's
    id.
    """

    begin: datetime
    requests: int = 0
    failed: int = 0
    carried: Counter[str] = field(default_factory=Counter)

    def add(self, other: "_Window") -> None:
        self.begin = min(self.begin, other.begin)
        self.requests += other.requests
        self.failed += other.failed
        self.carried.update(other.carried)

    @property
    def kind(self) -> OutageKind | None:
        """The kind of outage that the counts show; None without one."""
        enough = self.failed >= FEW_REQUESTS
        if enough and self.failed > TOLERATED_ERRORS * self.requests:
            return OutageKind.DOWN
        carried = self.carried.total()
        if carried >= FEW_REQUESTS and carried > CARRIED_SHARE * self.requests:
            return OutageKind.ON_FALLBACK
        return None

    @property
    def is_one_sided(self) -> bool:
        """Whether all requests failed, or fallbacks answered all of them."""
        return self.requests in (self.failed, self.carried.total())


def find_outage(
    route: Route, minutes: Iterable[TrafficMinute], shut: Mapping[str, datetime], now: datetime
) -> RouteOutage | None:
    """Finds a route's outage; None without one. Pure.

    Recent minutes decide. If all targets' circuits are open and minutes are old or show
    failures, the route is down, because routers then call none of its targets.

    minutes: of the last hour, in any order. shut: when each target's circuit opened, by target
    id.
    """
    tallies = _tally(route, minutes)
    newest = tallies[0] if tallies and now - tallies[0].begin < RECENT else None
    windows = list(_windows(tallies, now)) if newest else []
    kind = windows[0].kind if windows else None
    answering = route.may_answer
    if kind is not OutageKind.DOWN and answering and all(t in shut for t in answering):
        since = max(shut[target] for target in answering)
        if newest is None or now - newest.begin >= FRESH:
            return RouteOutage(OutageKind.DOWN, since, no_answers=True)
        if newest.failed:
            requests, failed = newest.requests, newest.failed
            return RouteOutage(OutageKind.DOWN, since, requests, failed, no_answers=True)
    return _describe(kind, windows) if kind else None


def _describe(kind: OutageKind, windows: Sequence[_Window]) -> RouteOutage:
    """Sums the newest windows of one kind. windows: newest first."""
    no_answers = windows[0].failed == windows[0].requests
    whole = _Window(windows[0].begin)
    for window in windows:
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


HOUR: Final = timedelta(hours=1)
ALERTS: Final[Mapping[OutageKind, AlertKind]] = {
    OutageKind.DOWN: AlertKind.ROUTE_DOWN,
    OutageKind.ON_FALLBACK: AlertKind.ON_FALLBACK,
}
# While such an alert is open, routers do not call the target, or the provider's targets.
_TARGETS_SHUT: Final = frozenset({AlertKind.BREAKER_OPEN, AlertKind.MODEL_UNKNOWN})
_PROVIDERS_SHUT: Final = frozenset({AlertKind.OUR_KEY, AlertKind.QUOTA})
_NO_KEY: Final = "none"
_Scores = Callable[[str], Sequence[MeasuredScore]]  # a target's scores, by its id


@dataclass(frozen=True, slots=True)
class OutageView:
    """A route's outage, with texts for people."""

    outage: RouteOutage
    own: Target  # the route's incumbent
    fallback: Target | None = None  # the fallback that answers now
    difference: str = ""  # its price and quality compared with the incumbent's

    @property
    def kind(self) -> OutageKind:
        return self.outage.kind

    @property
    def state_text(self) -> str:
        """Names the state in a few words, for a table."""
        if self.fallback is not None and self.kind is OutageKind.ON_FALLBACK:
            return f"on fallback {self.fallback.name}"
        return "down" if self.outage.no_answers else "callers get errors"

    @property
    def reason(self) -> str:
        """Describes the outage in sentences, with counts and the fallback's difference."""
        outage, since = self.outage, f"Since {self.outage.since:%Y-%m-%d %H:%M} UTC"
        if not outage.requests:
            return f"{since} the routers call none of its targets."
        requests = format_quantity(outage.requests, "request")
        if self.kind is OutageKind.ON_FALLBACK:
            fallbacks = f"fallbacks answered {outage.carried:,} of {requests}"
            text = f"{since} {fallbacks} in place of {self.own.name}."
            return f"{text} {self.difference}".strip()
        share = format_percent(outage.failed / outage.requests, significant=2)
        text = f"{since} {outage.failed:,} of {requests} failed ({share})"
        if outage.no_answers:
            return f"{text}: no target of the route answers."
        carried = f" {self.fallback.name} answers in its place." if self.fallback else ""
        return f"{text}.{carried} {self.difference}".strip()


@dataclass(frozen=True, slots=True)
class _Shut:
    """When targets and providers were shut, from open alerts: by target id, by
    provider's name.
    """

    targets: Mapping[str, datetime]
    providers: Mapping[str, datetime]

    @classmethod
    def from_alerts(cls, open_: Iterable[AlertRecord]) -> "_Shut":
        """Reads the routers' open alerts. An alert about a named key does not shut a
        provider.
        """
        targets, providers = {}, {}
        for record in open_:
            about, *part = record.key.split(":")[1:] or [""]
            if record.kind in _TARGETS_SHUT:
                targets[about] = record.first_seen
            elif record.kind in _PROVIDERS_SHUT and part in ([], [_NO_KEY]):
                providers[about] = record.first_seen
        return cls(targets, providers)

    def among(self, targets: Iterable[Target]) -> Mapping[str, datetime]:
        """Maps the shut ones among targets to the time when each was shut."""
        found = {t.id: self.targets.get(t.id, self.providers.get(t.provider)) for t in targets}
        return {id_: since for id_, since in found.items() if since is not None}


def load_outages(
    ctx: Context, names: Collection[str] | None = None
) -> Mapping[str, OutageView]:
    """Loads the outages of all routes or the named ones, without forged routes."""
    now = ctx.clock.now()
    found = {}
    with ctx.store.read() as tx:
        open_ = [record for record in Alerts(tx).unsettled() if record.open]
        shut = _Shut.from_alerts(open_)
        begun = {rec.key: rec.first_seen for rec in open_}
        suspects = set(Observations(tx).failing_routes(since=now - RECENT))
        if shut.targets or shut.providers:
            suspects |= set(Routing(tx).names())
        if names is not None:
            suspects &= set(names)
        Preload(tx).routes(suspects)
        minutes = Observations(tx).traffic_of(suspects, since=now - HOUR)
        scores = cache(partial(load_target_scores, tx))
        for name in sorted(suspects):
            with suppress(SignatureInvalid, NotFound):
                route = routes.require_route(tx, name)
                targets = {id_: Routing(tx).target(id_) for id_ in route.targets}
                known = {id_: target for id_, target in targets.items() if target}
                closed = shut.among(known.values())
                outage = find_outage(route, minutes.get(name, ()), closed, now)
                if outage is not None:
                    outage = _begin_at_alert(
                        outage, begun.get(f"{ALERTS[outage.kind].value}:{name}"), now
                    )
                    found[name] = _view(tx, route, known, outage, scores)
    return found


def update_outage_alerts(ctx: Context) -> None:
    """Opens, updates and resolves the alerts of all routes' outages.

    A route that changes from one kind of outage to the other keeps one conversation with people
    (`_hand_over`).
    """
    notices = {
        (ALERTS[view.kind], name): AlertNotice(f"route {name}", _title(name, view), view.reason)
        for name, view in load_outages(ctx).items()
    }
    for kind, name in alerts.list_open(ctx, *ALERTS.values()) - notices.keys():
        for successor in ALERTS.values():
            if notice := notices.get((successor, name)):
                _hand_over(ctx, name, kind, successor, notice)
    alerts.update_alerts(ctx, frozenset(ALERTS.values()), notices)


def _hand_over(
    ctx: Context, route: str, ended: AlertKind, successor: AlertKind, notice: AlertNotice
) -> None:
    """Ends an alert and raises its successor, in one message to each sink."""
    with ctx.store.write() as tx:
        record = Alerts(tx).newest(f"{ended.value}:{route}")
        if record is None or not record.open:
            return
        changed = replace(notice, title=f"{record.title}; now: {notice.title}")
        alerts.raise_alert(tx, ended, route, **asdict(changed), news=AlertEvent.STILL)
        alerts.resolve_alert(tx, ended, route)
        alerts.raise_alert(tx, successor, route, **asdict(notice))
        opened = Alerts(tx).newest(f"{successor.value}:{route}")
        was_sent = record.notified is Notified.RAISED
        if ctx.sinks is None or opened is None or successor is AlertKind.ROUTE_DOWN:
            return
        if was_sent and opened.notified is not Notified.RAISED:
            takes = ctx.sinks.takes
            sinks = [s for s in ctx.sinks.names() if takes(s, successor) > takes(s, ended)]
            alerts.queue_message(tx, opened, Notified.RAISED, sinks)


def _title(name: str, view: OutageView) -> str:
    if view.kind is OutageKind.ON_FALLBACK and view.fallback is not None:
        return f"{view.fallback.name} answers for {view.own.name} on route {name}"
    if view.outage.no_answers:
        return f"route {name} is down: no target answers"
    return f"callers of route {name} get errors"


def _begin_at_alert(
    outage: RouteOutage, first_seen: datetime | None, now: datetime
) -> RouteOutage:
    """Returns the outage with its alert's beginning if it reaches back to the start of the
    loaded hour, because it may then be older.
    """
    if first_seen is None or outage.since > now - HOUR + FRESH:
        return outage
    return replace(outage, since=min(first_seen, outage.since))


def _view(
    tx: Transaction,
    route: Route,
    targets: Mapping[str, Target],
    outage: RouteOutage,
    scores: _Scores,
) -> OutageView:
    """Builds the view of an outage. targets: of the route, by id."""
    own, fallback = targets[route.incumbent], targets.get(outage.fallback)
    difference = ""
    if fallback is not None:
        price = _price_difference(tx, own, fallback)
        differences = (price, *_score_differences(scores, route, own, fallback))
        difference = f"{'; '.join(differences)}."
    return OutageView(outage, own, fallback, difference)


def _price_difference(tx: Transaction, own: Target, fallback: Target) -> str:
    ours, theirs = (describe_price(find_price(tx, target)) for target in (own, fallback))
    if ours == theirs:
        return f"Its price is the same: {theirs}"
    return f"It costs {theirs}, {own.name} {ours}"


def _score_differences(
    scores: _Scores, route: Route, own: Target, fallback: Target
) -> Iterator[str]:
    """Yields the scores of both models on each suite that measured both."""
    ours, theirs = (
        {measured.suite: measured.score for measured in scores(target.id)}
        for target in (own, fallback)
    )
    suites = [suite.suite for suite in route.settings.suites]
    both = [suite for suite in suites if suite in ours and suite in theirs]
    for suite in both:
        here, there = format_score(theirs[suite]), format_score(ours[suite])
        yield f"on {suite} it scores {here}, {own.name} {there}"
    if not both:
        yield "no suite of the route has scores of both"
