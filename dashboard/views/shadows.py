"""The Shadows page answers: which requests are mirrored to a candidate now, and what was found?
It shows every shadow that runs, with a proposal or without, then those that ended; it starts
and stops them.
"""

from functools import partial
from typing import Final

import streamlit as st

from dashboard import page_frame
from dashboard.data import queries
from dashboard.dialogs import action_dialogs, shadow_dialogs
from dashboard.dialogs.action_dialogs import Opener
from dashboard.text import html, labels, shadow_list_text
from dashboard.text.html import escape
from harness.control.operations.queries import list_shadows
from harness.control.shadow import shadows
from harness.domain.operations.access import Role
from harness.domain.pagination import PageRequest

MOST_ROWS: Final = 50


def show() -> None:
    with page_frame.loading("the shadows"):
        ctx = page_frame.context()
        names, now = queries.route_names(ctx), ctx.clock.now()
        running = shadows.list_running(ctx)
        page = list_shadows(ctx, PageRequest(MOST_ROWS))
    st.html(html.title(shadow_list_text.title(running), escape(labels.date_time(now))))
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
    for status in running:
        route = status.record.shadow.route
        for part in shadow_list_text.running_parts(status, now):
            st.html(part)
        stop = partial(shadow_dialogs.stop, status.record.shadow)
        action_dialogs.show_openers(
            [Opener("Stop it …", ":material/stop:", stop, f"stop-{route}", Role.PROPOSER)],
            explain=(),
        )
    live = {status.record.shadow.id for status in running}
    ended = [status for status in page if status.record.shadow.id not in live]
    if not running and not ended:
        st.html(
            html.empty(
                "A shadow sends a share of a route's requests to a second model, too, and "
                "compares the answers. This starts one:",
                "swapgate shadow start ROUTE PROVIDER/MODEL --reason WHY",
            )
        )
    if ended:
        rows = map(shadow_list_text.ended_cells, ended)
        st.html(
            html.section("Ended", "Newest first.")
            + html.table(shadow_list_text.ENDED_HEADS, rows, stacked=True)
        )
    if page.next is not None:
        said = f"{len(page):,} of {page.total:,} shadows; `swapgate shadow list` has all."
        st.html(html.note(said))
    page_frame.copy_as_cli("shadow", "status")


page_frame.show_page("The shadows", show)
