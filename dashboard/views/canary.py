"""Canary: is the candidate hurting users now?"""

import streamlit as st

from dashboard import (
    canary_controls,
    canary_moves,
    canary_stories,
    cards,
    charts,
    frames,
    queries,
    shadow_stories,
    shell,
    wording,
)
from dashboard.cards import esc, strong
from dashboard.queries import CanaryView
from harness.control.proposals import comparison
from harness.control.proposals.comparison import CanaryStatus
from harness.domain.canary.rollout import Rollout
from harness.domain.errors import SwapgateError

EVERY = "2s"


def show() -> None:
    with shell.loading("the canary"):
        ctx = shell.context()
        routes = queries.canary_routes(ctx)
    if not routes:
        st.html(cards.title("No route yet, so no canary"))
        st.html(cards.empty("A route comes first:", "swapgate init"))
        return
    # The page's first line is its answer; the choice of the route comes below it.
    top = st.container()
    route = st.selectbox("Route", routes, key="route", bind="query-params") or routes[0]
    view = queries.canary(ctx, route)
    if view.shadow is not None:
        top.html(cards.title(shadow_stories.answer(view.shadow), f"Route {strong(route)}"))
        shadow(route)
    elif view.status is None:
        top.html(cards.title(f"No canary on {strong(route)}"))
        st.html(
            cards.empty(
                "This route never had a canary. It gets one when a proposal has passed:",
                f"swapgate proposal create {route} PROVIDER/MODEL",
            )
        )
    else:
        with top:
            header(view, view.status)
        shell.say_what_was_done()
        canary_controls.controls(view.status)
        live(route, view.status.rollout.version)
        done(view.status.rollout)
    shell.copy_as_cli("canary", "explain", route)


def header(view: CanaryView, status: CanaryStatus) -> None:
    rollout = status.rollout
    st.html(
        cards.title(
            canary_stories.answer(status),
            f"Route {strong(rollout.route)} · {strong(status.candidate.name)} beside "
            f"{strong(status.incumbent.name)} · rollout {esc(rollout.id)} · started "
            f"{esc(wording.moment(rollout.started_at))}, "
            f"{esc(wording.age(rollout.started_at, view.now))}",
        )
    )
    st.html(cards.steps(*canary_stories.plan(rollout)))


def done(rollout: Rollout) -> None:
    """A new one makes a new version, and that draws the page anew."""
    moves = canary_moves.rows(rollout, comparison.moves(shell.context(), rollout))
    heading = cards.section("What was done", canary_moves.NOTE)
    if moves:
        st.html(heading + cards.table(canary_moves.HEADS, moves))
    else:
        st.html(heading + cards.note("Nothing yet since it began."))


@st.fragment(run_every=EVERY)
def shadow(route: str) -> None:
    """What comes before the canary; it changes by itself, into the canary in the end."""
    try:
        view = queries.canary(shell.context(), route)
    except SwapgateError as error:
        why = f"Trying again. {shell.ROUTER_SERVES}"
        st.html(cards.failure("The figures cannot be read now", str(error), why))
        return
    stage = view.shadow
    if stage is None:
        st.rerun()
    st.html(cards.verdict(shadow_stories.card(stage)))
    st.html(cards.tiles(shadow_stories.tiles(stage)))
    st.html(
        cards.section("Evidence that it is worse", shadow_stories.HARM_NOTE)
        + cards.meter(stage.decided.distance, shadow_stories.tone(stage))
    )
    rows = [[esc(cell) for cell in row] for row in shadow_stories.checks(stage)]
    if rows:
        note = "Requests by which side's answer held the check."
        st.html(cards.section("Pairs so far", note))
        st.html(cards.table(shadow_stories.CHECK_HEADS, rows))
    st.html(cards.note(f"updated {wording.clock(view.now)} UTC, every 2 s"))


@st.fragment(run_every=EVERY)
def live(route: str, version: int) -> None:
    """What changes by itself. version: of the rollout that the rest of the page shows."""
    try:
        view = queries.canary(shell.context(), route)
    except SwapgateError as error:
        st.html(
            cards.failure(
                "The figures cannot be read now",
                str(error),
                f"Trying again. {shell.ROUTER_SERVES}",
            )
        )
        return
    if view.status is None or view.status.rollout.version != version:
        st.rerun()
    status = view.status
    for why in status.held:
        st.html(cards.banner("HELD.", why.removeprefix("On hold: ")))
    stale = view.quiet_since is not None
    if view.quiet_since is not None:
        since = f"since {wording.moment(view.quiet_since)}"
        words = (
            f"No request was seen {since}. Look whether clients call the route and whether the "
            "router runs: `swapgate doctor`."
        )
        st.html(cards.banner("STALE.", words))
    st.html(cards.verdict(canary_stories.card(view, status), stale=stale))
    st.html(cards.tiles(canary_stories.tiles(view, status), stale=stale))
    st.html(cards.note(canary_stories.share_line(status)))
    needs = canary_stories.needs(status)
    if needs:
        st.html(cards.section("What it waits for") + cards.checklist(needs))
    st.html(
        cards.section("Evidence of harm", canary_stories.harm_line(status))
        + cards.meter(
            status.action.distance_to_trip,
            canary_stories.harm_tone(status),
            furthest=canary_stories.furthest(status),
        )
    )
    st.html(
        cards.section("Guardrails", canary_stories.GUARDRAILS_NOTE)
        + cards.measures(canary_stories.guardrails(status), stale=stale)
        + cards.note(canary_stories.without_data(status))
    )
    if status.blocks:
        note = "Counted by the arm that a caller was assigned to, whoever answered in the end."
        st.html(cards.section("Failures so far", note))
        figure = charts.failure_rates(frames.failure_rates(status.blocks), shell.palette())
        st.altair_chart(figure, theme=None, width="stretch")
    st.html(cards.note(f"updated {wording.clock(view.now)} UTC, every 2 s"))


shell.page("The canary", show)
