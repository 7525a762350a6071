"""The Traffic page answers: do callers get answers, and why did models fail?

The report comes from `harness`, as for `swapproof route traffic`. The page shows sizes, kinds
and hashes, and never the content of a request.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

import altair as alt
import pandas as pd
import streamlit as st

from dashboard import current_user, labels, markup, page_frame, plots
from dashboard.labels import Tone
from dashboard.markup import Tile, escape, faint, rich, strong
from dashboard.theme import Palette
from harness.frame.failures import failure_words
from harness.frame.formatting import (
    DASH,
    format_latency,
    format_milliseconds,
    format_percent,
)
from harness.frame.pagination import Page, PageRequest, read_all
from harness.operations.queries import count_failovers, list_failovers
from harness.operations.route_queries import load_target_traffic
from harness.routing.reliability.failover import Failover, FailoverReason
from harness.routing.reports.traffic_report import (
    RouteTraffic,
    TargetTraffic,
    TrafficReport,
    describe_traffic,
    hide_single_sums,
    load_traffic_report,
    name_period,
)

ALL: Final = "all routes"
WINDOWS: Final = {
    "1h": timedelta(hours=1),
    "24h": timedelta(hours=24),
    "7d": timedelta(days=7),
}
MOST_ROUTES: Final = 25
MOST_TABLE_ROWS: Final = 15
MOST_FAILOVERS: Final = 20
MOST_ROUTE_NAMES: Final = 3


def show() -> None:
    """Shows the headline, figures, charts, and lists of routes, targets and failovers."""
    with page_frame.loading("the traffic"):
        ctx = page_frame.context()
        names = page_frame.route_names(ctx)
    # The page's first line is its answer; the choices come below it.
    top = st.container()
    window_name, route = _ask_choices(names)
    window = WINDOWS[window_name]
    period = name_period(window)
    report = load_traffic_report(ctx, window, route)
    headline, note = describe_traffic(
        report,
        period,
        route,
        mark=strong,
    )
    with top:
        st.html(markup.title(headline, escape(note)))
    command = [
        "route",
        "traffic",
        *([route] if route else []),
        "--since",
        window_name,
    ]
    if report.last_request is None:
        page_frame.show_empty(
            "No request has been recorded in 30 days. This command sends requests:",
            "swapproof sim traffic",
        )
        page_frame.copy_as_cli(command)
        return
    page_frame.show_html(_render_stale_banner(report))
    reasons = count_failovers(ctx, report.since, route)
    st.html(tiles(report, reasons))
    for chart in _draw(report, page_frame.palette()):
        st.altair_chart(chart, width="stretch", theme=None)
    if route is None:
        _show_routes(report.routes)
    targets = hide_single_sums(load_target_traffic(ctx, report, reasons, route))
    _show_list(
        "Providers and targets",
        f"Answers and failovers of {period}; latency of the last day at most.",
        [_build_target_row(row) for row in targets],
        "No target answered.",
    )
    _show_list(
        "Failovers by model",
        f"In {period}: the model that failed, and why.",
        [_build_reason_row(reason, report.now) for reason in reasons],
        "No failover.",
        "reasons, the most frequent first",
    )
    if caller := _show_failovers(window, route):
        of_route = ("--route", route) if route else ()
        command = [
            "route",
            "failovers",
            "--since",
            window_name,
            *of_route,
            "--user",
            caller,
        ]
    page_frame.copy_as_cli(command)


def _ask_choices(names: Sequence[str]) -> tuple[str, str | None]:
    """Asks for the window and the route, which the address keeps. The route is None for all
    routes.
    """
    with st.container(horizontal=True, vertical_alignment="bottom"):
        window_name = st.segmented_control(
            "Window",
            list(WINDOWS),
            default="24h",
            required=True,
            key="window",
            bind="query-params",
        )
        route = st.selectbox(
            "Route",
            [ALL, *names],
            key="route",
            bind="query-params",
        )
    name = st.query_params.get("route", ALL)
    if name not in (ALL, *names):
        st.html(markup.banner("?", f"There is no route {name}; the page shows all routes."))
    return window_name or "24h", None if route in (None, ALL) else route


def _render_stale_banner(report: TrafficReport) -> str:
    """Renders a banner if the routers have recorded no request lately; else empty."""
    quiet_since = report.quiet_since
    if quiet_since is None:
        return ""
    text = (
        f"No request has been recorded since {labels.date_time(quiet_since)} "
        f"({labels.age(quiet_since, report.now)}). Either no client sends requests, or the "
        "router does not reach the database: `swapproof doctor` checks it."
    )
    return markup.banner("STALE.", text)


def tiles(report: TrafficReport, reasons: Sequence[FailoverReason]) -> str:
    """Renders the four figures of the report."""
    total = report.all
    fallback_answers = sum(reason.times - reason.unanswered for reason in reasons)
    cost_note = "of the requests in this time"
    if total.unpriced:
        further = "" if total.known_cost_usd is None else "more "
        cost_note = f"{labels.plural(total.unpriced, 'request')} {further}of unknown price"
    if total.bounded:
        cost_note += f"; {total.bounds_text}"
    return markup.tiles(
        (
            Tile("Requests", labels.count(total.requests), below=_describe_pace(report)),
            Tile(
                "Errors to callers",
                labels.count(total.failed),
                below=(
                    f"{format_percent(total.failed_share, significant=2)} of the requests"
                    + (f"; {total.refused_text}" if total.refused else "")
                    + (f"; {total.unanswered_text}" if total.unanswered else "")
                ),
            ),
            Tile(
                "Answered by a fallback",
                labels.count(fallback_answers),
                below=f"{labels.plural(total.left, 'request')} whose own model failed",
            ),
            Tile("Cost", total.cost_text, below=cost_note),
        ),
        stale=report.quiet_since is not None,
    )


def _describe_pace(report: TrafficReport) -> str:
    """Describes the average number of requests an hour, from the window's first request on."""
    first_minute = next((point.minute for point in report.course if point.requests), None)
    if first_minute is None:
        return "none in this time"
    # If traffic began within the window, the average starts at its first request.
    begins_at = first_minute if first_minute > report.since else report.now - report.window
    hours = (report.now - begins_at) / timedelta(hours=1)
    if hours < 1:
        return f"since {labels.date_time(first_minute)}"
    since_text = (
        f", since {labels.date_time(first_minute)}" if first_minute > report.since else ""
    )
    return f"{labels.count(report.all.requests / hours)} an hour on average{since_text}"


def _show_routes(routes: Sequence[RouteTraffic]) -> None:
    """Shows the routes with traffic, routes with the most errors first."""
    st.html(markup.section("Routes", "Routes with the most errors first."))
    matches = page_frame.find(
        routes,
        MOST_ROUTES,
        "Find a route",
        "Part of its name",
        lambda traffic: traffic.route,
    )
    rows = [
        {
            "Route": markup.link("routes", strong(traffic.route), route=traffic.route),
            "Requests": labels.count(traffic.requests),
            "Errors to callers": _render_share(
                traffic.failed, traffic.failed_share, Tone.WORSE
            ),
            "Left unanswered": _render_share(
                traffic.unanswered, traffic.unanswered / traffic.requests, Tone.WORSE
            ),
            "Own model failed": _render_share(traffic.left, traffic.left_share, Tone.UNDECIDED),
            "Cost": escape(traffic.cost_text),
        }
        for traffic in matches[:MOST_ROUTES]
    ]
    empty_note = markup.note("No route with traffic has this text in its name.")
    st.html(markup.table(rows, stacked=True) or empty_note)
    if len(matches) > MOST_ROUTES:
        st.html(markup.note(f"{MOST_ROUTES} of {labels.plural(len(matches), 'route')}."))


def _show_list(
    heading: str,
    note: str,
    rows: Sequence[markup.Row],
    empty_text: str,
    noun: str = "lines",
) -> None:
    """Shows a table of at most `MOST_TABLE_ROWS` rows.

    Args:
        noun: names the rows in the note about the rest.
    """
    st.html(markup.listing(heading, note, rows[:MOST_TABLE_ROWS], empty_text))
    if len(rows) > MOST_TABLE_ROWS:
        st.html(markup.note(f"{MOST_TABLE_ROWS} of {len(rows):,} {noun}."))


def _build_target_row(row: TargetTraffic) -> markup.Row:
    """Builds the row of a target, or of all targets of a provider."""
    _, _, model = row.target.partition("/")
    p95 = None if row.p95_ms is None else format_latency(row.p95_ms / 1000)
    return {
        "Provider": strong(row.provider),
        "Target": escape(model) if row.target else faint("all of its targets"),
        "Answered": labels.count(row.requests),
        "Failovers": strong(labels.count(row.left)) if row.left else faint("none"),
        "95 % within": escape(p95 or DASH),
        "Cost": escape(row.cost_text),
    }


def _render_share(
    count: int,
    share: float | None,
    tone: Tone,
) -> str:
    """Renders a count with its share of the requests."""
    if not count:
        return faint("none")
    # One element, because on a phone a cell shows its elements side by side.
    percent = faint(format_percent(share, significant=2))
    return f'<span><b class="{tone}">{count:,}</b> {percent}</span>'


def _build_reason_row(reason: FailoverReason, now: datetime) -> markup.Row:
    unanswered = reason.unanswered / reason.times
    routes = [markup.link("routes", escape(name), route=name) for name in reason.routes]
    return {
        "Model left": strong(reason.target),
        "Why": escape(failure_words(reason.failure)),
        "Times": labels.count(reason.times),
        "No fallback left": _render_share(reason.unanswered, unanswered, Tone.WORSE),
        "Routes": f"<span>{labels.few(routes, MOST_ROUTE_NAMES)}</span>",
        "Last": escape(labels.age(reason.last, now)),
    }


def _show_failovers(window: timedelta, route: str | None) -> str:
    """Shows the newest failovers and their export. Returns the caller's id that the visitor
    entered. Only visitors who may read content can search for a caller.
    """
    st.html(
        markup.section(
            "The newest failovers",
            "Swapproof keeps requests' sizes and kinds and hashes of callers, never content.",
        )
    )
    caller = ""
    if current_user.may_read_content():
        caller = st.text_input(
            "Failovers of one caller",
            key="user",
            placeholder="The caller's id as your application sends it, or its hash",
        ).strip()
    else:
        st.html(markup.note(f"To look for one caller: {current_user.SIGN_IN}"))
    # Read now, because Streamlit builds the download in a thread without the visitor's session.
    ctx = page_frame.context()
    secret = page_frame.installation().secret

    def load_page(request: PageRequest) -> Page[Failover]:
        return list_failovers(
            ctx,
            request,
            secret=secret,
            route=route,
            user=caller or None,
            since=window,
        )

    def read_failovers() -> Iterator[Failover]:
        return read_all(load_page)

    page = load_page(PageRequest(MOST_FAILOVERS))
    if not page:
        st.html(markup.note(f"No failover of {caller}." if caller else "No failover."))
        return caller
    st.html(markup.table(map(_build_failover_row, page), stacked=True))
    st.html(markup.note(f"{len(page)} of {labels.plural(page.total, 'failover')}."))
    page_frame.offer_csv("failovers", lambda: page_frame.build_frame(read_failovers()))
    return caller


def _build_failover_row(failover: Failover) -> markup.Row:
    """Builds a failover's row, without the request's content. A tooltip has the provider's
    message.
    """
    place = f"at {failover.place}" if failover.place else ""
    reason_html = escape(failure_words(failover.failure))
    if details := " ".join(filter(None, (str(failover.status or ""), failover.code, place))):
        reason_html += (
            f' <span class="note" title="{escape(failover.sentence)}">{escape(details)}</span>'
        )
    return {
        "When": rich(labels.date_time(failover.at, "%H:%M:%S")),
        "Route": escape(failover.route),
        "Model left": strong(failover.target),
        "Why": f"<span>{reason_html}</span>",
        "After": escape(format_milliseconds(failover.latency_ms)),
        "Next model": escape(failover.next_target or "none left"),
        "Caller": f'<span class="mono">{escape(failover.user or DASH)}</span>',
        "Shape": escape(failover.shape),
        "Request": f'<span class="mono">{escape(failover.request or DASH)}</span>',
    }


FAILED = "error to the caller"
LEFT = "own model failed"
PANEL_HEIGHTS_PX: Final = (130, 170)


def _draw(report: TrafficReport, palette: Palette) -> Sequence[alt.LayerChart]:
    """Draws the requests over time, and the shares of errors and failovers if there are any."""
    counts = []
    shares = []
    for point in report.course:
        start_ms = plots.to_ms(point.minute)
        end_ms = plots.to_ms(point.minute + report.step)
        request_count = labels.plural(point.requests, "request")
        time_text = labels.date_time(point.minute)
        tooltip = f"{time_text}: {request_count}"
        counts.append(
            {
                "at": start_ms,
                "until": end_ms,
                "requests": point.requests,
                "text": tooltip,
            }
        )
        for name, count in ((FAILED, point.failed), (LEFT, point.charged)):
            if count and point.requests:
                share = count / point.requests
                percent = format_percent(share, significant=2)
                share_tooltip = f"{time_text}: {name} in {percent} of {request_count}"
                middle_ms = (start_ms + end_ms) / 2
                shares.append(
                    {
                        "at": middle_ms,
                        "share": 100 * share,
                        "what": name,
                        "text": share_tooltip,
                    }
                )
    panels = [_draw_requests(report, pd.DataFrame(counts), palette, has_time_labels=not shares)]
    if shares:
        panels.append(_draw_shares(report, pd.DataFrame(shares), palette))
    return [
        plots.dressed(panel, palette, height)
        for panel, height in zip(panels, PANEL_HEIGHTS_PX, strict=False)
    ]


def _draw_requests(
    report: TrafficReport,
    counts: pd.DataFrame,
    palette: Palette,
    *,
    has_time_labels: bool,
) -> alt.LayerChart:
    axis = plots.narrow_axis("format(datum.value, ',')")
    bars = (
        alt.Chart(counts)
        .mark_rect(color=palette.neutral, opacity=0.75)
        .encode(
            x=_build_time_axis(report, has_labels=has_time_labels),
            x2="until:Q",
            y=alt.Y("requests:Q", title=None, axis=axis),
            y2=alt.datum(0),
            tooltip="text:N",
        )
    )
    minutes = report.step // timedelta(minutes=1)
    step_name = "minute" if minutes == 1 else labels.span(report.step.total_seconds())
    return plots.panel(f"Requests per {step_name}", palette, bars)


def _draw_shares(
    report: TrafficReport,
    shares: pd.DataFrame,
    palette: Palette,
) -> alt.LayerChart:
    top = min(100.0, max(1.0, 1.15 * float(shares["share"].max())))
    scale = alt.Scale(domain=[0, top], nice=False)
    legend = plots.top_legend()
    base = alt.Chart(shares).encode(
        x=_build_time_axis(report, has_labels=True),
        y=alt.Y(
            "share:Q",
            title=None,
            scale=scale,
            axis=plots.narrow_axis(),
        ),
        color=plots.named(
            alt.Color,
            "what:N",
            {FAILED: palette.worse, LEFT: palette.undecided},
            legend,
        ),
    )
    marks = {FAILED: "square", LEFT: "triangle-up"}
    points = base.mark_point(filled=True, size=34, opacity=0.9).encode(
        shape=plots.named(alt.Shape, "what:N", marks, legend),
        tooltip="text:N",
    )
    stems = base.mark_rule(strokeWidth=1.5, opacity=0.5)
    return plots.panel("Share of the requests", palette, stems, points)


def _build_time_axis(report: TrafficReport, *, has_labels: bool) -> alt.X:
    end = report.course[-1].minute + report.step
    return plots.time_axis(
        "at",
        report.course[0].minute,
        end,
        labels=has_labels,
        ticks=has_labels,
    )


if __name__ == "__main__":
    page_frame.show_page("The traffic", show)
