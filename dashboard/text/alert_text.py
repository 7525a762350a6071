"""Writes the Alerts page: its first line, a card for each open alert with what to do about it,
and a table of the alerts that are over.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from dashboard.text import html, labels
from dashboard.text.html import escape, strong
from dashboard.text.labels import Label, Tone
from harness.control.operations.alerts import AlertView, DeliveryAttempt
from harness.domain.formatting import DASH
from harness.domain.operations.alerts import Severity

SEVERITY_LABELS: Final = {
    Severity.CRITICAL: Label("✕", "critical: look at it now", Tone.WORSE),
    Severity.WARNING: Label("?", "warning: look at it today", Tone.UNDECIDED),
    Severity.INFO: Label("=", "good to know", Tone.NEUTRAL),
}
HERE: Final = "alerts"
STEPS: Final = "Step by step"  # the link to an alert's section of the runbook
PAST_HEADS: Final = ("Alert", "Severity", "First seen", "Lasted", "Times", "Messages")


def headline(open_: Sequence[AlertView]) -> str:
    """Writes the page's first line, as HTML."""
    if not open_:
        return "Nothing is wrong now: no alert is open"
    critical = sum(alert.severity is Severity.CRITICAL for alert in open_)
    verb = "is" if len(open_) == 1 else "are"
    now = f", {strong(f'{critical:,} critical')}" if critical else ", none critical"
    return f"{strong(labels.plural(len(open_), 'alert'))} {verb} open{now}"


def note(sinks: Sequence[str]) -> str:
    """Says who is told."""
    if sinks:
        return f"People are told through {', '.join(sinks)}."
    return "Nobody is told: no sink is configured under alerts.sinks in swapgate.yaml."


def untold(untold_: Sequence[AlertView], now: datetime) -> str:
    """Warns of alerts that nobody has queued for sending; empty without."""
    if not untold_:
        return ""
    oldest = min(alert.first_seen for alert in untold_)
    words = (
        f"Nobody was told of {labels.plural(len(untold_), 'open alert')}, the oldest of "
        f"{labels.age(oldest, now)}: the control process, which sends and ends alerts, seems "
        "not to run. swapgate doctor tells; swapgate serve control starts it."
    )
    return html.banner("STALE.", words)


def card(alert: AlertView, now: datetime) -> str:
    """Renders an open alert with what to do next."""
    label = SEVERITY_LABELS[alert.severity]
    times = f" · {alert.count:,} times" if alert.count > 1 else ""
    seen = (
        f"first seen {labels.age(alert.first_seen, now)}{times} · "
        f"last seen {labels.age(alert.last_seen, now)}"
    )
    facts = f"{seen} · about {alert.subject} · {messages(alert)}"
    runbook = html.docs_link(f"runbook#{alert.kind}", STEPS)
    return html.block(
        f"<p>{html.state(label)}</p>",
        f"<p>{_title(alert)}</p>",
        f"<p>{html.rich(alert.text)}</p>",
        f"<p>{strong('Next:')} {html.rich(alert.next_step)}. {runbook}</p>",
        f'<p class="note">{escape(facts)}</p>',
        kind=f"sg-banner {label.tone}" if label.tone is Tone.WORSE else "sg-banner",
    )


def _title(alert: AlertView) -> str:
    """Renders the title, as a link where another page has more about it."""
    page = alert.page.removeprefix("/")
    title = f'<b class="long">{escape(alert.title)}</b>'
    if page == HERE:
        return title
    return f'<a href="{escape(page)}" target="_self">{title}</a>'


def messages(alert: AlertView) -> str:
    """Says what became of an alert's messages."""
    counts = {
        "sent": alert.delivered,
        "waiting": alert.waiting,
        "given up": alert.given_up,
    }
    said = ", ".join(f"{number:,} {what}" for what, number in counts.items() if number)
    if not said:
        return "no message was sent"
    error = f" ({alert.last_error})" if alert.last_error else ""
    return f"messages: {said}{error}"


def past_table(alerts: Sequence[AlertView]) -> str:
    """Renders alerts that are over, a line each."""
    rows = [
        (
            f'{_title(alert)}<br><span class="note">{escape(alert.text)}</span>',
            html.state(Label(*_sign(alert))),
            escape(labels.date_time(alert.first_seen)),
            escape(_lasted(alert)),
            labels.count(alert.count),
            escape(messages(alert).removeprefix("messages: ")),
        )
        for alert in alerts
    ]
    return html.table(PAST_HEADS, rows, stacked=True)


def _sign(alert: AlertView) -> tuple[str, str, Tone]:
    label = SEVERITY_LABELS[alert.severity]
    return label.symbol, alert.severity.name.lower(), Tone.NEUTRAL


def _lasted(alert: AlertView) -> str:
    if alert.resolved_at is None:
        return "still open"
    seconds = (alert.resolved_at - alert.first_seen).total_seconds()
    return labels.span(seconds) if seconds >= 1 else DASH


def attempts(tried: Sequence[DeliveryAttempt]) -> str:
    """Says what became of a test message, sink by sink."""
    taken = [attempt.sink for attempt in tried if attempt.delivered]
    refused = [f"{a.sink} did not take it: {a.error}" for a in tried if not a.delivered]
    delivered = f"The test message reached {', '.join(taken)}." if taken else ""
    return " ".join(filter(None, (delivered, *refused)))
