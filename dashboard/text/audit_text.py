"""Writes the Audit page: whether the log is intact, and a table of events with their reasons
and details.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from dashboard.text import html, labels
from dashboard.text.html import escape, strong
from dashboard.text.labels import Tone
from harness.control.serialize import to_plain
from harness.domain.formatting import format_excerpt
from harness.domain.operations.audit import AuditEvent
from harness.domain.operations.row_signatures import RowFault

HEADS: Final = ("Event, UTC", "Who", "Did what", "To what", "Why and what else")
SHOWN_DETAILS: Final = 140
MOST_FAULTS: Final = 10
CHECKED: Final = "The chain of events is checked every minute"


@dataclass(frozen=True, slots=True)
class FullCheck:
    """Holds the result of a check of the whole log and of every signed row."""

    at: datetime
    broken: int | None  # the first event that does not fit
    faults: Sequence[RowFault]


def headline(total: int, broken: int | None, matching: int | None = None) -> str:
    """Writes the page's first line, as HTML. matching: events that the filter selects; None
    without one.
    """
    if broken is not None:
        return f"The audit log is {strong(f'broken at event {broken:,}')}"
    if not total:
        return "Nothing has been done yet: the audit log is empty"
    if matching is not None:
        share = f"{matching:,} of {labels.plural(total, 'event')} match"
        return f"The audit log is {strong('intact')}; {strong(share)}"
    return f"The audit log is {strong('intact')}: {labels.plural(total, 'event')}"


def check_result(check: FullCheck) -> str:
    """Says what a full check found."""
    at = labels.date_time(check.at)
    if check.broken is None and not check.faults:
        words = (
            "Every event fits the one before it and the log's kept end, and every decided row "
            f"is as it was signed. Checked {at}."
        )
        return html.banner("✓ Intact.", words, tone=Tone.BETTER)
    found = []
    if check.broken is not None:
        found.append(f"event {check.broken:,}, or one before it, was changed or is missing")
    if check.faults:
        found.append(f"{labels.plural(len(check.faults), 'row')} are not as they were signed")
    words = f"{' and '.join(found).capitalize()}. Compare with a backup. Checked {at}."
    rows = [(strong(f.name), escape(f.why)) for f in check.faults[:MOST_FAULTS]]
    listed = html.table(("Row", "What does not hold"), rows) if rows else ""
    return html.banner("✕ Not intact.", words, tone=Tone.WORSE) + listed


def table(events: Sequence[AuditEvent], now: datetime) -> str:
    """Renders events, the newest first."""
    return html.table(HEADS, [_cells(event, now) for event in events], stacked=True)


def _cells(event: AuditEvent, now: datetime) -> Sequence[str]:
    details = dict(event.details)
    reason = details.pop("reason", "")
    why = f"{escape(str(reason))}<br>" if reason else ""
    at = escape(f"{event.at:%d %b %Y %H:%M:%S}".removeprefix("0"))
    when = f'<span class="neutral">{at}</span><br><span class="note">'
    key = f'<br><span class="note mono">{escape(event.key)}</span>' if event.key else ""
    return (
        f"{strong(f'{event.number:,}')}<br>{when}{escape(labels.age(event.at, now))}</span>",
        f"<span>{escape(event.actor)}{key}</span>",
        f'<span class="mono">{escape(event.action)}</span>',
        _subject(event.subject),
        # One element: on a phone a cell's elements are set side by side.
        f"<div>{why}{_details(details)}</div>",
    )


def _subject(subject: str) -> str:
    """Links to the page of what the event is about, where there is one."""
    kind, _, name = subject.partition(" ")
    match kind:
        case "route":
            return html.link("routes", escape(subject), route=name)
        case "proposal":
            return html.link("compare", escape(subject), id=name)
        case _:
            return escape(subject)


def _details(details: Mapping[str, object]) -> str:
    """Shows the details in short, and opens them whole where that cuts them."""
    if not details:
        return ""
    plain = {name: to_plain(value) for name, value in details.items() if value is not None}
    short = "; ".join(f"{name}: {_text(value)}" for name, value in plain.items())
    if len(short) <= SHOWN_DETAILS:
        return f'<span class="note details">{escape(short)}</span>'
    whole = json.dumps(plain, ensure_ascii=False, indent=2)
    return (
        f'<details><summary class="note">{escape(format_excerpt(short, SHOWN_DETAILS))}'
        f"</summary><pre>{escape(whole)}</pre></details>"
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
