"""`swapproof route traffic`, `failovers` and `measured`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import click

from harness.frame.failures import failure_words
from harness.frame.formatting import (
    DASH,
    format_age,
    format_estimate,
    format_latency,
    format_month_usd,
    format_percent,
    format_range,
    format_score,
)
from harness.frame.pagination import PageRequest
from harness.interfaces.cli.frame import output
from harness.interfaces.cli.frame.command import (
    ONLY_ROUTE,
    PAGE,
    WATCH,
    arg,
    command,
    opt,
)
from harness.interfaces.cli.frame.output import timestamp
from harness.interfaces.cli.frame.session import Session
from harness.interfaces.cli.frame.waiting import Watched, show
from harness.operations import queries
from harness.operations.context import Context
from harness.operations.route_queries import load_target_traffic
from harness.routing.reliability.failover import FailoverReason
from harness.routing.reports import scorecard
from harness.routing.reports.scorecard import RouteScorecard, SuiteScore
from harness.routing.reports.traffic_report import (
    RouteTraffic,
    TargetTraffic,
    TrafficReport,
    describe_traffic,
    hide_single_sums,
    load_traffic_report,
    name_period,
)

MOST_REASONS: Final = 10


@dataclass(frozen=True)
class _Traffic:
    report: TrafficReport
    reasons: Sequence[FailoverReason]
    targets: Sequence[TargetTraffic]
    route: str | None

    @property
    def headline(self) -> tuple[str, str]:
        return describe_traffic(self.report, name_period(self.report.window), self.route)


@command(name="traffic", example="swapproof route traffic support")
def route_traffic(
    session: Session,
    name: str | None = arg("[ROUTE]"),
    *,
    since: timedelta = opt("How far back: 30m, 2h, 1d.", default="1h"),
    is_watching: bool = WATCH,
) -> None:
    """Show whether callers get answers: requests, errors, and figures of each target.

    Without ROUTE: all routes, those with most errors first.
    """
    context = session.context
    if name:
        queries.find_route(context, name)
    view = Watched(
        load=lambda: _load_traffic(context, name, since),
        draw=_print,
        lines=lambda traffic: {row.route: _describe_row(row) for row in traffic.report.routes},
        document=_as_json,
        ended=lambda _: False,
    )
    show(session, view, is_watching=is_watching)


def _load_traffic(
    ctx: Context,
    route: str | None,
    window: timedelta,
) -> _Traffic:
    report = load_traffic_report(ctx, window, route)
    reasons = queries.count_failovers(ctx, report.since, route)
    return _Traffic(
        report,
        reasons,
        load_target_traffic(ctx, report, reasons, route),
        route,
    )


def _as_json(traffic: _Traffic) -> dict[str, object]:
    report = traffic.report
    return {
        "headline": traffic.headline[0],
        "since": report.since,
        "all": report.all,
        "routes": report.routes,
        "providers": [row for row in traffic.targets if not row.target],
        "targets": [row for row in traffic.targets if row.target],
        "left": traffic.reasons,
        "last_request": report.last_request,
    }


def _describe_row(row: RouteTraffic) -> str:
    errors = _format_count(row.failed, row.failed_share)
    own_failures = _format_count(row.left, row.left_share)
    return (
        f"{row.route}: {row.requests:,} requests, {errors} with an error to the caller"
        f"{_describe_unanswered(row)}, {own_failures} whose own model failed"
    )


def _describe_unanswered(row: RouteTraffic) -> str:
    return f", {row.unanswered_text}" if row.unanswered else ""


def _format_count(number: int, share: float | None) -> str:
    return f"{number:,} ({format_percent(share, significant=2)})" if number else "none"


def _print(traffic: _Traffic) -> None:
    report = traffic.report
    answer, note = traffic.headline
    click.echo(f"{answer}.\n{note}")
    if refused := report.all.refused_text:
        click.echo(f"{refused}.")
    if bounds := report.all.bounds_text:
        click.echo(f"The cost includes {bounds}.")
    if (quiet_since := report.quiet_since) is not None:
        output.note(
            f"no request was recorded since {timestamp(quiet_since)} UTC: either no client "
            "sends requests, or the router cannot reach the database (`swapproof doctor`)"
        )
    if report.routes:
        click.echo()
        output.table_of(
            report.routes,
            lambda row: {
                "ROUTE": row.route,
                "REQUESTS": f"{row.requests:,}",
                "ERRORS TO CALLERS": _format_count(row.failed, row.failed_share)
                + (f", {row.refused:,} refused" if row.refused else "")
                + (f", {row.unanswered_text}" if row.unanswered else ""),
                "OWN MODEL FAILED": _format_count(row.left, row.left_share),
                "COST": row.cost_text,
            },
        )
    if traffic.targets:
        click.echo()
        output.table_of(hide_single_sums(traffic.targets), _build_target_cells)
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
        output.note("`swapproof route failovers` lists each failover")


def _build_target_cells(row: TargetTraffic) -> dict[str, object]:
    return {
        "TARGET": row.target or f"{row.provider}, all",
        "ANSWERED": f"{row.requests:,}",
        "TIMES LEFT": f"{row.left:,}",
        "95 % WITHIN": _format_ms(row.p95_ms),
        "COST": row.cost_text,
    }


@command(name="failovers", example="swapproof route failovers")
def list_failovers(
    session: Session,
    *,
    name: str | None = ONLY_ROUTE,
    user: str | None = opt("Only this user, by id or hash.", metavar="ID"),
    since: timedelta = opt("How far back: 90s, 30m, 2h, 1d.", default="1d"),
    page_request: PageRequest = PAGE,
) -> None:
    """List failovers, newest first: the target that failed, and why.

    `--json` includes the providers' messages, redacted.
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
            "ASKED NEXT": failover.next_target or "no target",
            "USER": failover.user,
            "SHAPE": failover.shape,
            "REQUEST": failover.request,
        },
        empty="no failover in that time",
    )


@command(name="measured", example="swapproof route measured support")
def route_measured(
    session: Session,
    name: str | None = arg("[ROUTE]"),
    *,
    is_watching: bool = WATCH,
) -> None:
    """Show measured quality, cost, latency and failures of every route, or of ROUTE.

    Cost and failures cover at most 30 days; latency covers the last day.
    """
    context = session.context

    def load() -> Sequence[RouteScorecard]:
        if name:
            return [scorecard.build_scorecard(context, name)]
        return scorecard.build_scorecards(context)

    view = Watched(
        load=load,
        draw=_print_scorecards,
        lines=lambda scorecards: {
            row.route.name: _describe_scorecard(row) for row in scorecards
        },
        document=lambda scorecards: scorecards,
        ended=lambda scorecards: not scorecards,
    )
    show(session, view, is_watching=is_watching)


def _describe_scorecard(row: RouteScorecard) -> str:
    return (
        f"{row.route.name}: {row.incumbent.name}, {describe_requests(row)}, median "
        f"{_format_ms(row.p50_ms) or DASH}, 95th percentile {_format_ms(row.p95_ms) or DASH}, "
        f"callers failed {_format_share(row.failed) or DASH}"
    )


def _print_scorecards(scorecards: Sequence[RouteScorecard]) -> None:
    output.table_of(
        scorecards,
        _build_traffic_cells,
        empty="no routes yet: `swapproof route create` creates one",
    )
    if scorecards:
        click.echo()
        output.table_of(
            [(row, score) for row in scorecards for score in row.scores],
            lambda pair: _build_score_cells(*pair),
            empty="no route has a suite: `swapproof route settings` gives it one",
        )


def _build_traffic_cells(row: RouteScorecard) -> dict[str, object]:
    return {
        "ROUTE": row.route.name,
        "MODEL": row.incumbent.name,
        "PER 1,000": row.price_text,
        "A MONTH": _format_month(row),
        "REQUESTS": describe_requests(row, ""),
        "MEDIAN": _format_ms(row.p50_ms),
        "95TH PERCENTILE": _format_ms(row.p95_ms),
        "CALLERS FAILED": _format_share(row.failed),
        "MODEL FAILED": _format_share(row.charged),
    }


def _format_month(route_scorecard: RouteScorecard) -> str | None:
    """Returns the monthly cost; None without recorded requests."""
    if not route_scorecard.bill.requests:
        return None
    return format_month_usd(route_scorecard.month_usd)


def describe_requests(route_scorecard: RouteScorecard, noun: str = " requests") -> str:
    bill = route_scorecard.bill
    window = format_estimate(bill.window_s)
    return f"{bill.requests:,}{noun} in {window}" if bill.requests else "0"


def _format_ms(ms: float | None) -> str | None:
    return None if ms is None else format_latency(ms / 1000)


def _format_share(value: float | None) -> str | None:
    return None if value is None else format_percent(value, 2)


def _build_score_cells(row: RouteScorecard, score: SuiteScore) -> dict[str, object]:
    return {
        "ROUTE": row.route.name,
        "SUITE": score.suite,
        "ROLE": score.role.value,
        "SCORE": score.hidden or (None if score.score is None else format_score(score.score)),
        "95 % INTERVAL": format_range(score.interval, format_score) if score.interval else None,
        "ITEMS": score.items or None,
        "MEASURED (UTC)": _describe_age(score),
    }


def _describe_age(score: SuiteScore) -> str:
    if score.measured_at is None:
        return "" if score.hidden else "never"
    return timestamp(score.measured_at) + ("" if score.current else " (older suite)")
