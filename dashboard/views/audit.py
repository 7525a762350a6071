"""The Audit page answers: who changed what, and is the log intact?

Only an admin sees people's identities at the server of single sign-on: the use case hides them
from other readers. The page only filters and shows.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

import pandas as pd
import streamlit as st

from dashboard import current_user, labels, markup, page_frame
from dashboard.markup import escape, noted, strong
from dashboard.resource_page import ResourceList, ResourcePage
from harness.frame.formatting import format_excerpt
from harness.frame.pagination import Page, PageRequest
from harness.frame.plain_data import to_shown
from harness.frame.signing.audit import ALL_EVENTS, AuditEvent, AuditFilter
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
    """What the page shows. events: a page of the selected ones, the newest first."""

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
    asked = any(st.query_params.get(name) for name in (*FIELDS, "since", "until"))
    with st.expander(
        "Filter by who, what and when",
        icon=":material/filter_alt:",
        expanded=asked,
    ):
        columns = st.columns([2, 2, 2, 1.3, 1.3])
        for column, (name, (label, example)) in zip(columns, FIELDS.items(), strict=False):
            with column:
                texts[name] = page_frame.ask_filter(label, name, example)
        with columns[3]:
            first = _ask_day("From, UTC", "since")
        with columns[4]:
            last = _ask_day("To, UTC", "until")
    return AuditFilter(**texts, since=first, until=last and last + timedelta(days=1))


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

    def read() -> pd.DataFrame:
        events = queries.read_audit_events(ctx, view.selection, reader=reader)
        rows = [integrity.event_row(event) for event in events]
        return pd.DataFrame(rows, columns=list(integrity.CSV_COLUMNS))

    page_frame.offer_csv("audit", read)


def _explain_nothing(view: AuditView) -> None:
    """Says why the page shows no event."""
    if view.events:
        return
    if view.total:
        st.html(markup.note("No event matches all fields. Shorten or clear a field above."))
    else:
        page_frame.show_empty(
            "The log keeps all changes by people and by Swapgate. The first change:",
            "swapgate init",
        )


def _options(selection: AuditFilter) -> list[str]:
    """Returns the filters as options of `swapgate audit tail`."""
    options = []
    for name in FIELDS:
        if text := getattr(selection, name):
            options += [f"--{name}", text]
    for name in ("since", "until"):
        if at := getattr(selection, name):
            options += [f"--{name}", f"{at:%Y-%m-%d}"]
    return options


SHOWN_DETAILS: Final = 140
CHAIN_NOTE: Final = "Swapgate checks the chain of events every minute"


def _headline(view: AuditView) -> str:
    """Answers whether the log is intact, and how many events fit the filter."""
    total = view.total
    if view.broken is not None:
        return f"The audit log is {strong(f'broken at event {view.broken:,}')}"
    if not total:
        return "The audit log is empty: there was no change yet"
    if view.selection != ALL_EVENTS:
        share = f"{view.events.total:,} of {labels.plural(total, 'event')} match"
        return f"The audit log is {strong('intact')}; {strong(share)}"
    return f"The audit log is {strong('intact')}: {labels.plural(total, 'event')}"


def _cells(view: AuditView, event: AuditEvent) -> markup.Row:
    details = dict(event.details)
    reason = details.pop("reason", "")
    why = f"{escape(str(reason))}<br>" if reason else ""
    at = escape(f"{event.at:%d %b %Y %H:%M:%S}".removeprefix("0"))
    when = noted(f'<span class="neutral">{at}</span>', labels.age(event.at, view.now))
    key = f'<br><span class="note mono">{escape(event.key)}</span>' if event.key else ""
    return {
        "Event, UTC": f"{strong(f'{event.number:,}')}<br>{when}",
        "Who": f"<span>{escape(event.actor)}{key}</span>",
        "Did what": f'<span class="mono">{escape(event.action)}</span>',
        "To what": _subject(event.subject),
        # One element, because on a phone a cell shows its elements side by side.
        "Why and what else": f"<div>{why}{_details(details)}</div>",
    }


def _subject(subject: str) -> str:
    """Renders an event's subject, with a link to its page if it has one."""
    kind, _, name = subject.partition(" ")
    match kind:
        case "route":
            return markup.link("routes", escape(subject), route=name)
        case "proposal":
            return markup.link("compare", escape(subject), id=name)
        case _:
            return escape(subject)


def _details(details: Mapping[str, object]) -> str:
    """Renders an event's further details, folded if they are long."""
    if not details:
        return ""
    plain = {name: to_shown(value) for name, value in details.items() if value is not None}
    short = "; ".join(
        f"{name}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for name, value in plain.items()
    )
    if len(short) <= SHOWN_DETAILS:
        return f'<span class="note details">{escape(short)}</span>'
    whole = json.dumps(plain, ensure_ascii=False, indent=2)
    return (
        f'<details><summary class="note">{escape(format_excerpt(short, SHOWN_DETAILS))}'
        f"</summary><pre>{escape(whole)}</pre></details>"
    )


EVENTS: Final = ResourceList[AuditView, AuditEvent](
    rows=lambda view: view.events,
    cells=_cells,
    what="events",
    page="audit",
)
PAGE: Final = ResourcePage[AuditFilter, AuditView](
    name="The audit log",
    ask=ask,
    load=load,
    title=lambda view: (
        _headline(view),
        escape(f"{CHAIN_NOTE} · {labels.date_time(view.now)}"),
    ),
    parts=(EVENTS.show, _explain_nothing, _show_export),
    commands=lambda selection: [
        ["audit", "tail", "-n", str(MOST_EVENTS), *_options(selection)]
    ],
)

if __name__ == "__main__":
    page_frame.show_page(PAGE.name, PAGE.show)
