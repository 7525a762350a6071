"""The dialogs of break-glass on Routes: one person asks that a model serve without proof, a
second one confirms it, and either ends it before its time.
"""

from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import Final

import streamlit as st

from dashboard import page_frame
from dashboard.data import queries
from dashboard.dialogs import action_dialogs
from dashboard.dialogs.action_dialogs import Opener
from dashboard.text import html
from dashboard.text.html import escape, strong
from harness.control.operations.queries import find_route, load_target_names
from harness.control.routing import break_glass
from harness.control.routing.break_glass import BreakGlassRequest
from harness.domain.errors import SignatureInvalid
from harness.domain.formatting import format_date_time
from harness.domain.operations.access import Role
from harness.domain.routing.evidence import BreakGlass

LASTS: Final[Mapping[str, timedelta]] = {
    "1 hour": timedelta(hours=1),
    "4 hours": timedelta(hours=4),
    "1 day": timedelta(days=1),
    "7 days": timedelta(days=7),
}


BUSY: Final = "Break-glass: the route has a canary or a bake. Abort it on Canary first."


def list_openers(route: str) -> list[Opener]:
    """Lists the buttons for a route: to ask for one, or to confirm or end the one there is.

    None, where the stored ones cannot be trusted; a banner on the page says so.
    """
    try:
        found = break_glass.list_open(page_frame.context())
    except SignatureInvalid:
        return []
    record = next((one for one in found if one.route == route), None)
    icon = ":material/warning:"
    if record is None:
        open_ = partial(propose, route)
        busy = find_route(page_frame.context(), route).experiment is not None
        missing = BUSY if busy else ""
        return [Opener("Break-glass …", icon, open_, "break-glass", Role.APPROVER, missing)]
    buttons = [
        Opener("End the break-glass …", icon, partial(end, record), "glass-end", Role.APPROVER)
    ]
    if not record.confirmed:
        act = partial(confirm, record)
        buttons.insert(0, Opener("Confirm the break-glass …", icon, act, "glass-confirm"))
    return buttons


@action_dialogs.dialog("Break-glass: serve without proof", width="medium")
def propose(route: str) -> None:
    """Asks which model serves, how long and why."""
    ctx = page_frame.context()
    incumbent = find_route(ctx, route).incumbent
    name = load_target_names(ctx, {incumbent}).get(incumbent, incumbent)
    st.html(
        html.block(
            f"<p>The model gets all traffic of route {strong(route)} without evals, gate or "
            f"canary, in the place of {strong(name)}. Nothing changes before a second person, "
            f"an admin, confirms it; at its end {strong(name)} returns.</p>"
        )
    )
    target = st.selectbox(
        "Model",
        list(queries.candidates(page_frame.context(), route)),
        index=None,
        accept_new_options=True,
        placeholder="Choose, or type PROVIDER/MODEL",
        key=f"glass-target-{route}",
    )
    lasts = st.selectbox("How long", list(LASTS), key=f"glass-lasts-{route}")
    through = st.checkbox("Also while the route is frozen", key=f"glass-through-{route}")
    reason = action_dialogs.ask_reason(f"glass-why-{route}")
    missing = "" if target else "Choose a model first."
    action_dialogs.submit(
        "Ask for it",
        key=f"glass-ask-{route}",
        role=Role.APPROVER,
        missing=missing or ("" if reason else action_dialogs.REASON_MISSING),
        act=lambda actor: break_glass.propose_break_glass(
            page_frame.context(),
            actor,
            BreakGlassRequest(route, target or "", reason, LASTS[lasts], through),
        ),
        done=lambda actor: (
            f"{actor.name} asked for a break-glass of route {route}; a second person has to "
            "confirm it within an hour."
        ),
    )


@action_dialogs.dialog("Confirm the break-glass", width="medium")
def confirm(record: BreakGlass) -> None:
    """Says what would serve, by whose word and until when, and asks a second person."""
    until = format_date_time(record.expires_at)
    ctx = page_frame.context()
    name = load_target_names(ctx, {record.target}).get(record.target, record.target)
    st.html(
        html.block(
            f"<p>{strong(name)} gets all traffic of route {strong(record.route)}, without "
            f"proof, until {strong(until)}. {strong(record.proposer)} asked for it: "
            f"{escape(record.reason.rstrip('.'))}.</p>"
            + (
                "<p>It holds while the route is frozen, too.</p>"
                if record.through_freeze
                else ""
            )
        )
    )
    action_dialogs.submit(
        "Serve without proof",
        key=f"glass-confirm-{record.id}",
        role=Role.ADMIN,
        missing="",
        act=lambda actor: break_glass.confirm_break_glass(
            page_frame.context(), actor, record.id
        ),
        done=lambda actor: f"{actor.name} confirmed {record.id}: {name} serves until {until}.",
    )


@action_dialogs.dialog("End the break-glass")
def end(record: BreakGlass) -> None:
    """Asks for a reason to bring the former model back."""
    names = load_target_names(page_frame.context(), {record.incumbent})
    name = names.get(record.incumbent, record.incumbent)
    effect = (
        f"{strong(name)} serves route {strong(record.route)} again, from the click on."
        if record.confirmed
        else f"{strong(name)} goes on serving route {strong(record.route)}."
    )
    st.html(html.block(f"<p>{effect} Swaps can be proposed again.</p>"))
    reason = action_dialogs.ask_reason(f"glass-end-why-{record.id}")
    action_dialogs.submit(
        "End it",
        key=f"glass-end-{record.id}",
        role=Role.APPROVER,
        missing="" if reason else action_dialogs.REASON_MISSING,
        act=lambda actor: break_glass.end_break_glass(
            page_frame.context(), actor, record.id, reason=reason
        ),
        done=lambda actor: f"{actor.name} ended {record.id}.",
    )
