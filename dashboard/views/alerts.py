"""The Alerts page answers: what is wrong now, what do I do about it, and who was told? Open
alerts first, each with its next step; then those that are over. It also sends a test message.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

import streamlit as st

from dashboard import current_user, downloads, page_frame
from dashboard.text import alert_text, html, labels
from harness.control.operations import alerts
from harness.control.operations.alerts import AlertView
from harness.control.operations.queries import list_alerts
from harness.domain.operations.access import Role
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
    note = alert_text.note(sinks)
    st.html(html.title(alert_text.headline(open_), html.escape(note)))
    page_frame.show_done_message()
    if sinks:
        page_frame.show_html(alert_text.untold(_untold(open_, now), now))
    wanted = _search()
    _open(open_, wanted, now)
    _past(wanted)
    _test(sinks)
    page_frame.copy_as_cli("alert", "list", *(("--search", wanted) if wanted else ()))


def _untold(open_: Sequence[AlertView], now: datetime) -> Sequence[AlertView]:
    """Lists the alerts that have no message although there was time for one."""
    return [
        alert
        for alert in open_
        if not (alert.delivered or alert.waiting or alert.given_up)
        and now - alert.first_seen > QUEUED_WITHIN
    ]


def _search() -> str:
    wanted = st.text_input(
        "Find an alert",
        key="find",
        bind="query-params",
        placeholder="Part of its title, text or subject",
        on_change=page_frame.show_first_page,
    )
    return (wanted or "").strip()


def _open(open_: Sequence[AlertView], wanted: str, now: datetime) -> None:
    text = wanted.casefold()
    found = [a for a in open_ if text in f"{a.title} {a.text} {a.subject} {a.kind}".casefold()]
    found.sort(key=lambda alert: (-alert.severity, -alert.last_seen.timestamp()))
    if wanted and open_ and not found:
        st.html(html.note("No open alert has this in its text."))
    for alert in found[:MOST_CARDS]:
        st.html(alert_text.card(alert, now))
    if len(found) > MOST_CARDS:
        rest = found[MOST_CARDS:]
        st.html(html.section(labels.plural(len(rest), "more open alert")))
        st.html(alert_text.past_table(rest))


def _past(wanted: str) -> None:
    after = st.query_params.get("after")
    ctx = page_frame.context()
    page = list_alerts(ctx, PageRequest(MOST_PAST, after), search=wanted)
    over = [alert for alert in page if not alert.open]
    st.html(html.section("Alerts that are over", "The one last seen first."))
    if over:
        st.html(alert_text.past_table(over))
    else:
        nothing = "No alert that is over has this in its text." if wanted else "None yet."
        st.html(html.note(nothing))
    if after is not None:
        newest = {"find": wanted} if wanted else {}
        st.html(html.block(html.link("alerts", "Newest alerts", **newest)))
    if page.next is not None:
        query = {"after": page.next, **({"find": wanted} if wanted else {})}
        st.html(html.block(html.link("alerts", "Older alerts", **query)))

    def read() -> Iterator[AlertView]:
        return read_all(lambda part: list_alerts(ctx, part, search=wanted))

    if page.total:
        downloads.offer("alerts", lambda: downloads.frame_of(read()))


def _test(sinks: Sequence[str]) -> None:
    """Offers to send a message through every sink; a disabled button says why."""
    st.html(html.section("Test message", "Goes through every sink at once."))
    why = _why_not(sinks)
    with st.container(horizontal=True, vertical_alignment="center"):
        if st.button("Send a test message", icon=":material/send:", disabled=bool(why)):
            ctx = page_frame.context()
            current_user.attempt(
                lambda actor: st.session_state.update(
                    {TESTED: alert_text.attempts(alerts.send_test(ctx, actor))}
                ),
                lambda _: "Each sink was tried.",
            )
        if why:
            st.html(html.note(why), width="content")
    if tested := st.session_state.pop(TESTED, ""):
        st.html(html.note(tested))


def _why_not(sinks: Sequence[str]) -> str:
    if not sinks:
        return "No sink is configured: name one under alerts.sinks in swapgate.yaml."
    return current_user.why_not(Role.ADMIN)


page_frame.show_page("The alerts", show)
