"""The Canary page answers: is the candidate hurting users now? For one route it shows the
canary, or the shadow before it, refreshed every 2 s, and below it what was done to the canary.
"""

import streamlit as st

from dashboard import canary_controls, page_frame
from dashboard.charts import plots
from dashboard.data import frames, queries
from dashboard.data.queries import CanaryView
from dashboard.text import canary_text, html, labels, shadow_text
from dashboard.text.html import escape, strong
from harness.control.canary import status as canary_status
from harness.control.canary.status import CanaryStatus
from harness.domain.canary.rollout import Rollout
from harness.domain.errors import SwapgateError

EVERY = "2s"


def show() -> None:
    with page_frame.loading("the canary"):
        ctx = page_frame.context()
        routes = queries.canary_routes(ctx)
    if not routes:
        st.html(html.title("There is no route yet, so no canary"))
        st.html(html.empty("This writes a configuration with a route:", "swapgate init"))
        return
    # The page's first line is its answer; the choice of the route comes below it.
    top = st.container()
    route = st.selectbox("Route", routes, key="route", bind="query-params") or routes[0]
    view = queries.canary(ctx, route)
    if view.shadow is not None:
        top.html(html.title(shadow_text.title(view.shadow), f"Route {strong(route)}"))
        shadow(route)
    elif view.status is None:
        top.html(html.title(f"No canary on {strong(route)}"))
        st.html(
            html.empty(
                "This route has never had a canary. A canary opens when a proposal passes:",
                f"swapgate proposal create {route} PROVIDER/MODEL",
            )
        )
    else:
        with top:
            header(view, view.status)
        page_frame.show_done_message()
        canary_controls.show_controls(view.status)
        live(route, view.status.rollout.version)
        done(view.status.rollout)
    page_frame.copy_as_cli("canary", "explain", route)


def header(view: CanaryView, status: CanaryStatus) -> None:
    rollout = status.rollout
    st.html(
        html.title(
            canary_text.title(status),
            f"Route {strong(rollout.route)} · {strong(status.candidate.name)} beside "
            f"{strong(status.incumbent.name)} · rollout {escape(rollout.id)} · started "
            f"{escape(labels.date_time(rollout.started_at))}, "
            f"{escape(labels.age(rollout.started_at, view.now))}",
        )
    )
    st.html(html.steps(*canary_text.plan(rollout)))


def done(rollout: Rollout) -> None:
    """Show what was done to the canary. A new action redraws the page, by the new version."""
    moves = canary_text.history_rows(
        rollout, canary_status.list_canary_moves(page_frame.context(), rollout)
    )
    heading = html.section("What was done", canary_text.HISTORY_NOTE)
    if moves:
        st.html(heading + html.table(canary_text.HISTORY_HEADS, moves))
    else:
        st.html(heading + html.note("Nothing since it started."))


@st.fragment(run_every=EVERY)
def shadow(route: str) -> None:
    """Shows the shadow before the canary; the page refreshes itself until the canary opens."""
    try:
        view = queries.canary(page_frame.context(), route)
    except SwapgateError as error:
        why = f"Trying again. {page_frame.ROUTER_SERVES}"
        st.html(html.failure("The figures cannot be read at the moment", str(error), why))
        return
    stage = view.shadow
    if stage is None:
        st.rerun()
    st.html(html.verdict(shadow_text.verdict_card(stage)))
    st.html(html.tiles(shadow_text.tiles(stage)))
    st.html(
        html.section("Evidence that it is worse", shadow_text.HARM_NOTE)
        + html.meter(stage.decided.distance, shadow_text.tone(stage))
    )
    rows = [[escape(cell) for cell in row] for row in shadow_text.checks(stage)]
    if rows:
        note = "Requests, counted by which model's answer passed the check."
        st.html(html.section("Pairs so far", note))
        st.html(html.table(shadow_text.CHECK_HEADS, rows))
    st.html(html.note(f"updated {labels.time_of_day(view.now)} UTC, every 2 s"))


@st.fragment(run_every=EVERY)
def live(route: str, version: int) -> None:
    """Shows the part of a canary's page that refreshes by itself.

    version: of the rollout that the rest of the page shows.
    """
    try:
        view = queries.canary(page_frame.context(), route)
    except SwapgateError as error:
        st.html(
            html.failure(
                "The figures cannot be read at the moment",
                str(error),
                f"Trying again. {page_frame.ROUTER_SERVES}",
            )
        )
        return
    if view.status is None or view.status.rollout.version != version:
        st.rerun()
    status = view.status
    for why in status.hold_reasons:
        st.html(html.banner("HELD.", why.removeprefix("On hold: ")))
    stale = view.quiet_since is not None
    if view.quiet_since is not None:
        since = f"since {labels.date_time(view.quiet_since)}"
        words = (
            f"No request has arrived {since}. Check that clients call the route and that the "
            "router runs: swapgate doctor."
        )
        st.html(html.banner("STALE.", words))
    st.html(html.verdict(canary_text.verdict_card(view, status), stale=stale))
    st.html(html.tiles(canary_text.tiles(view, status), stale=stale))
    st.html(html.note(canary_text.share_line(status)))
    needs = canary_text.needs(status)
    if needs:
        st.html(html.section("Conditions for the next step") + html.checklist(needs))
    st.html(
        html.section("Evidence of harm", canary_text.harm_line(status))
        + html.meter(
            status.action.distance_to_trip,
            canary_text.harm_tone(status),
            furthest=canary_text.furthest(status),
        )
    )
    st.html(
        html.section("Guardrails", canary_text.GUARDRAILS_NOTE)
        + html.measures(canary_text.guardrails(status), stale=stale)
        + html.note(canary_text.without_data(status))
        + html.note(canary_text.rules_line(status))
    )
    if status.blocks:
        note = "Counted by the arm that a caller was assigned to, even if a fallback answered."
        st.html(html.section("Failures so far", note))
        figure = plots.failure_rates(frames.failure_rates(status.blocks), page_frame.palette())
        st.altair_chart(figure, theme=None, width="stretch")
    st.html(html.note(f"updated {labels.time_of_day(view.now)} UTC, every 2 s"))


page_frame.show_page("The canary", show)
