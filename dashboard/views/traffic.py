"""The Traffic & failovers page answers: do callers get answers, and which models were left, and
why? Figures of a window, its course over time, the routes, and the failovers with a search by
user.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

import streamlit as st

from dashboard import current_user, downloads, page_frame
from dashboard.charts import traffic_course
from dashboard.data import queries
from dashboard.text import html, labels, traffic_text
from harness.control.context import Context
from harness.control.operations.queries import count_failovers, list_failovers
from harness.control.routing.traffic_report import (
    RouteTraffic,
    TrafficReport,
    load_traffic_report,
    name_period,
)
from harness.domain.pagination import Page, PageRequest, read_all
from harness.domain.reliability.failover import Failover, FailoverReason

ALL: Final = "all routes"
MOST_ROUTES: Final = 25
MOST_REASONS: Final = 15
MOST_UNROUTED: Final = 15
MOST_FAILOVERS: Final = 20


def show() -> None:
    with page_frame.loading("the traffic"):
        ctx = page_frame.context()
        names = queries.route_names(ctx)
    # The page's first line is its answer; the choices come below it.
    top = st.container()
    chosen, route = _choices(names)
    window = traffic_text.WINDOWS[chosen]
    period = name_period(window)
    report = load_traffic_report(ctx, window, route)
    with top:
        st.html(html.title(*traffic_text.headline(report, period, route)))
    command = ["route", "traffic", *([route] if route else []), "--since", _since(window)]
    if report.last_request is None:
        page_frame.show_empty(
            "No request has been recorded in 30 days. This sends some through the router:",
            "swapgate sim traffic",
        )
        _unrouted(report)
        page_frame.copy_as_cli(command)
        return
    page_frame.show_html(traffic_text.stale(report))
    reasons = count_failovers(ctx, report.since, route)
    st.html(traffic_text.tiles(report, reasons))
    for chart in traffic_course.draw(report, page_frame.palette()):
        st.altair_chart(chart, width="stretch", theme=None)
    if route is None:
        _routes(report.routes)
        _unrouted(report)
    _reasons(reasons, report.now, period)
    user = _failovers(window, route)
    if user:
        of_route = ("--route", route) if route else ()
        command = ["route", "failovers", "--since", _since(window), *of_route, "--user", user]
    page_frame.copy_as_cli(command)


def _since(window: timedelta) -> str:
    hours = int(window.total_seconds() // 3600)
    return f"{hours}h" if hours < 24 else f"{hours // 24}d"


def _choices(names: Sequence[str]) -> tuple[str, str | None]:
    """Asks for the window, and for one route or all."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.segmented_control(
            "Window",
            list(traffic_text.WINDOWS),
            default="24h",
            required=True,
            key="window",
            bind="query-params",
        )
        route = st.selectbox("Route", [ALL, *names], key="route", bind="query-params")
    asked = st.query_params.get("route", ALL)
    if asked not in (ALL, *names):
        st.html(html.banner("?", f"There is no route {asked}; these are all routes."))
    if route in (None, ALL):
        return chosen or "24h", None
    return chosen or "24h", route


def _routes(routes: Sequence[RouteTraffic]) -> None:
    st.html(html.section("Routes", "Those with most errors first."))
    found = routes
    if len(routes) > MOST_ROUTES:
        wanted = page_frame.search("Find a route", "Part of its name")
        found = [route for route in routes if wanted(route.route)]
    rows = map(traffic_text.route_cells, found[:MOST_ROUTES])
    nothing = html.note("No route with traffic has this in its name.")
    st.html(html.table(rows, stacked=True) or nothing)
    if len(found) > MOST_ROUTES:
        st.html(html.note(f"{MOST_ROUTES} of {labels.plural(len(found), 'route')}."))


def _unrouted(report: TrafficReport) -> None:
    """Shows what clients asked for in vain; nothing where all found a route."""
    if not report.unrouted:
        return
    note = (
        f"Since {report.since.day} {report.since:%B} (UTC), by the model that clients named. "
        "An alias in `router.aliases` sends such a name to a route."
    )
    rows = map(traffic_text.unrouted_cells, report.unrouted[:MOST_UNROUTED])
    st.html(html.listing("Requests for no route", note, rows))
    if len(report.unrouted) > MOST_UNROUTED:
        st.html(html.note(f"The {MOST_UNROUTED} most frequent of {len(report.unrouted):,}."))


def _reasons(reasons: Sequence[FailoverReason], now: datetime, period: str) -> None:
    heading, note = "Models that were left, and why", f"Failovers in {period}, by model."
    rows = [traffic_text.reason_cells(reason, now) for reason in reasons[:MOST_REASONS]]
    st.html(html.listing(heading, note, rows, "No request left its first model."))
    if len(reasons) > MOST_REASONS:
        st.html(html.note(f"The {MOST_REASONS} most frequent of {len(reasons):,}."))


def _failovers(window: timedelta, route: str | None) -> str:
    """Shows the newest failovers; returns the user whose they are, empty for all."""
    st.html(
        html.section(
            "The newest failovers",
            "Sizes and kinds of the requests are kept, never their content; users as hashes.",
        )
    )
    user = ""
    if current_user.may_read_content():
        user = st.text_input(
            "Only one user's",
            key="user",
            placeholder="The user's id as your application sends it",
        ).strip()
    else:
        st.html(html.note(f"To look for one user: {current_user.SIGN_IN}"))
    # The download is read in a thread that knows no visitor.
    ctx = page_frame.context()
    page = _load(ctx, PageRequest(MOST_FAILOVERS), window, route, user)
    if not page:
        nobody = f"No request of {user} left its first model." if user else "None."
        st.html(html.note(nobody))
        return user
    st.html(traffic_text.failover_table(page.items))
    st.html(html.note(f"{len(page)} of {labels.plural(page.total, 'failover')}."))

    def read() -> Iterator[Failover]:
        return read_all(lambda part: _load(ctx, part, window, route, user))

    downloads.offer("failovers", lambda: downloads.frame_of(read()))
    return user


def _load(
    ctx: Context, part: PageRequest, window: timedelta, route: str | None, user: str
) -> Page[Failover]:
    return list_failovers(
        ctx,
        part,
        secret=page_frame.installation().secret,
        route=route,
        user=user or None,
        since=window,
    )


if __name__ == "__main__":
    page_frame.show_page("The traffic", show)
