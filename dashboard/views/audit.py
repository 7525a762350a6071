"""The Audit page answers: who changed what, and is the log intact? A check of the whole chain,
the events by who, what, about and time, and their export.
"""

from datetime import UTC, date, datetime, time, timedelta
from typing import Final

import pandas as pd
import streamlit as st

from dashboard import current_user, downloads, page_frame
from dashboard.text import audit_text, html, labels
from dashboard.text.audit_text import FullCheck
from harness.control.context import Context
from harness.control.operations import audit_export, queries
from harness.domain.operations.access import Actor
from harness.domain.operations.audit import ALL_EVENTS, AuditEvent, AuditFilter
from harness.domain.pagination import Page, PageRequest

MOST_EVENTS: Final = 40
CHECKED: Final = "audit-check"
FIELDS: Final = {
    "actor": ("Who", "Part of a name, or a key's id"),
    "action": ("Did what", "Such as proposal.approve"),
    "subject": ("To what", "Such as a route's name"),
}


def show() -> None:
    with page_frame.loading("the audit log"):
        ctx = page_frame.context()
        total = queries.list_audit_events(ctx, PageRequest(1)).total
        broken = page_frame.first_break()
    # The page's first line is its answer; the filter comes below it.
    top = st.container()
    _check()
    now = ctx.clock.now()
    selection = _choices() if total else ALL_EVENTS
    request = PageRequest(MOST_EVENTS, st.query_params.get("after"))
    page = queries.list_audit_events(ctx, request, selection, reader=current_user.signed_in())
    matching = page.total if selection != ALL_EVENTS else None
    heading = audit_text.headline(total, broken, matching)
    with top:
        st.html(
            html.title(heading, html.escape(f"{audit_text.CHECKED} · {labels.date_time(now)}"))
        )
    if total:
        _events(page, selection, now)
    else:
        st.html(
            html.empty(
                "Every change that a person or Swapgate makes is kept here. The first one is:",
                "swapgate init",
            )
        )
    page_frame.copy_as_cli("audit", "tail", "-n", str(MOST_EVENTS), *_options(selection))


def _check() -> None:
    """Offers to check all of it now, with the signatures of every row."""
    if st.button("Check everything now", icon=":material/verified:"):
        ctx = page_frame.context()
        with st.spinner("Checking every event and every signed row …"):
            st.session_state[CHECKED] = FullCheck(
                ctx.clock.now(),
                queries.find_audit_break(ctx),
                queries.list_signature_faults(ctx),
            )
    if CHECKED in st.session_state:
        st.html(audit_text.check_result(st.session_state[CHECKED]))


def _choices() -> AuditFilter:
    """Asks for the filter, which stands in the page's address."""
    texts = {}
    asked = any(st.query_params.get(name) for name in (*FIELDS, "since", "until"))
    with st.expander(
        "Filter by who, what and when", icon=":material/filter_alt:", expanded=asked
    ):
        columns = st.columns([2, 2, 2, 1.3, 1.3])
        for column, (name, (label, example)) in zip(columns, FIELDS.items(), strict=False):
            with column:
                text = st.text_input(
                    label,
                    key=name,
                    bind="query-params",
                    placeholder=example,
                    on_change=page_frame.show_first_page,
                )
                texts[name] = (text or "").strip()
        with columns[3]:
            first = _ask_day("From, UTC", "since")
        with columns[4]:
            last = _ask_day("To, UTC", "until")
    begin, end = _midnight(first), _midnight(last)
    return AuditFilter(
        **texts, since=begin, until=end + timedelta(days=1) if end is not None else None
    )


def _ask_day(label: str, key: str) -> date | None:
    day = st.date_input(
        label,
        None,
        key=key,
        bind="query-params",
        format="YYYY-MM-DD",
        on_change=page_frame.show_first_page,
    )
    return day if isinstance(day, date) else None


def _midnight(day: date | None) -> datetime | None:
    return None if day is None else datetime.combine(day, time(), UTC)


def _events(page: Page[AuditEvent], selection: AuditFilter, now: datetime) -> None:
    if not page:
        st.html(html.note("No event has all of this. Shorten or empty a field above."))
        return
    st.html(audit_text.table(page.items, now))
    chosen = {k: v for k, v in st.query_params.to_dict().items() if k != "after"}
    if "after" in st.query_params:
        st.html(html.block(html.link("audit", "Newest events", **chosen)))
    if page.next is not None:
        st.html(html.block(html.link("audit", "Older events", after=page.next, **chosen)))
    st.html(html.section("Export", "The selected events, with the chain's signatures."))
    # The download is read in a thread that knows no visitor.
    ctx, reader = page_frame.context(), current_user.signed_in()
    downloads.offer("audit", lambda: _frame(ctx, reader, selection))


def _frame(ctx: Context, reader: Actor | None, selection: AuditFilter) -> pd.DataFrame:
    events = queries.read_audit_events(ctx, selection, reader=reader)
    rows = [audit_export.event_row(event) for event in events]
    return pd.DataFrame(rows, columns=list(audit_export.COLUMNS))


def _options(selection: AuditFilter) -> list[str]:
    """Writes the filter as the command's options."""
    options = []
    for name in FIELDS:
        if text := getattr(selection, name):
            options += [f"--{name}", text]
    for name in ("since", "until"):
        if at := getattr(selection, name):
            options += [f"--{name}", f"{at:%Y-%m-%d}"]
    return options


page_frame.show_page("The audit log", show)
