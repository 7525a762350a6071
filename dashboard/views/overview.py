"""The Overview page answers: does any route need me now? Open alerts, then a row per route with
state, last verdict, traffic of the last hour and links; routes that need a decision first.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import streamlit as st

from dashboard import page_frame
from dashboard.data import queries
from dashboard.text import html, labels, route_text
from dashboard.text.html import escape, strong
from harness.control.operations.alerts import AlertView
from harness.control.operations.queries import list_alerts, list_route_status
from harness.control.routing.route_status import RouteStatus
from harness.domain.operations.alerts import AlertKind, Severity
from harness.domain.proposals.proposal import ProposalPhase

MOST_ALERTS: Final = 5


def show() -> None:
    with page_frame.loading("the routes"):
        ctx = page_frame.context()
        page, now = list_route_status(ctx), ctx.clock.now()
        statuses = sorted(page, key=_by_urgency)
        titles = queries.titles(ctx)
        lines = {
            name: route_text.score_line(scorecard, titles)
            for name, scorecard in queries.measured_of(ctx, statuses).items()
        }
        alarming = [alert for alert in list_alerts(ctx, open_only=True) if _in_banner(alert)]
    st.html(html.title(*_answer(statuses, now)))
    if page.invalid:
        st.html(html.invalid(page.invalid))
    page_frame.show_done_message()
    _alerts(alarming, now)
    if not statuses:
        st.html(
            html.empty(
                "There is no route yet. A route is the name that clients use as `model`; this "
                "writes a configuration with one:",
                "swapgate init",
            )
        )
    for status in statuses:
        _row(status, lines.get(status.route.name, ""), now)
    page_frame.copy_as_cli("route", "list")


def _by_urgency(status: RouteStatus) -> tuple[bool, bool, bool]:
    """Sort key: routes that need a person come first, then canaries, then open proposals."""
    return not status.needs_decision, status.rollout is None, status.open_proposal is None


def _answer(statuses: Sequence[RouteStatus], now: datetime) -> tuple[str, str]:
    waiting = [s.route.name for s in statuses if s.needs_decision]
    note = f"{labels.plural(len(statuses), 'route')} · {escape(labels.date_time(now))}"
    if waiting:
        verb = "needs" if len(waiting) == 1 else "need"
        many = labels.plural(len(waiting), "route")
        return f"{many} {verb} a decision: {strong(', '.join(waiting))}", note
    return ("No route needs you now" if statuses else "No route yet"), note


def _in_banner(alert: AlertView) -> bool:
    """Alerts about a waiting decision are left out: the route's own row shows them."""
    return alert.kind not in (AlertKind.AWAITING_APPROVAL, AlertKind.CANARY_PAUSED)


def _alerts(open_: Sequence[AlertView], now: datetime) -> None:
    for alert in open_[:MOST_ALERTS]:
        heading, text = labels.alert_banner(alert, now)
        critical = alert.severity is Severity.CRITICAL
        tone = labels.Tone.WORSE if critical else labels.Tone.UNDECIDED
        st.html(html.banner(heading, text, tone=tone))
    if len(open_) > MOST_ALERTS:
        more = labels.plural(len(open_) - MOST_ALERTS, "more alert")
        st.html(html.banner(f"? {more}.", "`swapgate alert list --open` has all of them."))


def _row(status: RouteStatus, figures_line: str, now: datetime) -> None:
    with st.container(border=True):
        st.html(
            html.block(
                f"<div>{_who(status)}</div><div>{_proof(status, now)}</div>"
                f"<div>{route_text.last_hour(status.traffic)}{figures_line}</div>",
                kind="sg-route",
            )
        )
        _links(status)


def _who(status: RouteStatus) -> str:
    label = _state(status)
    canary = status.route.canary
    share = (
        f"canary {strong(status.candidate.name)} at {labels.weight(canary.weight_bps)}"
        if canary and status.candidate
        else "no canary"
    )
    return (
        f'<span class="name">{escape(status.route.name)}</span> '
        f"<p>{html.state(label)}</p>"
        f'<p class="note">serves {strong(status.incumbent.name)} · {share}</p>'
    )


def _state(status: RouteStatus) -> labels.Label:
    if status.rollout is not None:
        return labels.ROLLOUT_LABELS[status.rollout.state]
    if status.open_proposal is not None:
        return labels.PHASE_LABELS[status.open_proposal.phase]
    return labels.Label("=", "steady", labels.Tone.NEUTRAL)


def _proof(status: RouteStatus, now: datetime) -> str:
    verdict = status.last_verdict
    if verdict is None:
        return (
            '<p class="note">last verdict</p><p class="neutral">none yet: it is the first '
            "model</p>"
        )
    validity = status.standing
    stale = validity and not validity.holds and verdict.candidate != status.route.incumbent
    mark = f" {html.pill('STALE', labels.Tone.UNDECIDED)}" if stale else ""
    when = labels.age(verdict.decided_at, now)
    return (
        f'<p class="note">last verdict, {escape(when)}</p>'
        f"<p>{html.state(labels.verdict_label(verdict))}{mark}</p>"
    )


def _links(status: RouteStatus) -> None:
    with st.container(horizontal=True):
        proposal = status.open_proposal
        if proposal is not None and proposal.phase is ProposalPhase.AWAITING_APPROVAL:
            st.page_link(
                "views/proposals.py", label="Decide", icon=":material/gavel:",
                query_params={"state": "open"},
            )  # fmt: skip
        if proposal is not None:
            st.page_link(
                "views/compare.py", label="Compare", icon=":material/balance:",
                query_params={"id": proposal.id},
            )  # fmt: skip
        if status.rollout is not None:
            st.page_link(
                "views/canary.py", label="Canary", icon=":material/monitor_heart:",
                query_params={"route": status.route.name},
            )  # fmt: skip
        st.page_link(
            "views/routes.py", label="History", icon=":material/history:",
            query_params={"route": status.route.name},
        )  # fmt: skip


page_frame.show_page("The overview", show)
