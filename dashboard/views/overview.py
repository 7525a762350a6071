"""The Overview page answers: does any route need me now? Open alerts, then a card per route
with state, last verdict, traffic of the last hour and links, the most urgent first; where there
are many routes, those that nobody waits for are lines of a table that can be searched.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import streamlit as st

from dashboard import page_frame
from dashboard.data import queries
from dashboard.text import alert_text, html, labels, overview_text, route_text
from harness.control.operations.alerts import AlertView
from harness.control.operations.queries import list_alerts
from harness.control.routing.break_glass import count_unconfirmed
from harness.control.routing.queries import (
    RouteOverview,
    load_overview,
    load_statuses,
)
from harness.control.routing.route_status import ALERTS_OF_STATES, RouteState, RouteStatus
from harness.domain.operations.alerts import Severity
from harness.domain.proposals.proposal import ProposalPhase

MOST_ALERTS: Final = 5
# With more routes than FEW_ROUTES, only those where something goes on are cards, MOST_CARDS at
# most; the others are lines of a table. With more than MOST_CARDS, only the urgent ones are.
FEW_ROUTES: Final = 6
MOST_CARDS: Final = 12
MOST_LINES: Final = 50


def show() -> None:
    with page_frame.loading("the routes"):
        ctx = page_frame.context()
        overview = load_overview(ctx)
        routes = queries.load_shown_routes(ctx, overview, MOST_CARDS)
        alarming = [
            alert
            for alert in list_alerts(ctx, open_only=True)
            if alert.kind not in ALERTS_OF_STATES
        ]
        alarming.sort(key=lambda alert: (-alert.severity, -alert.last_seen.timestamp()))
    waiting = count_unconfirmed(ctx)
    st.html(html.title(*overview_text.headline(overview, len(alarming), waiting)))
    if routes.invalid:
        st.html(html.invalid(routes.invalid))
    page_frame.show_done_message()
    _alerts(alarming, overview.at)
    page_frame.show_freezes()
    if isinstance(routes, queries.ManyRoutes):
        _many(overview, routes)
    elif routes:
        _few(routes, overview)
    else:
        st.html(
            html.empty(
                "There is no route yet. A route is the name that clients use as `model`; this "
                "asks for one and makes it, as First steps does:",
                "swapgate init --guided",
            )
        )
        st.page_link("views/first_start.py", label="First steps: make one here")
    page_frame.copy_as_cli("status")


def _few(statuses: Sequence[RouteStatus], overview: RouteOverview) -> None:
    """Shows routes as cards; of more than a few those that are steady are lines of a table."""
    few = len(statuses) <= FEW_ROUTES
    cards = [status for status in statuses if few or status.state is not RouteState.STEADY]
    _cards(cards, overview.at)
    lines = [status for status in statuses if status not in cards]
    _table(lines, overview, "All other routes" if cards else "All routes", len(lines))


def _many(overview: RouteOverview, routes: queries.ManyRoutes) -> None:
    """Shows the urgent routes as cards, and the first of the others in a table; of all, or of
    those that somebody searches.
    """
    found = _find(overview, routes)
    urgent = {status.route.name for status in overview.urgent}
    first = [name for name in found if name in urgent][:MOST_CARDS]
    others = [name for name in found if name not in first]
    ctx = page_frame.context()
    shown = load_statuses(ctx, overview, [*first, *others[:MOST_LINES]])
    if shown.invalid:  # of a verdict or a rollout: forged routes are not among those found
        st.html(html.invalid(shown.invalid))
    _cards([status for status in shown if status.route.name in first], overview.at)
    lines = [status for status in shown if status.route.name not in first]
    _table(lines, overview, "All other routes" if first else "All routes", len(others))
    if not found:
        st.html(html.note("No route has this in its name, its description or its model."))


def _table(
    lines: Sequence[RouteStatus], overview: RouteOverview, heading: str, found: int
) -> None:
    """found: how many there are of them."""
    if not lines:
        return
    of_all = f"{len(lines):,} of {len(overview.names):,}"
    more = found - len(lines)
    narrow = f" Search above to see the {more:,} others." if more else ""
    st.html(html.section(heading, f"{of_all}.{narrow}" if more else of_all))
    st.html(overview_text.table(lines, overview.at))


def _find(overview: RouteOverview, routes: queries.ManyRoutes) -> Sequence[str]:
    """Lists the routes that somebody looks for, by name, description or model."""
    wanted = st.text_input(
        "Find a route",
        key="find",
        bind="query-params",
        placeholder="Part of its name, description or model",
    )
    words = (wanted or "").casefold().split()
    return [
        name
        for name in overview.names
        if name in routes.texts and all(word in routes.texts[name] for word in words)
    ]


def _cards(statuses: Sequence[RouteStatus], now: datetime) -> None:
    ctx = page_frame.context()
    titles = queries.titles(ctx)
    lines: Mapping[str, str] = {
        name: route_text.score_line(scorecard, titles)
        for name, scorecard in queries.measured_of(ctx, statuses).items()
    }
    for status in statuses:
        figures = route_text.last_hour(status.traffic) + lines.get(status.route.name, "")
        with st.container(border=True):
            st.html(overview_text.card(status, now, figures))
            _links(status)


def _alerts(open_: Sequence[AlertView], now: datetime) -> None:
    for alert in open_[:MOST_ALERTS]:
        heading, text = labels.alert_banner(alert, now)
        critical = alert.severity is Severity.CRITICAL
        tone = labels.Tone.WORSE if critical else labels.Tone.UNDECIDED
        runbook = f"runbook#{alert.kind}"
        st.html(
            html.banner(
                heading, text, tone=tone, docs_page=runbook, docs_label=alert_text.STEPS
            )
        )
    if len(open_) > MOST_ALERTS:
        more = labels.plural(len(open_) - MOST_ALERTS, "more alert")
        st.html(html.banner(f"? {more}.", "Alerts and `swapgate alert list --open` have all."))
        st.page_link("views/alerts.py", label="All alerts", icon=":material/notifications:")


def _links(status: RouteStatus) -> None:
    with st.container(horizontal=True):
        proposal = status.open_proposal
        if proposal is not None and proposal.phase is ProposalPhase.AWAITING_APPROVAL:
            st.page_link(
                "views/proposals.py", label="Decide", icon=":material/gavel:",
                query_params={"state": "open"},
            )  # fmt: skip
        compared = proposal.id if proposal is not None else status.verdict_proposal
        if compared:
            st.page_link(
                "views/compare.py", label="Compare" if proposal else "Last comparison",
                icon=":material/balance:", query_params={"id": compared},
            )  # fmt: skip
        if status.last_rollout is not None:
            st.page_link(
                "views/canary.py", label="Canary", icon=":material/monitor_heart:",
                query_params={"route": status.route.name},
            )  # fmt: skip
        st.page_link(
            "views/routes.py", label="History", icon=":material/history:",
            query_params={"route": status.route.name},
        )  # fmt: skip


page_frame.show_page("The overview", show)
