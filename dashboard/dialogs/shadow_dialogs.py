"""The dialogs that start a shadow, which mirrors a share of a route's requests to a candidate,
and that stop one. Both ask for a reason before their button works.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

import streamlit as st

from dashboard import page_frame
from dashboard.data import queries
from dashboard.dialogs import action_dialogs
from dashboard.text import html, labels
from dashboard.text.html import escape, strong
from harness.control.operations.queries import find_route, load_target_names
from harness.control.shadow import shadows
from harness.control.shadow.shadows import DEFAULT_LASTS, ShadowRequest
from harness.domain.operations.access import Role
from harness.domain.shadow.shadow import MAX_AT_ONCE, MAX_PER_DAY, Shadow, ShadowLimits

LASTS: Final[Mapping[str, timedelta]] = {
    "2 hours": timedelta(hours=2),
    "1 day": timedelta(days=1),
    "7 days": timedelta(days=7),
    "30 days": timedelta(days=30),
}
DEFAULT: Final = ShadowLimits()
PRIVATE: Final = (
    "The candidate's provider gets what these callers write. Nobody gets the candidate's "
    "answers: they are compared, counted and forgotten."
)
NEEDS: Final = (
    "A proposer needs an open proposal of this candidate; without one, an approver starts it."
)


@action_dialogs.dialog("Start a shadow", width="medium")
def start(names: Sequence[str]) -> None:
    """Asks for route and candidate, how much is mirrored, for how long and why."""
    ctx = page_frame.context()
    route = st.selectbox("Route", names, index=None, placeholder="Choose", key="shadow-route")
    candidate = st.selectbox(
        "Candidate",
        list(queries.candidates(ctx, route)) if route else [],
        index=None,
        accept_new_options=True,
        placeholder="Choose, or type PROVIDER/MODEL",
        key=f"shadow-candidate-{route}",
    )
    limits = _ask_limits()
    default = list(LASTS.values()).index(DEFAULT_LASTS)
    lasts = st.selectbox("How long", list(LASTS), index=default, key="shadow-lasts")
    if route and candidate:
        st.html(_effect(route, candidate, limits))
    reason = action_dialogs.ask_reason("shadow-why")
    missing = "" if route and candidate else "Choose route and candidate first."
    action_dialogs.submit(
        "Start it",
        key="shadow-start",
        role=Role.PROPOSER,
        missing=missing or ("" if reason else action_dialogs.REASON_MISSING),
        act=lambda actor: shadows.start_shadow(
            ctx,
            actor,
            ShadowRequest(route or "", candidate or "", limits, reason, LASTS[lasts]),
        ),
        done=lambda actor: (
            f"{actor.name} started a shadow: {labels.weight(limits.share_bps)} of the callers "
            f"of route {route} are mirrored to {candidate}."
        ),
    )


def _ask_limits() -> ShadowLimits:
    left, right = st.columns(2)
    with left:
        share = st.number_input(
            "Share of the callers, in %", 0.01, 100.0, DEFAULT.share_bps / 100,
            key="shadow-share",
        )  # fmt: skip
        usd = st.number_input(
            "US dollars a day (empty: no limit)", 0.01, None, DEFAULT.usd_per_day,
            key="shadow-usd",
        )  # fmt: skip
    with right:
        requests = st.number_input(
            "Requests a day", 1, MAX_PER_DAY, DEFAULT.requests_per_day, key="shadow-requests"
        )
        at_once = st.number_input(
            "At once, in each worker", 1, MAX_AT_ONCE, DEFAULT.at_once, key="shadow-at-once"
        )
    return ShadowLimits(round(share * 100), at_once, requests, usd)


def _effect(route: str, candidate: str, limits: ShadowLimits) -> str:
    ctx = page_frame.context()
    incumbent = find_route(ctx, route).incumbent
    name = load_target_names(ctx, {incumbent}).get(incumbent, incumbent)
    share = labels.weight(limits.share_bps)
    return html.block(
        f"<p>Within 2 s, {escape(share)} of the callers of {strong(route)} are mirrored to "
        f"{strong(candidate)}; all of them go on getting the answers of {strong(name)}.</p>"
        f'<p>{escape(PRIVATE)}</p><p class="note">{escape(NEEDS)}</p>'
    )


@action_dialogs.dialog("Stop the shadow")
def stop(shadow: Shadow) -> None:
    """Says what ends, and asks why."""
    waits = (
        f"<p>Its proposal {strong(shadow.proposal)} waits until somebody starts a shadow "
        "again: its canary opens after enough compared pairs.</p>"
        if shadow.proposal
        else ""
    )
    st.html(
        html.block(
            f"<p>Within 2 s nothing of route {strong(shadow.route)} is mirrored to "
            f"{strong(shadow.candidate.name)} any more. What was counted stays.</p>{waits}"
        )
    )
    reason = action_dialogs.ask_reason(f"shadow-stop-why-{shadow.id}")
    action_dialogs.submit(
        "Stop it",
        key=f"shadow-stop-{shadow.id}",
        role=Role.PROPOSER,
        missing="" if reason else action_dialogs.REASON_MISSING,
        act=lambda actor: shadows.stop_shadow(
            page_frame.context(), actor, shadow.route, reason=reason
        ),
        done=lambda actor: f"{actor.name} stopped the shadow of route {shadow.route}.",
    )
