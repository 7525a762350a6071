"""The dialogs that freeze routes and end a freeze. The first says beforehand what it holds
back; both ask for a reason before their button works.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final

import streamlit as st

from dashboard import page_frame
from dashboard.dialogs import action_dialogs
from dashboard.dialogs.action_dialogs import Opener
from dashboard.text import html, labels
from dashboard.text.html import escape, strong
from harness.control.canary import status as canary_status
from harness.control.routing import freezes
from harness.control.routing.freezes import FreezeRequest
from harness.domain.formatting import format_excerpt
from harness.domain.operations.access import Role
from harness.domain.routing.freeze import FreezeRecord

MOST_REASON: Final = 30  # characters of a freeze's reason on its button


def freeze_openers(route: str) -> Sequence[Opener]:
    """Describes the buttons that freeze a route, and that end each of its freezes."""
    icon = ":material/ac_unit:"
    opener = Opener("Freeze …", icon, partial(add, route), "freeze", Role.APPROVER)
    records = freezes.list_liftable_freezes(page_frame.context(), route)
    return [opener, *(_lift_opener(record, alone=len(records) == 1) for record in records)]


def _lift_opener(record: FreezeRecord, *, alone: bool) -> Opener:
    freeze = record.freeze
    why = format_excerpt(freeze.reason, MOST_REASON)
    label = "End the freeze …" if alone else f"End “{why}” of {freeze.actor} …"
    open_ = partial(lift, record)
    return Opener(label, ":material/sunny:", open_, f"thaw-{freeze.id}", Role.APPROVER)


@action_dialogs.dialog("Freeze: no canary opens or goes on", width="medium")
def add(route: str) -> None:
    """Asks what is frozen, from when until when, and why."""
    ctx, now = page_frame.context(), page_frame.context().clock.now()
    reach = action_dialogs.ask_reach(route, f"freeze-where-{route}")
    left, right = st.columns(2)
    with left:
        starts_at = _ask_time("From, UTC (empty: now)", f"freeze-from-{route}")
    with right:
        ends_at = _ask_time("Until, UTC", f"freeze-until-{route}")
    st.html(_effect(reach))
    reason = action_dialogs.ask_reason(f"freeze-why-{route}")
    missing = ""
    if ends_at is None:
        missing = "Choose when the freeze ends first."
    elif ends_at <= max(starts_at or now, now):
        missing = "It would end before it begins: choose a later end."
    elif not reason:
        missing = action_dialogs.REASON_MISSING
    scope = "all routes" if reach is None else f"route {route}"
    action_dialogs.submit(
        "Freeze",
        key=f"freeze-now-{route}",
        role=Role.APPROVER,
        missing=missing,
        act=lambda actor: freezes.add_freeze(
            ctx, actor, FreezeRequest(reach, ends_at or now, reason, starts_at)
        ),
        done=lambda actor: (
            f"{actor.name} froze {scope} until {labels.date_time(ends_at or now)}."
        ),
    )


def _ask_time(label: str, key: str) -> datetime | None:
    chosen = st.datetime_input(label, value=None, key=key)
    return None if chosen is None else chosen.replace(tzinfo=UTC)


def _effect(route: str | None) -> str:
    """Says which running canaries the freeze holds back, and what goes on."""
    live = canary_status.list_canaries(page_frame.context(), route=route)
    held = [f"{canary.candidate.name} on {canary.rollout.route}" for canary in live]
    canaries = f"Held back: {strong(', '.join(held))}." if held else "No canary runs there now."
    return html.block(
        f"<p>{canaries}</p>"
        "<p>No canary opens, goes on or is promoted. Evals, approvals and shadows go on, and "
        "what was approved opens by itself after the freeze. Abort, rollback and kill switch "
        "work.</p>"
    )


@action_dialogs.dialog("End the freeze")
def lift(record: FreezeRecord) -> None:
    """Asks why a freeze ends before its time."""
    freeze = record.freeze
    scope = "All routes" if freeze.route is None else f"Route {freeze.route}"
    until = labels.date_time(freeze.ends_at)
    since = (
        ""
        if freeze.starts_at <= page_frame.context().clock.now()
        else (f" from {labels.date_time(freeze.starts_at)}")
    )
    st.html(
        html.block(
            f"<p>{strong(scope)} would be frozen{escape(since)} until {escape(until)}. What "
            "waits for it goes on within seconds, unless another freeze holds it.</p>"
            f'<p class="note">{escape(freeze.actor)} set it: {escape(freeze.reason)}</p>'
            '<p class="note">Whoever proposed a swap that it holds back cannot end it.</p>'
        )
    )
    reason = action_dialogs.ask_reason(f"thaw-why-{freeze.id}")
    action_dialogs.submit(
        "End it",
        key=f"thaw-now-{freeze.id}",
        role=Role.APPROVER,
        missing="" if reason else action_dialogs.REASON_MISSING,
        act=lambda actor: freezes.lift_freeze(
            page_frame.context(), actor, freeze.id, reason=reason
        ),
        done=lambda actor: f"{actor.name} ended the freeze {freeze.id}.",
    )
