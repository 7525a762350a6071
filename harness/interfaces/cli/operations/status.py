"""`swapproof status`, also `swapproof` alone: the states, headline and banners of Overview."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

import click

from harness.agents.switches import SwitchRequestView, view_switch
from harness.app.processes import describe_missing_control
from harness.evals.spending import load_report
from harness.frame.alerts.alert import NO_SINK, AlertKind
from harness.frame.alerts.alerts import AlertView
from harness.frame.formatting import (
    escape_controls,
    format_bps,
    format_quantity,
    format_spent_usd,
)
from harness.frame.pagination import INVALID_ROWS_HINT, Page
from harness.frame.signing.signed_rows import RowFault
from harness.interfaces.cli.frame import output
from harness.interfaces.cli.frame.command import WATCH, command
from harness.interfaces.cli.frame.session import Session
from harness.interfaces.cli.frame.waiting import Watched, watch
from harness.operations import route_status
from harness.operations.queries import list_alerts
from harness.operations.route_queries import (
    RouteOverview,
    load_overview,
    load_statuses,
)
from harness.operations.route_status import (
    ALERTS_OF_STATES,
    OUTAGE_STATES,
    Banner,
    RouteState,
    RouteStatus,
    describe_needs,
)
from harness.proposals.break_glass import count_unconfirmed
from harness.providers.records import Providers
from harness.providers.target_price import describe_missing, list_unpriced
from harness.routing.reports.traffic_report import format_request_ends
from harness.routing.table import FIRST_ROUTE_STEP


@command(example="swapproof spending")
def spending(session: Session) -> None:
    """Show this month's costs (UTC) of evals, judges, shadows, drift checks and agents."""
    report = load_report(session.context)
    if output.documented(report):
        return
    click.echo(f"{report.headline}.")
    if report.reason:
        click.echo(f"{report.reason}.")
    click.echo()
    output.table_of(
        report.purposes,
        lambda row: {
            "PURPOSE": row.purpose.value,
            "SPENT": format_spent_usd(row.spent_usd, row.unpriced),
            "CALLS": f"{row.calls:,}",
            "WITHOUT A PRICE": f"{row.unpriced:,}" if row.unpriced else None,
            "STATE": row.purpose.state_at_cap if report.reason else None,
        },
    )


MOST_ROUTES: Final = 12
# The limit for JSON documents and logs.
MOST_LISTED_ROUTES: Final = 100
MOST_ALERTS: Final = 5
FIRST_STEPS: Final = (
    ("swapproof init", "sets up an installation in this folder"),
    ("swapproof init --guided", "also asks for a provider and a route"),
    ("swapproof demo", "shows Swapproof at work, with simulated providers"),
)
NOT_SET_UP: Final = "This folder has no Swapproof installation yet."
ALL_COMMANDS: Final = "`swapproof --help` lists all commands"
# In these states, the next command shows the canary; in other states, the proposal.
CANARY_STATES: Final = frozenset(
    {
        RouteState.HARM,
        RouteState.SUSPECT,
        RouteState.HELD,
        RouteState.BAKE_HELD,
        RouteState.UNCOMPARED,
        RouteState.PAUSED,
        RouteState.ROLLED_BACK,
        RouteState.ABORTED,
        RouteState.PROMOTION_ROLLED_BACK,
        RouteState.CANARY,
        RouteState.BAKING,
    }
)


@dataclass(frozen=True)
class _StatusView:
    overview: RouteOverview
    routes: Page[RouteStatus]  # the first routes
    alerts: Sequence[AlertView]
    route_alert_count: int  # alerts that the routes' states already show
    requests: Sequence[SwitchRequestView]
    banners: Mapping[str, Sequence[Banner]]  # by kind
    unconfirmed: int  # break-glasses that wait for a second person
    unpriced: Sequence[str]  # incumbents without a price, by name

    @property
    def faults(self) -> Iterable[RowFault]:
        return dict.fromkeys((*self.overview.faults.values(), *self.routes.invalid))

    @property
    def headline(self) -> str:
        return describe_needs(
            self.overview.active,
            len(self.alerts),
            self.overview.at,
            unconfirmed=self.unconfirmed,
            others=self.overview.others,
            has_router=self.overview.now.has_router,
        )


@command(example="swapproof status --watch")
def status(session: Session, *, is_watching: bool = WATCH) -> None:
    """Show the state of all routes, and what waits for a person.

    `swapproof` alone does the same.
    """
    from harness.app.installation import has_state  # noqa: PLC0415 - `--help` stays quick

    if not has_state(session.settings):
        _print_first_steps(as_json=session.json)
        return
    if is_watching:
        watch(
            session,
            Watched(
                load=lambda: _load_view(session, MOST_LISTED_ROUTES),
                draw=lambda view: _print(session, view),
                lines=_list_lines,
                document=_as_json,
                ended=lambda _: False,
            ),
        )
    elif session.json:
        output.document(_as_json(_load_view(session, MOST_LISTED_ROUTES)))
    else:
        _print(session, _load_view(session, MOST_ROUTES))
        output.note(ALL_COMMANDS)


def _print_first_steps(*, as_json: bool) -> None:
    if as_json:
        steps = [command for command, _ in FIRST_STEPS]
        output.document(
            {
                "installation": False,
                "headline": NOT_SET_UP,
                "next": steps,
            }
        )
        return
    click.echo(f"{NOT_SET_UP} To begin:")
    output.facts((f"  {command}", effect) for command, effect in FIRST_STEPS)
    output.note(ALL_COMMANDS)


def _load_view(session: Session, max_routes: int) -> _StatusView:
    """Loads the state of the installation.

    Args:
        max_routes: the largest number of its routes.
    """
    ctx = session.context
    overview = load_overview(ctx)
    routes = load_statuses(ctx, overview, overview.names[:max_routes])
    requests = ctx.store.lists.switch_requests(pending_at=ctx.clock.now()).map(
        lambda r: view_switch(ctx, r)
    )
    open_alerts = list_alerts(ctx, open_only=True)
    alerts = [alert for alert in open_alerts if alert.kind not in ALERTS_OF_STATES]
    route_alert_count = len(open_alerts) - len(alerts)
    standing_switches = session.installation.standing_switches
    banners = {
        "switches": route_status.list_switch_banners(ctx, standing_switches),
        "break_glass": route_status.list_break_glass_banners(ctx),
        "freezes": route_status.list_freeze_banners(ctx),
    }
    unconfirmed = count_unconfirmed(ctx)
    return _StatusView(
        overview,
        routes,
        alerts,
        route_alert_count,
        requests.items,
        banners,
        unconfirmed,
        _list_unpriced(session, routes),
    )


def _list_unpriced(session: Session, routes: Iterable[RouteStatus]) -> Sequence[str]:
    with session.context.store.read() as tx:
        providers = Providers(tx).all()
    return list_unpriced(providers, (status.incumbent.name for status in routes))


def _print(session: Session, view: _StatusView) -> None:
    click.echo(f"{view.headline}.")
    for banner in chain.from_iterable(view.banners.values()):
        click.echo(escape_controls(str(banner)))
    for fault in view.faults:
        output.note(f"{fault.name}: {INVALID_ROWS_HINT}")
    if not view.overview.heads:
        click.echo(f"next: {FIRST_ROUTE_STEP}")
    _print_urgent_routes(view)
    _print_routes(view)
    _print_endings(view)
    _print_alerts(view)
    if view.unpriced:
        output.note(describe_missing(*view.unpriced))
    if advice := describe_missing_control(session.settings.control):
        output.note(advice)
    if not session.settings.alerts.sinks:
        output.note(NO_SINK)


def _print_urgent_routes(view: _StatusView) -> None:
    urgent = view.overview.urgent
    if not urgent and not view.requests:
        return
    click.echo()
    for route in urgent[:MOST_ROUTES]:
        reason = f": {route.reason}" if route.reason else ""
        click.echo(f"▲ {route.route.name}: {route.state_text}{reason}")
        click.echo(f"  {next_command(route)}")
    if (hidden_count := len(urgent) - MOST_ROUTES) > 0:
        click.echo(f"▲ {format_quantity(hidden_count, 'more route')}: `swapproof route list`")
    for request in view.requests:
        click.echo(f"▲ {request.question}")
        click.echo(f"  swapproof agent show {request.id}")


def next_command(status: RouteStatus) -> str:
    if status.state in OUTAGE_STATES:
        return f"swapproof route failovers --route {status.route.name} --since 1h"
    if status.state is RouteState.NO_ROUTER:
        return "swapproof serve router"
    if status.state is RouteState.UNPROVED:
        return "swapproof route break-glass list"
    if status.state in CANARY_STATES:
        return f"swapproof canary status {status.route.name}"
    if status.state is RouteState.LABELS:
        return status.label_commands[0].strip("`")
    proposal = status.open_proposal
    subject = f"proposal show {proposal.id}" if proposal else f"route show {status.route.name}"
    return f"swapproof {subject}"


def _print_routes(view: _StatusView) -> None:
    visible_routes = view.routes[:MOST_ROUTES]
    if not visible_routes:
        return
    click.echo()
    output.table_of(visible_routes, _build_route_cells)
    if (hidden_count := len(view.overview.names) - MOST_ROUTES) > 0:
        click.echo(f"{hidden_count:,} more routes: `swapproof route list`")


def _build_route_cells(status: RouteStatus) -> dict[str, object]:
    canary = status.route.canary
    return {
        "ROUTE": status.route.name,
        "STATE": status.state_text,
        "SERVES": status.serves or "nothing",
        "CANARY": f"{status.candidate.name} at {format_bps(canary.weight_bps)}"
        if canary and status.candidate
        else None,
        "LAST HOUR": format_request_ends(status.traffic) or None,
    }


def _print_endings(view: _StatusView) -> None:
    """Prints the countdown of each ending model, with the command to run next."""
    endings = {
        (ending.name, ending.next): (status.route.name, ending)
        for status in view.routes[:MOST_ROUTES]
        for ending in status.endings
    }
    if not endings:
        return
    click.echo()
    for route, ending in endings.values():
        click.echo(f"◷ {route}: {ending.text}")
        click.echo(f"  {ending.next}")


def _print_alerts(view: _StatusView) -> None:
    # An agent's request is already listed above with its question, and an ending model with
    # its countdown.
    countdowns = {
        ending.text for status in view.routes[:MOST_ROUTES] for ending in status.endings
    }
    alerts = [
        alert
        for alert in view.alerts
        if alert.kind is not AlertKind.MODEL_SWITCH and alert.title not in countdowns
    ]
    if not alerts:
        return
    click.echo()
    for alert in alerts[:MOST_ALERTS]:
        click.echo(f"{alert.severity.name.lower()}: {alert.title}")
        click.echo(f"  {alert.next_step}")
    visible_count = min(len(alerts), MOST_ALERTS)
    if hidden_count := len(alerts) - visible_count + view.route_alert_count:
        click.echo(
            f"{format_quantity(hidden_count, 'more open alert')}: `swapproof alert list --open`"
        )


def _list_lines(view: _StatusView) -> dict[str, str]:
    routes = {
        f"route {status.route.name}": f"{status.route.name}: {status.line}"
        for status in view.routes
    }
    alerts = {
        f"alert {alert.id}": f"{alert.severity.name.lower()}: {alert.title}"
        for alert in view.alerts
    }
    requests = {f"request {request.id}": request.question for request in view.requests}
    banners = {
        f"{kind} {banner.heading}": str(banner)
        for kind, kind_banners in view.banners.items()
        for banner in kind_banners
    }
    return {
        "": view.headline,
        **banners,
        **routes,
        **alerts,
        **requests,
    }


def _as_json(view: _StatusView) -> dict[str, object]:
    return {
        "installation": True,
        "headline": view.headline,
        "routes_total": len(view.overview.names),
        **{kind: list(map(str, kind_banners)) for kind, kind_banners in view.banners.items()},
        "routes": [
            {
                "route": status.route.name,
                "state": status.state.value,
                "state_text": status.state_text,
                "reason": status.reason,
                "needs_decision": status.needs_decision,
                "serves": status.serves,
                "next": next_command(status),
                "endings": [
                    {
                        "target": ending.name,
                        "day": ending.end_date.isoformat() if ending.end_date else None,
                        "days": ending.days,
                        "source": ending.source,
                        "text": ending.text,
                        "next": ending.next,
                    }
                    for ending in status.endings
                ],
            }
            for status in view.routes
        ],
        "alerts": [
            {
                "id": alert.id,
                "kind": alert.kind.value,
                "severity": alert.severity.name.lower(),
                "title": alert.title,
                "next": alert.next_step,
            }
            for alert in view.alerts
        ],
        "agents_ask": [
            {"id": request.id, "question": request.question} for request in view.requests
        ],
    }
