"""Writes the Traffic & failovers page: its first line, tiles, the table of routes, which
targets were left and why, and the newest failovers.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from dashboard.text import html, labels
from dashboard.text.html import Tile, escape, strong
from harness.control.routing.traffic_report import (
    RouteTraffic,
    TrafficReport,
    UnroutedTraffic,
    describe_traffic,
)
from harness.domain.formatting import DASH, format_milliseconds, format_percent
from harness.domain.reliability.failover import Failover, FailoverReason
from harness.domain.reliability.failures import failure_words

WINDOWS: Final[Mapping[str, timedelta]] = {
    "1h": timedelta(hours=1),
    "24h": timedelta(hours=24),
    "7d": timedelta(days=7),
}
MOST_NAMES: Final = 3


def headline(report: TrafficReport, period: str, route: str | None) -> tuple[str, str]:
    """Writes the page's first line and its note, as HTML. period: the window in words."""
    answer, note = describe_traffic(report, period, route, mark=strong)
    return answer, escape(note)


def tiles(report: TrafficReport, reasons: Sequence[FailoverReason]) -> str:
    """Renders the window's four figures."""
    whole = report.all
    moved = sum(reason.times - reason.unanswered for reason in reasons)
    return html.tiles(
        (
            Tile("Requests", labels.count(whole.requests), below=_pace(report)),
            Tile(
                "Errors to callers",
                labels.count(whole.failed),
                below=f"{format_percent(whole.failed_share, significant=2)} of the requests",
            ),
            Tile(
                "Answered by a fallback",
                labels.count(moved),
                below=f"{labels.plural(whole.left, 'request')} whose own model failed",
            ),
            Tile("Cost", labels.usd(whole.known_cost_usd), below=_unpriced(whole)),
        ),
        stale=report.quiet_since is not None,
    )


def _pace(report: TrafficReport) -> str:
    first = next((point.minute for point in report.course if point.requests), None)
    if first is None:
        return "none in this time"
    # Of traffic that began within the window, the time before says nothing.
    begun = first if first > report.since else report.now - report.window
    hours = (report.now - begun) / timedelta(hours=1)
    if hours < 1:
        return f"since {first:%H:%M} UTC"
    since = f", since {labels.date_time(first)}" if first > report.since else ""
    return f"{labels.count(report.all.requests / hours)} an hour on average{since}"


def _unpriced(traffic: RouteTraffic) -> str:
    if not traffic.unpriced:
        return "of the requests in this time"
    more = "" if traffic.known_cost_usd is None else "more "
    return f"{labels.plural(traffic.unpriced, 'request')} {more}of unknown price"


def stale(report: TrafficReport) -> str:
    """Warns where requests have stopped; empty while they come."""
    since = report.quiet_since
    if since is None:
        return ""
    words = (
        f"No request has been recorded since {labels.date_time(since)} "
        f"({labels.age(since, report.now)}). Either nobody asks, or the router does not reach "
        "the database: swapgate doctor tells."
    )
    return html.banner("STALE.", words)


def route_cells(traffic: RouteTraffic) -> html.Row:
    worse, undecided = labels.Tone.WORSE, labels.Tone.UNDECIDED
    return {
        "Route": html.link("routes", strong(traffic.route), route=traffic.route),
        "Requests": labels.count(traffic.requests),
        "Errors to callers": _share_cell(traffic.failed, traffic.failed_share, worse),
        "Own model failed": _share_cell(traffic.left, traffic.left_share, undecided),
        "Cost": escape(labels.usd(traffic.known_cost_usd)),
    }


def _share_cell(count: int, share: float | None, tone: labels.Tone) -> str:
    if not count:
        return '<span class="note">none</span>'
    percent = format_percent(share, significant=2)
    # One element: on a phone a cell's elements are set side by side.
    share_ = f'<span class="note">{escape(percent)}</span>'
    return f'<span><b class="{tone}">{count:,}</b> {share_}</span>'


def reason_cells(reason: FailoverReason, now: datetime) -> html.Row:
    unanswered = reason.unanswered / reason.times
    return {
        "Model left": strong(reason.target),
        "Why": escape(failure_words(reason.failure)),
        "Times": labels.count(reason.times),
        "No fallback left": _share_cell(reason.unanswered, unanswered, labels.Tone.WORSE),
        "Routes": _on(reason.routes),
        "Last": escape(labels.age(reason.last, now)),
    }


def unrouted_cells(model: UnroutedTraffic) -> html.Row:
    """Renders a model that no route is named after."""
    nearest = '<span class="note">none</span>'
    if model.nearest:
        nearest = html.link("routes", escape(model.nearest), route=model.nearest)
    return {
        "Model that was asked for": strong(model.model),
        "Times": labels.count(model.requests),
        "Nearest route": nearest,
    }


def _on(routes: Sequence[str]) -> str:
    names = [html.link("routes", escape(name), route=name) for name in routes]
    return f"<span>{labels.few(names, MOST_NAMES)}</span>"


def failover_table(failovers: Sequence[Failover]) -> str:
    """Renders failovers one by one, without any content of the requests."""
    rows = [
        {
            "When (UTC)": escape(f"{failover.at:%d %b %H:%M:%S}".removeprefix("0")),
            "Route": escape(failover.route),
            "Model left": strong(failover.target),
            "Why": f"<span>{escape(failure_words(failover.failure))}{_status(failover)}</span>",
            "After": escape(format_milliseconds(failover.latency_ms)),
            "Next model": escape(failover.next_target or "none left"),
            "Request": f'<span class="mono">{escape(failover.request or DASH)}</span>',
        }
        for failover in failovers
    ]
    return html.table(rows, stacked=True)


def _status(failover: Failover) -> str:
    """Renders a provider's status, code and place, and its sentence where the mouse points."""
    at = f"at {failover.place}" if failover.place else ""
    said = " ".join(filter(None, (str(failover.status or ""), failover.code, at)))
    if not said:
        return ""
    return f' <span class="note" title="{escape(failover.sentence)}">{escape(said)}</span>'
