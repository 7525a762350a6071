"""The Canary page answers: is the candidate hurting users now? It is refreshed every 2 s."""

from typing import Final

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dashboard import current_user, page_frame
from dashboard.charts import canary_timeline
from dashboard.data import queries
from dashboard.data.queries import CanaryView
from dashboard.dialog_forms import show_openers
from dashboard.dialogs import canary_controls, route_holds
from dashboard.sections import shadows
from dashboard.text import canary_text, html
from dashboard.text.html import strong
from harness.control.canary import holds
from harness.control.canary import status as canary_status
from harness.control.canary.status import CanaryStatus
from harness.control.context import Context
from harness.domain.canary.rollout import Rollout

MOST_KEPT: Final = 64
LASTS_S: Final = 2


def load(ctx: Context, route: str) -> CanaryView:
    """Loads what the page of a route's canary shows: its figures as of this second, and what
    was decided of it as it is. Raises NotFound.
    """
    second = int(ctx.clock.now().timestamp())
    return _read_once(ctx, route, _read_decided(ctx, route), second)


def _read_decided(ctx: Context, route: str) -> str:
    """Writes what was decided of a route's canary, which no visitor may see late."""
    with ctx.store.read() as tx:
        newest = next(iter(tx.rollouts.list(route=route, limit=1)), None)
        held = holds.list_hold_reasons(tx, newest) if newest else ()
        paused = holds.find_pause_reason(tx, newest) if newest else ""
    return repr((ctx.store.etag(), newest, held, paused))


@st.cache_resource(
    max_entries=MOST_KEPT,
    ttl=LASTS_S,
    show_spinner=False,
    # Of one database alone: its installation may be opened anew with another.
    hash_funcs={Context: lambda ctx: id(ctx.store)},
)
def _read_once(ctx: Context, route: str, decided: str, second: int) -> CanaryView:  # noqa: ARG001 - the key
    return queries.canary(ctx, route)


EVERY = "2s"


def show() -> None:
    with page_frame.loading("the canary"):
        ctx = page_frame.context()
        routes = queries.canary_routes(ctx)
    if not routes:
        st.html(html.title("There is no route yet, so no canary"))
        page_frame.show_no_route()
        return
    # State, next step and Abort come first; the choice of the route stands below them.
    top = st.container()
    route = page_frame.choose_route(routes)
    if route is None:
        return
    view = load(ctx, route)
    state = top.empty()
    with top:
        page_frame.show_done_message()
        page_frame.show_freezes(route)
    if view.status is None:
        state.html(html.title(f"No canary on {strong(route)}"))
        page_frame.show_empty(
            "This route has never had a canary. A canary opens when a proposal passes:",
            f"swapgate proposal create {route} PROVIDER/MODEL",
        )
    else:
        state.html(canary_text.headline(view, view.status))
        with top:
            canary_controls.show_controls(view.status)
            _lead_on(view.status.rollout)
        # Its name keeps it from fading while it is read anew (styles.css).
        rollout = view.status.rollout
        with st.container(key="live"):
            if rollout.live or rollout.baking:
                live(route, rollout.version, state)
            else:
                figures(view, view.status)
        # A new action redraws the page, by the new version.
        moves = canary_text.history_rows(rollout, canary_status.list_canary_moves(ctx, rollout))
        note = f"Rollout {rollout.id}. {canary_text.HISTORY_NOTE}"
        st.html(html.listing("What was done", note, moves, "Nothing since it started."))
    st.html(html.section("Kill switch", "It needs no canary: it forces one model or provider."))
    show_openers([route_holds.throw.opener(route)])
    shadows.show(routes)
    page_frame.copy_as_cli(["canary", "explain", route], ["shadow", "status"])


def _lead_on(rollout: Rollout) -> None:
    with st.container(horizontal=True):
        page_frame.link("compare", "Comparison", "balance", id=rollout.proposal)
        page_frame.link("routes", "Kill switch and history", "history", route=rollout.route)


@st.fragment(run_every=EVERY)
def live(route: str, version: int, state: DeltaGenerator) -> None:
    """Shows the part of a canary's page that refreshes by itself, and its state on top.

    version: of the rollout that the rest of the page shows. state: where the headline stands.
    """
    with current_user.live_part("The figures"):
        view = load(page_frame.context(), route)
        if view.status is None or view.status.rollout.version != version:
            st.rerun()
        state.html(canary_text.headline(view, view.status))
        figures(view, view.status)


def figures(view: CanaryView, status: CanaryStatus) -> None:
    # What needs a person is never greyed.
    stale = view.quiet_since is not None and canary_text.is_calm(status)
    st.html(html.steps(*canary_text.plan(status)))
    st.html(html.tiles(canary_text.tiles(view, status), stale=stale))
    if status.shared_key:
        st.html(html.note(status.shared_key))
    if status.accepted_cost:
        st.html(html.note(f"{status.accepted_cost.text}."))
    if status.callers:
        st.html(html.note(f"Callers: {status.callers}"))
    needs = canary_text.needs(status)
    if needs:
        st.html(html.section("Conditions for the next step") + html.checklist(needs))
    timeline(view, status)
    evidence(status, stale=stale)


def timeline(view: CanaryView, status: CanaryStatus) -> None:
    st.html(html.section("Timeline", canary_text.TIMELINE_NOTE))
    if not status.blocks:
        st.html(html.note("Nothing has been counted yet."))
        return
    found = canary_timeline.build_frames(status.rollout, status.timeline, view.now)
    panels = canary_timeline.draw(found, page_frame.palette())
    for number, panel in enumerate(panels):
        st.vega_lite_chart(panel, theme=None, width="stretch", key=f"timeline-{number}")


def evidence(status: CanaryStatus, *, stale: bool) -> None:
    st.html(
        html.section("Evidence of harm", canary_text.harm_line(status))
        + html.meter(
            "Evidence of harm",
            status.action.distance_to_trip,
            canary_text.harm_tone(status),
            furthest=canary_text.furthest(status),
        )
    )
    st.html(
        html.section("Guardrails", canary_text.GUARDRAILS_NOTE)
        + canary_text.guardrails(status, stale=stale)
        + html.note(canary_text.without_data(status))
        + html.note(f"This canary {status.explanation.judged_by}.")
    )


if __name__ == "__main__":
    page_frame.show_page("The canary", show)
