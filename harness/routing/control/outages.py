"""Finds routes whose callers get errors or a fallback's answers in their recorded minutes, and
raises alerts.

`load_outages` reads minutes, alerts and scores; `outage_rule` decides. This module only reports
an outage: routers fail over and open circuits by themselves (`harness.routing.reliability`),
and `harness.canary` ends a harmful canary.
"""

from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from functools import cache, partial
from typing import Final

from harness.frame.alerts import alerts
from harness.frame.alerts.alert import AlertEvent, AlertKind
from harness.frame.alerts.alert_record import AlertRecord, Notified
from harness.frame.alerts.alerts import AlertNotice
from harness.frame.alerts.records import Alerts
from harness.frame.errors import NotFound, SignatureInvalid
from harness.frame.formatting import (
    format_percent,
    format_quantity,
    format_score,
)
from harness.frame.records.transaction import Transaction
from harness.providers.force import KillSwitch, active_switches, decide_plan
from harness.providers.records import Providers, Targets
from harness.providers.target import MeasuredScore, Target
from harness.providers.target_price import describe_missing, list_unpriced, read_price
from harness.routing.context import RoutingContext
from harness.routing.control import routes
from harness.routing.control.failure_runs import FailureRun, follow_run
from harness.routing.control.outage_rule import (
    FRESH,
    RECENT,
    OutageKind,
    RouteOutage,
    find_outage,
)
from harness.routing.plan import order_targets
from harness.routing.records.account_loads import AccountLoads
from harness.routing.records.interventions import Switches
from harness.routing.records.observations import Observations
from harness.routing.records.preload import Preload
from harness.routing.records.routes import Routing
from harness.routing.reports.scorecard import load_target_scores
from harness.routing.table import Route

LOADED_FOR: Final = timedelta(hours=1)
ALERTS: Final[Mapping[OutageKind, AlertKind]] = {
    OutageKind.DOWN: AlertKind.ROUTE_DOWN,
    OutageKind.ON_FALLBACK: AlertKind.ON_FALLBACK,
}
_OUTAGES: Final = {alert: kind for kind, alert in ALERTS.items()}
# While such an alert is open, routers do not call the target, or the provider's targets, or the
# provider does not answer the control plane's checks.
_TARGET_ALERTS: Final = frozenset({AlertKind.BREAKER_OPEN, AlertKind.MODEL_UNKNOWN})
_PROVIDER_ALERTS: Final = frozenset(
    {AlertKind.OUR_KEY, AlertKind.QUOTA, AlertKind.PROVIDER_DOWN}
)
_NO_KEY: Final = "none"
_Scores = Callable[[str], Sequence[MeasuredScore]]  # a target's scores, by its id


@dataclass(frozen=True, slots=True)
class OutageView:
    """A route's outage, with texts for people."""

    outage: RouteOutage
    own: Target  # the route's incumbent
    fallback: Target | None = None  # the fallback that answers now
    difference: str = ""  # its price and quality compared with the incumbent's
    switch: str = ""  # the kill switch that changes the route's plan; empty without one
    tests: str = ""  # sentences about evals that use up the callers' rate limit; empty for none
    # The route's providers that do not answer the control plane's checks.
    silent_providers: tuple[str, ...] = ()

    @property
    def kind(self) -> OutageKind:
        return self.outage.kind

    @property
    def state_text(self) -> str:
        """The state in a few words, for a table."""
        if self.fallback is not None and self.kind is OutageKind.ON_FALLBACK:
            return f"on fallback {self.fallback.name}"
        if self.outage.only_refused:
            return "refuses requests"
        if self.outage.no_answers:
            return "down"
        return "callers get errors" if self.outage.failed else "callers leave unanswered"

    @property
    def reason(self) -> str:
        """The outage in sentences: counts, the fallback's difference, and evals that use up the
        rate limit.
        """
        return f"{self._reason} {self.tests}".strip()

    @property
    def _reason(self) -> str:
        outage = self.outage
        since = f"Since {self.outage.since:%Y-%m-%d %H:%M} UTC"
        if not outage.requests:
            return f"{since} {self._cause_without_requests}"
        requests = format_quantity(outage.requests, "request")
        if self.kind is OutageKind.ON_FALLBACK:
            fallbacks = f"fallbacks answered {outage.carried:,} of {requests}"
            text = f"{since} {fallbacks} in place of {self.own.name}."
            return f"{text} {self.difference}".strip()
        if outage.unanswered and not outage.failed:
            return self._left_text(since)
        share = format_percent(outage.failed / outage.requests, significant=2)
        text = f"{since} {outage.failed:,} of {requests} failed ({share})"
        if outage.unanswered:
            callers = format_quantity(outage.unanswered, "caller")
            text = f"{text}, and {callers} left without an answer"
        if outage.only_refused:
            return f"{text}. {self._refusal}"
        if outage.refused:
            cause = f" ({self.switch})" if self.switch else ""
            text = f"{text}, {outage.refused:,} of them without a call to a target{cause}"
        if outage.no_answers:
            return f"{text}: no target of the route answers."
        carried = f" {self.fallback.name} answers in its place." if self.fallback else ""
        return f"{text}.{carried} {self.difference}".strip()

    def _left_text(self, since: str) -> str:
        """Describes an outage in which callers only left, and names the next step."""
        outage = self.outage
        left_text = f"{outage.unanswered:,} of {format_quantity(outage.requests, 'caller')}"
        text = f"{since} {left_text} left without an answer"
        if outage.no_answers:
            return f"{text}: no target of the route answers in time."
        return f"{text}. The others got one."

    @property
    def _cause_without_requests(self) -> str:
        """The end of a sentence that says why no target can answer."""
        if not self.silent_providers:
            return "the routers call none of its targets."
        names = ", ".join(self.silent_providers)
        verb = "does" if len(self.silent_providers) == 1 else "do"
        return f"no target of the route answers: {names} {verb} not answer Swapproof's checks."

    @property
    def _refusal(self) -> str:
        """Explains why the router calls no target, in sentences."""
        if self.switch:
            return f"The router calls no target, because of a kill switch: {self.switch}."
        return (
            "The router may call no target of the route: a kill switch, a missing key or a "
            "data class excludes each. The error that callers get names the reasons."
        )


@dataclass(frozen=True, slots=True)
class _OpenCircuits:
    """The times since which routers call no target of an id, and no target of a provider, from
    open alerts. silent: the providers that do not answer checks.
    """

    targets: Mapping[str, datetime]
    providers: Mapping[str, datetime]
    silent: frozenset[str]

    @classmethod
    def from_alerts(cls, open_alerts: Iterable[AlertRecord]) -> "_OpenCircuits":
        """Reads the routers' open alerts. An alert about a named key does not shut a
        provider.
        """
        targets = {}
        providers = {}
        silent = set()
        for record in open_alerts:
            subject, *key_names = record.key.split(":")[1:] or [""]
            if record.kind in _TARGET_ALERTS:
                targets[subject] = record.first_seen
            elif record.kind in _PROVIDER_ALERTS and key_names in ([], [_NO_KEY]):
                providers[subject] = record.first_seen
            if record.kind is AlertKind.PROVIDER_DOWN:
                silent.add(subject)
        return cls(targets, providers, frozenset(silent))

    def among(self, targets: Iterable[Target]) -> Mapping[str, datetime]:
        """Returns when each of the targets stopped getting requests, by id; omits the
        others.
        """
        opened_at = {
            target.id: self.targets.get(target.id, self.providers.get(target.provider))
            for target in targets
        }
        return {id_: since for id_, since in opened_at.items() if since is not None}


def load_outages(
    ctx: RoutingContext,
    names: Collection[str] | None = None,
    *,
    failing_in_a_row: Collection[str] = (),
) -> Mapping[str, OutageView]:
    """Loads the outages of all routes or of `names`. Skips a route with an invalid
    signature.

    Args:
        failing_in_a_row: routes whose targets failed the last requests.
    """
    now = ctx.clock.now()
    views = {}
    with ctx.store.read() as tx:
        open_alerts = [record for record in Alerts(tx).unsettled() if record.open]
        circuits = _OpenCircuits.from_alerts(open_alerts)
        alerts_since = {alert.key: alert.first_seen for alert in open_alerts}
        alerted_kinds = {
            alert.key.partition(":")[2]: alert.kind
            for alert in open_alerts
            if alert.kind in _OUTAGES
        }
        suspected = set(Observations(tx).failing_routes(since=now - RECENT))
        if circuits.targets or circuits.providers:
            suspected |= set(Routing(tx).names())
        if names is not None:
            suspected &= set(names)
        Preload(tx).routes(suspected)
        minutes = Observations(tx).traffic_of(suspected, since=now - LOADED_FOR)
        scores = cache(partial(load_target_scores, ctx, tx))
        switches = active_switches(Switches(tx).not_lifted(), now)
        for name in sorted(suspected):
            with suppress(SignatureInvalid, NotFound):
                route = routes.require_route(tx, name)
                stored_targets = {id_: Targets(tx).get(id_) for id_ in route.targets}
                targets_by_id = {
                    id_: target for id_, target in stored_targets.items() if target
                }
                open_since = circuits.among(targets_by_id.values())
                kind = _OUTAGES.get(alerted_kinds[name]) if name in alerted_kinds else None
                outage = find_outage(
                    route,
                    minutes.get(name, ()),
                    open_since,
                    now,
                    kind,
                    fails_in_a_row=name in failing_in_a_row,
                )
                if outage is not None:
                    outage = _extend_to_alert(
                        outage,
                        alerts_since.get(f"{ALERTS[outage.kind].value}:{name}"),
                        now,
                    )
                    view = _build_view(
                        tx, route, targets_by_id, outage, scores, circuits.silent
                    )
                    views[name] = replace(
                        view, switch=_switch_reason(route, targets_by_id, switches)
                    )
    return views


class OutageWatch:
    """Keeps the alerts of all routes' outages, and remembers which requests failed in a row."""

    def __init__(self) -> None:
        self._runs: dict[str, FailureRun] = {}

    def __call__(self, ctx: RoutingContext) -> None:
        with ctx.store.read() as tx:
            outcomes = Observations(tx).minute_outcomes(since=tx.now() - FRESH)
        self._runs = {
            route: follow_run(self._runs.get(route), minutes)
            for route, minutes in outcomes.items()
        }
        failing = {route for route, run in self._runs.items() if run.shows_outage}
        update_outage_alerts(ctx, failing)


def update_outage_alerts(ctx: RoutingContext, failing_in_a_row: Collection[str] = ()) -> None:
    """Opens, updates and resolves the alerts of all routes' outages.

    If a route changes from one kind of outage to the other, people get one message
    (`_replace_alert`). If an alert ends without any request, its title says so
    (`_add_silence_to_title`).
    """
    notices = {
        (ALERTS[view.kind], name): AlertNotice(
            f"route {name}", _write_title(name, view), view.reason
        )
        for name, view in load_outages(ctx, failing_in_a_row=failing_in_a_row).items()
    }
    for kind, name in alerts.list_open(ctx, *ALERTS.values()) - notices.keys():
        successor = next(
            (other_kind for other_kind in ALERTS.values() if (other_kind, name) in notices),
            None,
        )
        if successor is not None:
            _replace_alert(ctx, name, kind, successor, notices[successor, name])
        else:
            _add_silence_to_title(ctx, name, kind)
    alerts.update_alerts(ctx, frozenset(ALERTS.values()), notices)


def _replace_alert(
    ctx: RoutingContext,
    route: str,
    ended: AlertKind,
    successor: AlertKind,
    notice: AlertNotice,
) -> None:
    """Ends an alert and raises its successor, in one message to each sink."""
    with ctx.store.write() as tx:
        record = Alerts(tx).newest(f"{ended.value}:{route}")
        # For an outage that returned, the message about its end waits, so the successor sends
        # its own message.
        if record is None or not record.open or record.returned:
            return
        changed = replace(notice, title=f"{record.title}; now: {notice.title}")
        alerts.raise_alert(
            tx,
            ended,
            route,
            **asdict(changed),
            news=AlertEvent.STILL,
        )
        alerts.resolve_alert(tx, ended, route)
        alerts.raise_alert(tx, successor, route, **asdict(notice))
        opened = Alerts(tx).newest(f"{successor.value}:{route}")
        was_sent = record.notified is Notified.RAISED
        if ctx.sinks is None or opened is None or successor is AlertKind.ROUTE_DOWN:
            return
        if was_sent and opened.notified is not Notified.RAISED:
            is_wanted = ctx.sinks.takes
            sinks = [
                sink
                for sink in ctx.sinks.names()
                if is_wanted(sink, successor) > is_wanted(sink, ended)
            ]
            alerts.queue_message(tx, opened, Notified.RAISED, sinks)


def _add_silence_to_title(
    ctx: RoutingContext,
    route: str,
    kind: AlertKind,
) -> None:
    """Adds to an ending alert's title that no request shows whether the route works."""
    with ctx.store.write() as tx:
        record = Alerts(tx).newest(f"{kind.value}:{route}")
        last = Observations(tx).last_traffic(route)
        is_silent = last is None or tx.now() - last >= RECENT
        if (
            record is None
            or not record.open
            or not is_silent
            or route not in Routing(tx).names()
            or _answers_checks_again(tx, route, record.first_seen)
        ):
            return
        since = f" since {last:%H:%M} UTC" if last else ""
        notice = AlertNotice(
            record.subject,
            f"{record.title}; no request came{since}, so nothing shows that it works",
            record.text,
        )
        alerts.raise_alert(
            tx,
            kind,
            route,
            **asdict(notice),
            news=AlertEvent.STILL,
        )


def _answers_checks_again(
    tx: Transaction,
    route: str,
    since: datetime,
) -> bool:
    """Tells whether a provider of the route was down at some time since then, and answers
    checks now.
    """
    stored_route = routes.require_route(tx, route)
    stored_targets = [Targets(tx).get(id_) for id_ in stored_route.targets]
    records = [
        Alerts(tx).newest(f"{AlertKind.PROVIDER_DOWN.value}:{target.provider}")
        for target in stored_targets
        if target is not None
    ]
    return any(
        record is not None and record.resolved_at is not None and record.resolved_at >= since
        for record in records
    )


def _write_title(name: str, view: OutageView) -> str:
    if view.kind is OutageKind.ON_FALLBACK and view.fallback is not None:
        return f"{view.fallback.name} answers for {view.own.name} on route {name}"
    if view.outage.only_refused:
        return f"route {name} refuses requests: the router may call none of its targets"
    if view.outage.no_answers:
        return f"route {name} is down: no target answers"
    if not view.outage.failed:
        return f"callers of route {name} leave without an answer"
    return f"callers of route {name} get errors"


def _extend_to_alert(
    outage: RouteOutage,
    first_seen: datetime | None,
    now: datetime,
) -> RouteOutage:
    """Lets an outage begin with its alert if it reaches back to the start of the loaded hour:
    it may be older than the loaded minutes.
    """
    if first_seen is None or outage.since > now - LOADED_FOR + FRESH:
        return outage
    return replace(outage, since=min(first_seen, outage.since))


def _switch_reason(
    route: Route,
    targets: Mapping[str, Target],
    switches: Sequence[KillSwitch],
) -> str:
    """Explains how kill switches change the route's plan now; empty if they do not.

    Args:
        targets: of the route, by id.
        switches: those in force.
    """
    ordered = [targets[id_] for id_ in order_targets(route, None) if id_ in targets]
    decision = decide_plan(switches, route.name, ordered)
    return decision.reason if decision is not None and decision.in_effect else ""


def _build_view(
    tx: Transaction,
    route: Route,
    targets: Mapping[str, Target],
    outage: RouteOutage,
    scores: _Scores,
    silent_providers: Collection[str],
) -> OutageView:
    """Builds the view of an outage.

    Args:
        targets: of the route, by id.
        silent_providers: those that do not answer checks.
    """
    incumbent = targets[route.incumbent]
    fallback = targets.get(outage.fallback)
    difference = ""
    if fallback is not None:
        price = _price_difference(tx, incumbent, fallback)
        differences = (
            *([f"{fallback.name} has no proof"] if route.is_unproven(fallback.id) else ()),
            price,
            *_score_differences(scores, route, incumbent, fallback),
        )
        difference = f"{'; '.join(differences)}."
    providers = {target.provider for target in targets.values()}
    return OutageView(
        outage,
        incumbent,
        fallback,
        difference,
        tests=_describe_eval_load(tx, providers),
        silent_providers=tuple(sorted(providers.intersection(silent_providers))),
    )


def _describe_eval_load(tx: Transaction, providers: Collection[str]) -> str:
    """Describes evals that share an account with callers who got a 429; empty without both."""
    account_loads = AccountLoads(tx).of_providers(providers, tx.now())
    refused_accounts = {load.account for load in account_loads if load.refused_at}
    calls_by_provider = {
        load.provider: sum(
            other.tests for other in account_loads if other.account == load.account
        )
        for load in account_loads
        if load.account in refused_accounts
    }
    return " ".join(
        f"{provider} refused callers' requests (429), and evals, judges or shadows share its "
        f"limit: they sent {format_quantity(calls, 'call')} in a minute. `swapproof eval list` "
        "shows the runs."
        for provider, calls in sorted(calls_by_provider.items())
        if calls
    )


def _price_difference(
    tx: Transaction,
    incumbent: Target,
    fallback: Target,
) -> str:
    providers = Providers(tx).all()
    if unpriced := list_unpriced(providers, (fallback.name, incumbent.name)):
        missing = describe_missing(*unpriced)
        return f"{missing[:1].upper()}{missing[1:]}"
    fallback_price, incumbent_price = (
        read_price(providers, arm.name).text for arm in (fallback, incumbent)
    )
    if incumbent_price == fallback_price:
        return f"Its price is the same: {fallback_price}"
    return f"It costs {fallback_price}, {incumbent.name} {incumbent_price}"


def _score_differences(
    scores: _Scores,
    route: Route,
    incumbent: Target,
    fallback: Target,
) -> Iterator[str]:
    """Yields a sentence with both models' scores for each suite that measured both."""
    incumbent_scores, fallback_scores = (
        {measured.suite: measured.score for measured in scores(target.id)}
        for target in (incumbent, fallback)
    )
    suites = [suite.suite for suite in route.settings.suites]
    common_suites = [
        suite for suite in suites if suite in incumbent_scores and suite in fallback_scores
    ]
    for suite in common_suites:
        fallback_text = format_score(fallback_scores[suite])
        incumbent_text = format_score(incumbent_scores[suite])
        yield f"on {suite} it scores {fallback_text}, {incumbent.name} {incumbent_text}"
    if not common_suites:
        yield "no suite of the route has scores of both"
