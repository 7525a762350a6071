"""`swapgate route measured` shows the measured quality, cost, latency and failures of each
route's model; `metric_facts` gives the same of one route, for `route show`.
"""

from collections.abc import Sequence

import click

from harness.cli.frame import output
from harness.cli.frame.command import WATCH, command
from harness.cli.frame.output import timestamp
from harness.cli.frame.session import Session
from harness.cli.frame.watching import Watched, show
from harness.control.routing import scorecard
from harness.control.routing.monthly_bill import describe_month
from harness.control.routing.scorecard import RouteScorecard, SuiteScore
from harness.domain.formatting import (
    DASH,
    format_estimate,
    format_latency,
    format_month_usd,
    format_percent,
    format_range,
    format_score,
    format_thousand_price,
)


@command(name="measured")
def route_measured(session: Session, name: str | None, *, watched: bool = WATCH) -> None:
    """Show measured quality, cost, latency and failures of every route, or of NAME.

    Cost and failures are of the recorded traffic, 30 days at most; latency is of the last day.
    What a month costs is unknown below a day of traffic.
    """
    context = session.context

    def load() -> Sequence[RouteScorecard]:
        if name:
            return [scorecard.build_scorecard(context, name)]
        return scorecard.build_scorecards(context)

    shown = Watched(
        load=load,
        draw=_print_measured,
        lines=lambda scorecards: {row.route.name: _line(row) for row in scorecards},
        document=lambda scorecards: scorecards,
        ended=lambda scorecards: not scorecards,
    )
    show(session, shown, again=watched)


def _line(row: RouteScorecard) -> str:
    """One line for a log."""
    return (
        f"{row.route.name}: {row.incumbent.name}, {requests(row)}, median "
        f"{_seconds(row.p50_ms) or DASH}, 95th percentile {_seconds(row.p95_ms) or DASH}, "
        f"callers failed {_share(row.failed) or DASH}"
    )


def _print_measured(found: Sequence[RouteScorecard]) -> None:
    output.table_of(
        found, _traffic_cells, empty="no routes yet: `swapgate route create` makes one"
    )
    if found:
        click.echo()
        output.table_of(
            [(row, score) for row in found for score in row.scores],
            lambda pair: _score_cells(*pair),
            empty="no route has a suite: `swapgate route settings` gives it one",
        )


def _traffic_cells(row: RouteScorecard) -> dict[str, object]:
    return {
        "ROUTE": row.route.name,
        "MODEL": row.incumbent.name,
        "PER 1,000": _per_1000(row),
        "A MONTH": _month(row),
        "REQUESTS": requests(row, ""),
        "MEDIAN": _seconds(row.p50_ms),
        "95TH PERCENTILE": _seconds(row.p95_ms),
        "CALLERS FAILED": _share(row.failed),
        "MODEL FAILED": _share(row.charged),
    }


def _per_1000(route_scorecard: RouteScorecard) -> str | None:
    """Nothing without traffic; unknown where there is some and no price."""
    if route_scorecard.bill.tokens is None:
        return None
    return format_thousand_price(route_scorecard.usd_per_1000)


def _month(route_scorecard: RouteScorecard) -> str | None:
    """As `_per_1000`; unknown, too, where less than a day of traffic is recorded."""
    if not route_scorecard.bill.requests:
        return None
    return format_month_usd(route_scorecard.month_usd)


def requests(route_scorecard: RouteScorecard, what: str = " requests") -> str:
    """Counts the requests and names their window: `1,200 requests in 3 days`."""
    bill = route_scorecard.bill
    window = format_estimate(bill.window_s)
    return f"{bill.requests:,}{what} in {window}" if bill.requests else "0"


def _seconds(ms: float | None) -> str | None:
    return None if ms is None else format_latency(ms / 1000)


def _share(value: float | None) -> str | None:
    return None if value is None else format_percent(value, 2)


def _score_cells(row: RouteScorecard, score: SuiteScore) -> dict[str, object]:
    return {
        "ROUTE": row.route.name,
        "SUITE": score.suite,
        "ROLE": score.role.value,
        "SCORE": None if score.score is None else format_score(score.score),
        "95 % INTERVAL": _interval(score),
        "ITEMS": score.items or None,
        "MEASURED (UTC)": _when(score),
    }


def _interval(score: SuiteScore) -> str | None:
    if score.low is None or score.high is None:
        return None
    return format_range((score.low, score.high), format_score)


def _when(score: SuiteScore) -> str:
    if score.measured_at is None:
        return "never"
    return timestamp(score.measured_at) + ("" if score.current else ", of an older suite")


def metric_facts(route_scorecard: RouteScorecard) -> Sequence[tuple[str, object]]:
    """What is measured of one route, as pairs of name and value."""
    bill = route_scorecard.bill
    speeds = (_seconds(route_scorecard.p50_ms), _seconds(route_scorecard.p95_ms))
    return (
        *((f"score, {score.suite}", _scored(score)) for score in route_scorecard.scores),
        ("cost per 1,000 requests", _per_1000(route_scorecard)),
        ("cost a month", describe_month(bill) if bill.requests else None),
        ("latency", f"median {speeds[0]}, 95th percentile {speeds[1]}" if speeds[0] else None),
        ("callers that failed", _share(route_scorecard.failed)),
        ("failures of the model", _share(route_scorecard.charged)),
    )


def _scored(score: SuiteScore) -> str:
    if score.score is None:
        return "never measured"
    between = _interval(score)
    shown = format_score(score.score) + (f" ({between})" if between else "")
    return f"{shown} on {score.items:,} items, {_when(score)}"
