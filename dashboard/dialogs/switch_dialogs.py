"""The dialogs that throw and lift a kill switch. The first says beforehand which routes it
would change; both ask for a reason before their button works.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Final

import streamlit as st

from dashboard import page_frame
from dashboard.dialogs import action_dialogs
from dashboard.dialogs.action_dialogs import Opener
from dashboard.text import html, labels
from dashboard.text.html import escape, strong
from harness.control.routing import kill_switch, routes
from harness.control.routing.kill_switch import SwitchPreview, SwitchRequest
from harness.domain.operations.access import Role
from harness.domain.routing.kill_switch import KillSwitch, SwitchSource, parse_force

LASTS: Final[Mapping[str, timedelta | None]] = {
    "until it is lifted": None,
    "30 minutes": timedelta(minutes=30),
    "2 hours": timedelta(hours=2),
    "1 day": timedelta(days=1),
}
SHOWN: Final = 5


def kill_switch_opener(route: str) -> Opener:
    """Describes the button that opens the dialog for a route."""
    icon = ":material/emergency_home:"
    return Opener("Kill switch …", icon, partial(throw, route), "kill-switch", Role.APPROVER)


@action_dialogs.dialog("Kill switch: force a provider or a model", width="medium")
def throw(route: str) -> None:
    """Asks what is forced, where, how long and why."""
    choices = _list_forces(route)
    reach = action_dialogs.ask_reach(route, f"where-{route}")
    force = st.selectbox(
        "Send all requests to",
        choices,
        index=None,
        format_func=_say,
        placeholder="Choose a model or a provider",
        key=f"force-{route}",
    )
    lasts = st.selectbox("How long", list(LASTS), key=f"lasts-{route}")
    changed = False
    if force is not None:
        preview = kill_switch.preview_switch(page_frame.context(), parse_force(force), reach)
        changed = bool(preview.affected)
        st.html(_effect(preview))
    reason = action_dialogs.ask_reason(f"switch-why-{route}")
    missing = "" if force else "Choose what is forced first."
    missing = missing or ("" if changed else "It would change no route.")
    action_dialogs.submit(
        "Throw the switch",
        key=f"throw-{route}",
        role=Role.APPROVER,
        missing=missing or ("" if reason else action_dialogs.REASON_MISSING),
        act=lambda actor: kill_switch.throw_switch(
            page_frame.context(),
            actor,
            SwitchRequest(parse_force(force or ""), reason, reach, LASTS[lasts]),
            # People throw both through the control plane.
            source=SwitchSource.REST,
        ),
        done=lambda actor: f"{actor.name} forced {_say(force or '')} {lasts}.",
    )


def _list_forces(route: str) -> list[str]:
    """Lists what can be forced: the route's own models, then all providers."""
    with page_frame.context().store.read() as tx:
        known, own = tx.routing.targets(), routes.require_route(tx, route).may_answer
        providers = sorted(tx.providers.all())
    names = sorted({known[target].name for target in own})
    return [*(f"target:{name}" for name in names), *(f"provider:{name}" for name in providers)]


def _say(force: str) -> str:
    kind, _, name = force.partition(":")
    return f"{name} (the whole provider)" if kind == "provider" else name


def _effect(preview: SwitchPreview) -> str:
    """Says which routes change within 2 s, and which keep their plans, since they may not use
    what is forced.
    """
    count = labels.plural(len(preview.affected), "route")
    parts = [f"{strong(count)} within 2 s: {escape(_named(preview.affected))}."]
    if preview.unaffected:
        kept = labels.plural(len(preview.unaffected), "route")
        parts.append(
            f"{strong(kept)} without evidence for it: unchanged "
            f"({escape(_named(preview.unaffected))})."
        )
    return html.block("".join(f"<p>{part}</p>" for part in parts))


def _named(routes: Sequence[str]) -> str:
    more = f" and {len(routes) - SHOWN} more" if len(routes) > SHOWN else ""
    return (", ".join(routes[:SHOWN]) or "none") + more


@action_dialogs.dialog("Lift the kill switch")
def lift(switch: KillSwitch) -> None:
    """Asks why the switch is lifted; the routes go back to their plans."""
    scope = "All routes" if switch.route is None else f"Route {switch.route}"
    st.html(
        html.block(
            f"<p>{escape(scope)} {'go' if switch.route is None else 'goes'} back to the plan "
            f"within 2 s: {strong(switch.force)} is no longer forced.</p>"
            f'<p class="note">{escape(switch.actor)} threw it: {escape(switch.reason)}</p>'
        )
    )
    reason = action_dialogs.ask_reason(f"lift-why-{switch.id}")
    action_dialogs.submit(
        "Lift it",
        key=f"lift-now-{switch.id}",
        role=Role.APPROVER,
        missing="" if reason else action_dialogs.REASON_MISSING,
        act=lambda actor: kill_switch.lift_switch(
            page_frame.context(), actor, switch.id, reason=reason
        ),
        done=lambda actor: f"{actor.name} lifted the switch of {switch.force}.",
    )
