"""The Alerts page answers: what is wrong now, what do I do about it, and who was told?"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

import streamlit as st

from dashboard import current_user, html, labels, page_frame
from dashboard.html import escape, noted, strong
from dashboard.labels import Label, Tone
from harness.control.operations import alerts
from harness.control.operations.alerts import AlertView, DeliveryAttempt
from harness.control.operations.queries import list_alerts
from harness.domain.formatting import DASH
from harness.domain.operations.access import Role
from harness.domain.operations.alerts import Severity
from harness.domain.pagination import MOST_LISTED, PageRequest, read_all

TESTED: Final = "tested-sinks"
MOST_CARDS: Final = 12
MOST_PAST: Final = 25
# The control process queues messages within seconds.
QUEUED_WITHIN: Final = timedelta(minutes=2)


def show() -> None:
    with page_frame.loading("the alerts"):
        ctx = page_frame.context()
        now = ctx.clock.now()
        open_ = list_alerts(ctx, PageRequest(MOST_LISTED), open_only=True).items
    sinks = ctx.sinks.names() if ctx.sinks is not None else ()
    note = "Nobody is told: no sink is configured under alerts.sinks in swapgate.yaml."
    if sinks:
        note = f"People are told through {', '.join(sinks)}."
    st.html(html.title(_headline(open_), html.escape(note)))
    page_frame.show_done_message()
    if ctx.sinks is not None and sinks:
        takes = ctx.sinks.takes
        told = [a for a in open_ if any(takes(sink, a.kind) for sink in sinks)]
        page_frame.show_html(_untold_banner(told, now))
    wanted = page_frame.ask_filter(
        "Find an alert", "find", "Part of its title, text or subject"
    )
    _open(open_, wanted, now)
    _past(wanted)
    _test(sinks)
    page_frame.copy_as_cli(["alert", "list", *(("--search", wanted) if wanted else ())])


def _open(open_: Sequence[AlertView], wanted: str, now: datetime) -> None:
    text = wanted.casefold()
    found = [a for a in open_ if text in f"{a.title} {a.text} {a.subject} {a.kind}".casefold()]
    found.sort(key=lambda alert: (-alert.severity, -alert.last_seen.timestamp()))
    if wanted and open_ and not found:
        st.html(html.note("No open alert has this in its text."))
    for alert in found[:MOST_CARDS]:
        st.html(_card(alert, now))
    if len(found) > MOST_CARDS:
        rest = found[MOST_CARDS:]
        st.html(html.section(labels.plural(len(rest), "more open alert")))
        st.html(_past_table(rest))


def _past(wanted: str) -> None:
    ctx, after = page_frame.context(), st.query_params.get("after")
    page = list_alerts(ctx, PageRequest(MOST_PAST, after), search=wanted)
    over = [alert for alert in page if not alert.open]
    st.html(html.section("Alerts that are over", "The one last seen first."))
    if over:
        st.html(_past_table(over))
    else:
        nothing = "No alert that is over has this in its text." if wanted else "None yet."
        st.html(html.note(nothing))
    page_frame.show_turns("alerts", "alerts", page.next)

    def read() -> Iterator[AlertView]:
        return read_all(lambda part: list_alerts(ctx, part, search=wanted))

    if page.total:
        page_frame.offer_csv("alerts", lambda: page_frame.frame_of(read()))


def _test(sinks: Sequence[str]) -> None:
    st.html(html.section("Test message", "Goes through every sink at once."))
    why = "No sink is configured: name one under alerts.sinks in swapgate.yaml."
    if sinks:
        why = current_user.why_not(Role.ADMIN)
    with st.container(horizontal=True, vertical_alignment="center"):
        if st.button("Send a test message", icon=":material/send:", disabled=bool(why)):
            ctx = page_frame.context()
            current_user.attempt(
                lambda actor: st.session_state.update(
                    {TESTED: _attempts(alerts.send_test(ctx, actor))}
                ),
                lambda _: "Each sink was tried.",
            )
        if why:
            st.html(html.note(why), width="content")
    if tested := st.session_state.pop(TESTED, ""):
        st.html(html.note(tested))


SEVERITY_LABELS: Final = {
    Severity.CRITICAL: Label("✕", "critical: look at it now", Tone.WORSE),
    Severity.WARNING: Label("?", "warning: look at it today", Tone.UNDECIDED),
    Severity.INFO: Label("=", "good to know", Tone.NEUTRAL),
}
HERE: Final = "alerts"


def _headline(open_: Sequence[AlertView]) -> str:
    if not open_:
        return "Nothing is wrong now: no alert is open"
    critical = sum(alert.severity is Severity.CRITICAL for alert in open_)
    verb = "is" if len(open_) == 1 else "are"
    now = f", {strong(f'{critical:,} critical')}" if critical else ", none critical"
    return f"{strong(labels.plural(len(open_), 'alert'))} {verb} open{now}"


def _untold_banner(open_: Sequence[AlertView], now: datetime) -> str:
    untold = [
        alert.first_seen
        for alert in open_
        if not (alert.delivered or alert.waiting or alert.given_up)
        and now - alert.first_seen > QUEUED_WITHIN
    ]
    if not untold:
        return ""
    oldest = min(untold)
    words = (
        f"Nobody was told of {labels.plural(len(untold), 'open alert')}, the oldest of "
        f"{labels.age(oldest, now)}: the control process, which sends and ends alerts, seems "
        "not to run. swapgate doctor tells; swapgate serve control starts it."
    )
    return html.banner("STALE.", words)


def _card(alert: AlertView, now: datetime) -> str:
    label = SEVERITY_LABELS[alert.severity]
    times = f" · {alert.count:,} times" if alert.count > 1 else ""
    seen = (
        f"first seen {labels.age(alert.first_seen, now)}{times} · "
        f"last seen {labels.age(alert.last_seen, now)}"
    )
    facts = f"{seen} · about {alert.subject} · {_messages(alert)}"
    runbook = html.docs_link(f"runbook#{alert.kind}", labels.RUNBOOK)
    return html.block(
        f"<p>{html.state(label)}</p>",
        f"<p>{_title(alert)}</p>",
        f"<p>{html.rich(alert.text)}</p>",
        f"<p>{strong('Next:')} {html.rich(alert.next_step)}. {runbook}</p>",
        f'<p class="note">{escape(facts)}</p>',
        kind=f"sg-banner {label.tone}" if label.tone is Tone.WORSE else "sg-banner",
    )


def _title(alert: AlertView) -> str:
    page = alert.page.removeprefix("/")
    title = f'<b class="long">{escape(alert.title)}</b>'
    if page == HERE:
        return title
    return f'<a href="{escape(page)}" target="_self">{title}</a>'


def _messages(alert: AlertView) -> str:
    if not alert.message_counts:
        return "no message was sent"
    error = f" ({alert.last_error})" if alert.last_error else ""
    return f"messages: {alert.message_counts}{error}"


def _past_table(alerts: Sequence[AlertView]) -> str:
    rows = [
        {
            "Alert": noted(_title(alert), alert.text),
            "Severity": html.state(
                Label(
                    SEVERITY_LABELS[alert.severity].symbol,
                    alert.severity.name.lower(),
                    Tone.NEUTRAL,
                )
            ),
            "First seen": escape(labels.date_time(alert.first_seen)),
            "Lasted": escape(_lasted(alert)),
            "Times": labels.count(alert.count),
            "Messages": escape(_messages(alert).removeprefix("messages: ")),
        }
        for alert in alerts
    ]
    return html.table(rows, stacked=True)


def _lasted(alert: AlertView) -> str:
    if alert.resolved_at is None:
        return "still open"
    seconds = (alert.resolved_at - alert.first_seen).total_seconds()
    return labels.span(seconds) if seconds >= 1 else DASH


def _attempts(tried: Sequence[DeliveryAttempt]) -> str:
    taken = [attempt.sink for attempt in tried if attempt.delivered]
    refused = [f"{a.sink} did not take it: {a.error}" for a in tried if not a.delivered]
    delivered = f"The test message reached {', '.join(taken)}." if taken else ""
    return " ".join(filter(None, (delivered, *refused)))


if __name__ == "__main__":
    page_frame.show_page("The alerts", show)
