"""The Shadows page answers: which requests are mirrored to a candidate now, and what was found?
It shows every shadow that runs, with a proposal or without, refreshed every 2 s, then those
that ended; it starts and stops them.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Final

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dashboard import current_user, page_frame
from dashboard.data import queries
from dashboard.dialogs import action_dialogs, shadow_dialogs
from dashboard.dialogs.action_dialogs import Opener
from dashboard.text import html, labels, shadow_text
from dashboard.text.html import escape
from harness.control.operations.queries import list_shadows
from harness.control.shadow import shadows
from harness.control.shadow.shadows import ShadowStatus
from harness.domain.errors import SwapgateError
from harness.domain.operations.access import Role
from harness.domain.pagination import PageRequest

MOST_ROWS: Final = 50
EVERY: Final = "2s"


def show() -> None:
    with page_frame.loading("the shadows"):
        ctx = page_frame.context()
        names, now = queries.route_names(ctx), ctx.clock.now()
        running = shadows.list_running(ctx)
        page = list_shadows(ctx, PageRequest(MOST_ROWS))
    heading = st.empty()
    heading.html(_heading(running, now))
    if page.invalid:
        st.html(html.invalid(page.invalid))
    page_frame.show_done_message()
    start = Opener(
        "Start a shadow …",
        ":material/filter_none:",
        partial(shadow_dialogs.start, names),
        "start-shadow",
        Role.PROPOSER,
        "" if names else "There is no route yet: First steps makes one.",
    )
    action_dialogs.show_openers([start])
    slots: dict[str, DeltaGenerator] = {}
    for status in running:
        route = status.record.shadow.route
        # Its name keeps it from fading while it is read anew (styles.css).
        with st.container(key=f"live-{status.record.shadow.id}"):
            slots[status.record.shadow.id] = st.empty()
        stop = partial(shadow_dialogs.stop, status.record.shadow)
        action_dialogs.show_openers(
            [Opener("Stop it …", ":material/stop:", stop, f"stop-{route}", Role.PROPOSER)],
            explain=(),
        )
    ended = [status for status in page if status.record.shadow.id not in slots]
    if not running and not ended:
        st.html(
            html.empty(
                "A shadow sends a share of a route's requests to a second model, too, and "
                "compares the answers. This starts one:",
                "swapgate shadow start ROUTE PROVIDER/MODEL --reason WHY",
            )
        )
    if running:
        live(heading, slots)
    if ended:
        rows = map(shadow_text.ended_cells, ended)
        st.html(
            html.section("Ended", "Newest first.")
            + html.table(shadow_text.ENDED_HEADS, rows, stacked=True)
        )
    if page.next is not None:
        said = f"{len(page):,} of {page.total:,} shadows; `swapgate shadow list` has all."
        st.html(html.note(said))
    page_frame.copy_as_cli("shadow", "status")


@st.fragment(run_every=EVERY)
def live(heading: DeltaGenerator, slots: Mapping[str, DeltaGenerator]) -> None:
    """Shows the part of the page that refreshes by itself: its first line, and the figures of
    each shadow that runs. One that began or ended draws the page anew.

    slots: where each one's figures stand, by its id.
    """
    current_user.require_reader()
    try:
        ctx = page_frame.context()
        now, running = ctx.clock.now(), shadows.list_running(ctx)
    except SwapgateError as error:
        why = f"Trying again. {page_frame.ROUTER_SERVES}"
        st.html(html.failure("The figures cannot be read at the moment", str(error), why))
        return
    if {status.record.shadow.id for status in running} != set(slots):
        st.rerun()
    heading.html(_heading(running, now))
    for status in running:
        with slots[status.record.shadow.id].container():
            for part in shadow_text.running_parts(status, now):
                st.html(part)
    st.html(html.note(f"updated {labels.time_of_day(now)} UTC, every 2 s"))


def _heading(running: Sequence[ShadowStatus], now: datetime) -> str:
    return html.title(shadow_text.list_title(running), escape(labels.date_time(now)))


page_frame.show_page("The shadows", show)
