"""The Audit page lists the changes and their authors, and answers: is the log intact?

Only an admin sees people's identities at the identity provider: the use case hides them from
other readers. The page only filters and shows.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

import pandas as pd
import streamlit as st

from dashboard import current_user, labels, markup, page_frame
from dashboard.markup import escape, noted, rich, strong
from dashboard.resource_page import ResourceList, ResourcePage
from harness.frame.pagination import Page, PageRequest
from harness.frame.plain_data import to_shown
from harness.frame.signing.audit import ALL_EVENTS, AuditEvent, AuditFilter
from harness.frame.signing.audit_sentences import INSTALLATION, split_phrase
from harness.operations import integrity, queries
from harness.operations.context import Context

MOST_EVENTS: Final = 40
FIELDS: Final = {
    "actor": ("Who", "Part of a name, or a key's id"),
    "action": ("Did what", "Such as proposal.approve"),
    "subject": ("To what", "Such as a route's name"),
}


@dataclass(frozen=True, slots=True)
class AuditView:
    """The page's data. events: a page of the selected events, the newest first."""

    events: Page[AuditEvent]
    total: int  # number of events of the whole log
    broken: int | None  # the event at which the chain breaks; None if it is intact
    selection: AuditFilter
    now: datetime


def load(ctx: Context, selection: AuditFilter) -> AuditView:
    """Loads a page of the selected events. Only an admin gets identities of single sign-on."""
    request = PageRequest(MOST_EVENTS, st.query_params.get("after"))
    events = queries.list_audit_events(ctx, request, selection, reader=current_user.signed_in())
    return AuditView(
        events,
        queries.list_audit_events(ctx, PageRequest(1)).total,
        page_frame.first_break(),
        selection,
        ctx.clock.now(),
    )


def ask() -> AuditFilter:
    """Asks for the filters, which the page's address keeps. An empty log has no filters."""
    if not queries.list_audit_events(page_frame.context(), PageRequest(1)).total:
        return ALL_EVENTS
    texts = {}
    has_filter = any(st.query_params.get(name) for name in (*FIELDS, "since", "until"))
    with st.expander(
        "Filter by who, what and when",
        icon=":material/filter_alt:",
        expanded=has_filter,
    ):
        columns = st.columns([2, 2, 2, 1.3, 1.3])
        for column, (name, (label, example)) in zip(columns, FIELDS.items(), strict=False):
            with column:
                texts[name] = page_frame.ask_filter(label, name, example)
        with columns[3]:
            since = _ask_day("From, UTC", "since")
        with columns[4]:
            last_day = _ask_day("To, UTC", "until")
    return AuditFilter(**texts, since=since, until=last_day and last_day + timedelta(days=1))


def _ask_day(label: str, key: str) -> datetime | None:
    day = st.date_input(
        label,
        None,
        key=key,
        bind="query-params",
        format="YYYY-MM-DD",
        on_change=page_frame.show_first_page,
    )
    return datetime.combine(day, time(), UTC) if isinstance(day, date) else None


def _show_export(view: AuditView) -> None:
    """Offers all selected events as CSV."""
    if not view.events:
        return
    st.html(markup.section("Export", "The selected events, with the chain's signatures."))
    # Read now, because Streamlit builds the download in a thread without the visitor's session.
    ctx = page_frame.context()
    reader = current_user.signed_in()

    def load_frame() -> pd.DataFrame:
        events = queries.read_audit_events(ctx, view.selection, reader=reader)
        rows = [integrity.event_row(event) for event in events]
        return pd.DataFrame(rows, columns=list(integrity.CSV_COLUMNS))

    page_frame.offer_csv("audit", load_frame)


def _explain_empty_page(view: AuditView) -> None:
    """Explains a page without events."""
    if view.events:
        return
    if view.total:
        st.html(markup.note("No event matches all fields. Shorten or clear a field above."))
    else:
        page_frame.show_empty(
            "The log keeps all changes by people and by Swapproof. The first change:",
            "swapproof init",
        )


def _list_options(selection: AuditFilter) -> list[str]:
    """Returns the filters as options of `swapproof audit tail`."""
    options = []
    for name in FIELDS:
        if value := getattr(selection, name):
            options += [f"--{name}", value]
    for name in ("since", "until"):
        if day := getattr(selection, name):
            options += [f"--{name}", f"{day:%Y-%m-%d}"]
    return options


CHAIN_NOTE: Final = "Swapproof checks the chain of events every minute"


def _write_headline(view: AuditView) -> str:
    """Answers whether the log is intact, and counts the events that match the filter."""
    total = view.total
    if view.broken is not None:
        return f"The audit log is {strong(f'broken at event {view.broken:,}')}"
    if not total:
        return "The audit log is empty: there was no change yet"
    if view.selection != ALL_EVENTS:
        match_count = f"{view.events.total:,} of {labels.plural(total, 'event')} match"
        return f"The audit log is {strong('intact')}; {strong(match_count)}"
    return f"The audit log is {strong('intact')}: {labels.plural(total, 'event')}"


def _build_row(view: AuditView, event: AuditEvent) -> markup.Row:
    details = {"action": event.action, **event.details}
    reason = details.pop("reason", "")
    reason_html = f"<br>{rich(reason)}" if reason else ""
    at = labels.date_time(event.at, "%H:%M:%S")
    before, after = split_phrase(event)
    change = f"{escape(before)}{_render_subject(event.subject)}{escape(after)}"
    return {
        "Event": noted(strong(f"{event.number:,}"), f"{at}, {labels.age(event.at, view.now)}"),
        "Who": noted(escape(event.actor), event.key),
        "Did what, and why": f"{change}{reason_html}",
        "": _render_details(details),
    }


def _render_subject(subject: str) -> str:
    """Renders an event's subject, with a link to its page if it has one."""
    kind, _, name = subject.partition(" ")
    match kind:
        case "":
            return INSTALLATION
        case "route":
            return markup.link("routes", escape(subject), route=name)
        case "proposal":
            return markup.link("compare", escape(subject), id=name)
        case _:
            return escape(subject)


def _render_details(details: Mapping[str, object]) -> str:
    """Renders an event's code and further details, folded."""
    plain = {name: to_shown(value) for name, value in details.items() if value is not None}
    full_text = json.dumps(plain, ensure_ascii=False, indent=2)
    return (
        f'<details><summary class="note">Details</summary><pre>{escape(full_text)}</pre>'
        "</details>"
    )


EVENTS: Final = ResourceList[AuditView, AuditEvent](
    rows=lambda view: view.events,
    cells=_build_row,
    what="events",
    page="audit",
)
PAGE: Final = ResourcePage[AuditFilter, AuditView](
    name="The audit log",
    ask=ask,
    load=load,
    title=lambda view: (
        _write_headline(view),
        rich(f"{CHAIN_NOTE} · {labels.date_time(view.now)}"),
    ),
    parts=(EVENTS.show, _explain_empty_page, _show_export),
    commands=lambda selection: [
        ["audit", "tail", "-n", str(MOST_EVENTS), *_list_options(selection)]
    ],
)

if __name__ == "__main__":
    page_frame.show_page(PAGE.name, PAGE.show)
