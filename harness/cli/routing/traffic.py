"""`swapgate route traffic` answers whether callers get answers: requests and errors of a window
by route, and why requests left their targets. The dashboard's page says the same. `swapgate
route failovers` lists these requests one by one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import click

from harness.cli.frame import output
from harness.cli.frame.command import ONLY_ROUTE, PAGE, WATCH, arg, command, opt
from harness.cli.frame.output import timestamp
from harness.cli.frame.session import Session
from harness.cli.frame.watching import Watched, show
from harness.control.context import Context
from harness.control.operations import queries
from harness.control.routing.traffic_report import (
    RouteTraffic,
    TrafficReport,
    describe_traffic,
    load_traffic_report,
    name_period,
)
from harness.control.serialize import to_plain
from harness.domain.formatting import format_age, format_percent, format_usd
from harness.domain.pagination import PageRequest
from harness.domain.reliability.failover import Failover, FailoverReason
from harness.domain.reliability.failures import failure_words

MOST_REASONS: Final = 10


@dataclass(frozen=True)
class _Traffic:
    """Holds the report, and why requests left their targets in the same window."""

    report: TrafficReport
    reasons: Sequence[FailoverReason]
    route: str | None

    @property
    def headline(self) -> tuple[str, str]:
        """Gives the answer, and a note of how many asked."""
        return describe_traffic(self.report, name_period(self.report.window), self.route)


@command(name="traffic")
def route_traffic(
    session: Session,
    name: str | None = arg("[ROUTE]"),
    *,
    since: timedelta = opt("How far back: 30m, 2h, 1d.", default="1h"),
    watched: bool = WATCH,
) -> None:
    """Show whether callers get answers: requests, errors, and targets that were left.

    Of all routes, those with most errors first, or of ROUTE.
    """
    context = session.context
    if name:
        queries.find_route(context, name)
    shown = Watched(
        load=lambda: _load(context, name, since),
        draw=_print,
        lines=lambda traffic: {row.route: _line(row) for row in traffic.report.routes},
        document=_as_json,
        ended=lambda _: False,
    )
    show(session, shown, again=watched)


def _load(ctx: Context, route: str | None, window: timedelta) -> _Traffic:
    report = load_traffic_report(ctx, window, route)
    return _Traffic(report, queries.count_failovers(ctx, report.since, route), route)


def _as_json(traffic: _Traffic) -> dict[str, object]:
    report = traffic.report
    return {
        "headline": traffic.headline[0],
        "since": report.since,
        "all": to_plain(report.all),
        "routes": to_plain(report.routes),
        "left": to_plain(traffic.reasons),
        "last_request": report.last_request,
    }


def _line(row: RouteTraffic) -> str:
    """One line for a log."""
    return (
        f"{row.route}: {row.requests:,} requests, {_count(row.failed, row.failed_share)} with "
        f"an error to the caller, {_count(row.left, row.left_share)} whose own model failed"
    )


def _count(number: int, share: float | None) -> str:
    return f"{number:,} ({format_percent(share, significant=2)})" if number else "none"


def _print(traffic: _Traffic) -> None:
    report = traffic.report
    answer, note = traffic.headline
    click.echo(f"{answer}.\n{note}")
    if (quiet := report.quiet_since) is not None:
        output.note(
            f"no request was recorded since {timestamp(quiet)} UTC: either nobody "
            "asks, or the router does not reach the database (`swapgate doctor`)"
        )
    if report.routes:
        click.echo()
        output.table_of(
            report.routes,
            lambda row: {
                "ROUTE": row.route,
                "REQUESTS": f"{row.requests:,}",
                "ERRORS TO CALLERS": _count(row.failed, row.failed_share),
                "OWN MODEL FAILED": _count(row.left, row.left_share),
                "COST": format_usd(row.known_cost_usd),
            },
        )
    if traffic.reasons:
        click.echo()
        output.table_of(
            traffic.reasons[:MOST_REASONS],
            lambda reason: {
                "MODEL LEFT": reason.target,
                "WHY": failure_words(reason.failure),
                "TIMES": f"{reason.times:,}",
                "NO FALLBACK LEFT": f"{reason.unanswered:,}",
                "ROUTES": ", ".join(reason.routes),
                "LAST": format_age(reason.last, report.now),
            },
        )
        output.note("`swapgate route failovers` lists them one by one")


@command(name="failovers")
def list_failovers(
    session: Session,
    *,
    name: str | None = ONLY_ROUTE,
    user: str | None = opt("Only this user, by the name that the client sent.", metavar="ID"),
    since: timedelta = opt("How far back: 90s, 30m, 2h, 1d.", default="1d"),
    page_request: PageRequest = PAGE,
) -> None:
    """List failovers: which target a request left, and why; the newest first.

    The log has sizes and kinds of the requests, never their content, and hashes of users. With
    `--json` it has the sentences of providers, redacted.
    """
    failovers = queries.list_failovers(
        session.context,
        page_request,
        secret=session.installation.secret,
        route=name,
        user=user,
        since=since,
    )
    output.listing(
        failovers,
        lambda failover: {
            "AT": timestamp(failover.at),
            "ROUTE": failover.route,
            "LEFT": failover.target,
            "BECAUSE": failover.failure,
            "STATUS": failover.status,
            "CODE": f"{failover.code} at {failover.place}" if failover.place else failover.code,
            "MS": round(failover.latency_ms),
            "ASKED NEXT": failover.next_target or "nobody",
            "SHAPE": _shape(failover),
            "REQUEST": failover.request,
        },
        empty="no request left a target in that time",
    )


def _shape(failover: Failover) -> str:
    stream = ", stream" if failover.stream else ""
    return f"{failover.endpoint}{stream}, {failover.body_bytes:,} bytes, {failover.tools} tools"
