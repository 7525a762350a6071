"""The Captures page answers: which requests of users are kept, and until when? It lists them
without their content, shows one with it, exports and deletes them, and deletes all that a user
said and got.
"""

from functools import partial
from typing import Final

import streamlit as st

from dashboard import page_frame
from dashboard.data import queries
from dashboard.dialogs import action_dialogs, content_dialogs
from dashboard.dialogs.action_dialogs import Opener
from dashboard.text import html, labels
from dashboard.text.html import escape, strong
from harness.control.operations.queries import list_captures
from harness.control.privacy.captures import CaptureSummary
from harness.domain.operations.access import Role
from harness.domain.pagination import PageRequest

MOST_ROWS: Final = 50
HEADS: Final = ("Captured", "Route", "Model", "Messages", "Redacted", "Asked", "Kept until")
NOTHING: Final = "Nothing is captured yet."


def show() -> None:
    with page_frame.loading("the captured requests"):
        ctx = page_frame.context()
        names = queries.route_names(ctx)
        page = list_captures(ctx, PageRequest(MOST_ROWS))
    count = labels.plural(page.total or 0, "request")
    heading = f"{strong(count)} of users kept, redacted" if page.total else "No request is kept"
    st.html(html.title(heading, escape(labels.date_time(ctx.clock.now()))))
    if page.invalid:
        st.html(html.invalid(page.invalid))
    page_frame.show_done_message()
    missing = "" if page.total else NOTHING
    dialogs = content_dialogs
    openers = [
        Opener(
            "Show one …",
            ":material/visibility:",
            partial(dialogs.show_one, [row.id for row in page]),
            "read-capture",
            Role.APPROVER,
            missing,
        ),
        Opener(
            "Export …",
            ":material/download:",
            partial(dialogs.export, names),
            "export-captures",
            Role.APPROVER,
            missing,
        ),
        Opener(
            "Delete some …",
            ":material/delete:",
            partial(dialogs.purge, names),
            "purge-captures",
            missing=missing,
        ),
        Opener(
            "Delete a user's content …",
            ":material/person_remove:",
            dialogs.delete_user,
            "delete-user-content",
        ),
    ]
    action_dialogs.show_openers(openers)
    if page.items:
        st.html(html.table(HEADS, [_cells(row) for row in page], stacked=True))
    else:
        st.html(
            html.empty(
                "A route keeps none of its requests until its settings say what share. This "
                "sets it:",
                "swapgate route settings ROUTE --capture 1%",
            )
        )
    if page.next is not None:
        said = (
            f"{len(page):,} of {page.total:,}, newest first; `swapgate capture list` has all."
        )
        st.html(html.note(said))
    page_frame.copy_as_cli("capture", "list")


def _cells(row: CaptureSummary) -> tuple[str, ...]:
    redacted = ", ".join(f"{name} {count}" for name, count in row.redactions.items())
    tools = f", {labels.plural(row.tools, 'tool')}" if row.tools else ""
    return (
        f'{escape(labels.date_time(row.at))}<br><span class="note">{escape(row.id)}</span>',
        strong(row.route),
        escape(row.target),
        escape(f"{row.messages:,}{tools}"),
        escape(redacted or "nothing"),
        escape("once" if row.seen <= 1 else f"{row.seen:,} times"),
        escape(labels.date_time(row.expires_at)),
    )


page_frame.show_page("The captured requests", show)
