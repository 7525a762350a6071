"""The Canary page's section of shadows: which requests are mirrored to a candidate now, and
what was found? It shows every shadow that runs, with a proposal or without, refreshed every
2 s, then those that ended; it starts and stops them.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dashboard import current_user, page_frame
from dashboard.data import queries
from dashboard.dialog_forms import Field, Form, ask_fields, dialog, show_openers
from dashboard.text import html, labels, shadow_text
from dashboard.text.html import escape, strong
from harness.control.operations.queries import list_shadows
from harness.control.shadow import shadows
from harness.control.shadow.shadows import DEFAULT_LASTS, ShadowRequest, ShadowStatus
from harness.domain.operations.access import Role
from harness.domain.pagination import PageRequest
from harness.domain.shadow.shadow import MAX_AT_ONCE, MAX_PER_DAY, Shadow, ShadowLimits

MOST_ROWS: Final = 50
EVERY: Final = "2s"


def show(names: Sequence[str]) -> None:
    """Shows the section. names: of the routes."""
    ctx = page_frame.context()
    running = shadows.list_running(ctx)
    page = list_shadows(ctx, PageRequest(MOST_ROWS))
    heading = st.empty()
    heading.html(_heading(running))
    page_frame.show_html(html.invalid(page.invalid))
    show_openers([start.opener(names)])
    slots: dict[str, DeltaGenerator] = {}
    for status in running:
        # Its name keeps it from fading while it is read anew (styles.css).
        with st.container(key=f"live-{status.record.shadow.id}"):
            slots[status.record.shadow.id] = st.empty()
        show_openers([stop.opener(status.record.shadow)], explain=())
    ended = [status for status in page if status.record.shadow.id not in slots]
    if not running and not ended:
        page_frame.show_empty(
            "A shadow sends a share of a route's requests to a second model, too, and "
            "compares the answers. This starts one:",
            "swapgate shadow start ROUTE PROVIDER/MODEL --reason WHY",
        )
    if running:
        live(heading, slots)
    if ended:
        st.html(html.listing("Ended", "Newest first.", map(shadow_text.ended_cells, ended)))
    page_frame.show_rest(page, "shadows", "swapgate shadow list")


@st.fragment(run_every=EVERY)
def live(heading: DeltaGenerator, slots: Mapping[str, DeltaGenerator]) -> None:
    """Shows what refreshes by itself: the first line, and the figures of each shadow that runs.
    One that began or ended draws the page anew.

    slots: where each one's figures stand, by its id.
    """
    with current_user.live_part("The figures"):
        ctx = page_frame.context()
        now, running = ctx.clock.now(), shadows.list_running(ctx)
        if {status.record.shadow.id for status in running} != set(slots):
            st.rerun()
        heading.html(_heading(running))
        for status in running:
            with slots[status.record.shadow.id].container():
                for part in shadow_text.running_parts(status, now):
                    st.html(part)
        st.html(html.note(f"updated {labels.time_of_day(now)} UTC, every 2 s"))


def _heading(running: Sequence[ShadowStatus]) -> str:
    return html.block(f"<h2>Shadows</h2><p>{shadow_text.list_title(running)}</p>")


LASTS: Final[Mapping[str, timedelta]] = {
    "2 hours": timedelta(hours=2),
    "1 day": timedelta(days=1),
    "7 days": timedelta(days=7),
    "30 days": timedelta(days=30),
}
LIMITS: Final[Sequence[Sequence[Field]]] = (
    (
        Field("share_bps", "Share of the callers, in %", "share", 0.01, 100.0),
        Field("usd_per_day", "US dollars a day (empty: no limit)", "limit", 0.01),
    ),
    (
        Field("requests_per_day", "Requests a day", "number", 1, MAX_PER_DAY),
        Field("at_once", "At once, in each worker", "number", 1, MAX_AT_ONCE),
    ),
)
PRIVATE: Final = (
    "The candidate's provider gets what these callers write. Nobody gets the candidate's "
    "answers: they are compared, counted and forgotten."
)
NEEDS: Final = (
    "A proposer needs an open proposal of this candidate; without one, an approver starts it."
)


@dialog(
    "Start a shadow", Role.PROPOSER, "shadow", "filter_none",
    label="Start a shadow …", width="medium",
)  # fmt: skip
def start(form: Form, names: Sequence[str]) -> None:
    """Asks for route and candidate, how much is mirrored, for how long and why."""
    ctx = page_frame.context()
    route = form.choose("route", "Route", names)
    candidates = queries.candidates(ctx, route) if route else ()
    candidate = form.choose_or_type(f"candidate-{route}", "Candidate", candidates)
    form.need(route and candidate, "Choose route and candidate first.")
    limits = ShadowLimits(**ask_fields(LIMITS, ShadowLimits(), form.key))
    default = list(LASTS.values()).index(DEFAULT_LASTS)
    lasts = st.selectbox("How long", list(LASTS), index=default, key=form.key("lasts"))
    share = labels.weight(limits.share_bps)
    if route and candidate:
        form.say(
            f"Within 2 s, {escape(share)} of the callers of {strong(route)} are mirrored to "
            f"{strong(candidate)}; all of them go on getting the answers of "
            f"{strong(queries.incumbent_name(ctx, route))}.",
            PRIVATE,
            note=NEEDS,
        )
    wanted = ShadowRequest(route or "", candidate, limits, form.reason(), LASTS[lasts])
    mirrored = f"{share} of the callers of route {route} are mirrored to {candidate}."
    form.submit("Start it", f"started a shadow: {mirrored}", shadows.start_shadow, wanted)


@dialog("Stop the shadow", Role.PROPOSER, "shadow-stop", "stop", label="Stop it …")
def stop(form: Form, shadow: Shadow) -> None:
    waits = ""
    if shadow.proposal:
        waits = (
            f"Its proposal {strong(shadow.proposal)} waits until somebody starts a shadow "
            "again: its canary opens after enough compared pairs."
        )
    form.say(
        f"Within 2 s nothing of route {strong(shadow.route)} is mirrored to "
        f"{strong(shadow.candidate.name)} any more. What was counted stays.",
        waits,
    )
    done = f"stopped the shadow of route {shadow.route}."
    form.submit("Stop it", done, shadows.stop_shadow, shadow.route, reason=form.reason())
