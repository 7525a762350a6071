"""Dialogs that act on a route at once: freeze, kill switch, break-glass and drift.

They serve the Routes and Canary pages. Each dialog says what will change before the person
confirms. Settings that change slowly are in `route_settings`.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, timedelta
from typing import Final

import streamlit as st

from dashboard import labels, page_frame
from dashboard.dialog_forms import TYPE_A_MODEL, Form, Opener, dialog
from dashboard.markup import escape, strong
from dashboard.operation_dialogs import operation_openers
from harness.canary import status as canary_status
from harness.evals import drift_watches
from harness.evals.drift_watches import DriftStatus
from harness.frame.errors import SignatureInvalid
from harness.frame.people.access import Actor, Role
from harness.operations.context import Context
from harness.operations.queries import find_route
from harness.proposals import break_glass
from harness.proposals.operations import BREAK_GLASSES
from harness.providers.force import (
    Force,
    ForceKind,
    SwitchSource,
    parse_force,
)
from harness.providers.records import Providers, Targets
from harness.routing.control import freezes, routes
from harness.routing.control.freezes import SwitchPreview, SwitchRequest
from harness.routing.control.operations import SWITCHES

SWITCH_LASTS: Final[Mapping[str, timedelta | None]] = {
    "until it is lifted": None,
    "30 minutes": timedelta(minutes=30),
    "2 hours": timedelta(hours=2),
    "1 day": timedelta(days=1),
}
GLASS_LASTS: Final[Mapping[str, timedelta]] = {
    "1 hour": timedelta(hours=1),
    "4 hours": timedelta(hours=4),
    "1 day": timedelta(days=1),
    "7 days": timedelta(days=7),
}
SHOWN: Final = 5
BUSY: Final = "Break-glass: the route has a canary or a bake. Abort it on Canary first."
WAITS: Final = (
    "Drift waits for a decision: accept the model's answers, or propose another model."
)
HELD_BACK: Final = (
    "No canary opens, advances or is promoted. Evals, approvals and shadows continue, and an "
    "approved canary opens when the freeze ends. Abort, rollback and kill switch work."
)


@dialog(
    "Freeze: no canary opens or advances",
    Role.APPROVER,
    "freeze",
    "ac_unit",
    label="Freeze …",
    width="medium",
)
def add(form: Form, route: str) -> None:
    """Asks for a freeze of a route or of all routes, with its begin and end in UTC."""
    ctx = page_frame.context()
    now = ctx.clock.now()
    reach = form.choose_scope(route)
    left, right = st.columns(2)
    begins = left.datetime_input("From, UTC (empty: now)", None, key=form.key("from"))
    ends = right.datetime_input("Until, UTC", None, key=form.key("until"))
    starts_at = begins and begins.replace(tzinfo=UTC)
    ends_at = ends and ends.replace(tzinfo=UTC)
    live = canary_status.list_canaries(ctx, route=reach)
    held = ", ".join(f"{canary.candidate.name} on {canary.rollout.route}" for canary in live)
    form.say(
        f"Held back: {strong(held)}." if held else "No canary runs there now.",
        HELD_BACK,
    )
    form.need(ends_at, "Choose when the freeze ends first.")
    until = ends_at or now
    form.need(
        until > max(starts_at or now, now),
        "The freeze would end before it begins: choose a later end.",
    )
    scope = "all routes" if reach is None else f"route {route}"
    done = f"froze {scope} until {labels.date_time(until)}."
    freeze = Force(ForceKind.FREEZE, "")
    lasts = until - max(starts_at or now, now)
    request = SwitchRequest(freeze, form.reason(), reach, lasts, starts_at)
    form.submit(
        "Freeze",
        done,
        freezes.set_switch,
        request,
        source=SwitchSource.REST,
    )


def lift_openers(route: str) -> list[Opener]:
    """Returns no button if stored switches cannot be trusted; a banner reports that."""
    try:
        found = freezes.list_liftable_switches(page_frame.context(), route)
    except SignatureInvalid:
        return []
    return [opener for switch in found for opener in operation_openers(SWITCHES, switch)]


@dialog(
    "Kill switch: force a provider or a model",
    Role.APPROVER,
    "switch",
    "emergency_home",
    label="Kill switch …",
    width="medium",
)
def throw(form: Form, route: str) -> None:
    """Asks for a kill switch, and shows which routes it would change."""
    reach = form.choose_scope(route)
    force = form.choose(
        "force",
        "Force or avoid",
        _list_forces(route),
        format_func=_name_force,
        need="Choose a model or a provider first.",
        placeholder="Choose a model or a provider",
    )
    lasts = st.selectbox("How long", list(SWITCH_LASTS), key=form.key("lasts"))
    preview = None
    if force is not None:
        preview = freezes.preview_switch(page_frame.context(), parse_force(force), reach)
        form.say(*_effect(preview))
    form.need(preview is not None and preview.affected, "It would change no route.")
    scope = "all routes" if reach is None else f"route {reach}"
    done = f"threw the kill switch for {scope}: {_name_force(force or '')} {lasts}."
    reason = form.reason()

    def act(ctx: Context, actor: Actor) -> None:
        request = SwitchRequest(parse_force(force or ""), reason, reach, SWITCH_LASTS[lasts])
        # The audit log has no separate source for the dashboard.
        freezes.set_switch(ctx, actor, request, source=SwitchSource.REST)

    form.submit("Throw the switch", done, act)


def _list_forces(route: str) -> list[str]:
    """Lists what a switch can force or avoid: the route's targets, and all providers."""
    with page_frame.context().store.read() as tx:
        known = Targets(tx).all()
        own = routes.require_route(tx, route).may_answer
        providers = sorted(Providers(tx).all())
    names = sorted({known[target].name for target in own})
    forces = [f"target:{name}" for name in names] + [f"provider:{name}" for name in providers]
    return [*forces, *(f"avoid:{force}" for force in forces)]


def _name_force(force: str) -> str:
    avoided = force.removeprefix("avoid:")
    kind, _, name = avoided.partition(":")
    phrase = f"{name} (the whole provider)" if kind == "provider" else name
    return phrase if avoided == force else f"all but {phrase}"


def _effect(preview: SwitchPreview) -> Sequence[str]:
    """Describes which routes a switch changes, and which lack evidence for it."""
    count = labels.plural(len(preview.affected), "route")
    parts = [
        f"{strong(count)} within 2 s: {escape(labels.few(preview.affected, SHOWN) or 'none')}."
    ]
    if preview.unaffected:
        kept = labels.plural(len(preview.unaffected), "route")
        names = escape(labels.few(preview.unaffected, SHOWN))
        parts.append(f"{strong(kept)} without evidence for it: unchanged ({names}).")
    return parts


def break_glass_openers(route: str) -> list[Opener]:
    """Lists the buttons for break-glass. Without valid signatures of the stored break-glasses,
    there is no button, and a banner reports the fault.
    """
    ctx = page_frame.context()
    try:
        record = next(
            (r for r in break_glass.list_open_break_glasses(ctx) if r.route == route), None
        )
    except SignatureInvalid:
        return []
    if record is None:
        missing = BUSY if find_route(ctx, route).experiment is not None else ""
        return [propose.opener(route, missing=missing)]
    return operation_openers(BREAK_GLASSES, record)


@dialog(
    "Break-glass: serve without proof",
    Role.APPROVER,
    "glass",
    "warning",
    label="Break-glass …",
    width="medium",
)
def propose(form: Form, route: str) -> None:
    """Asks for a break-glass: a model without proof, which a second person must confirm."""
    ctx = page_frame.context()
    name = strong(page_frame.incumbent_name(ctx, route))
    form.say(
        f"The model gets all traffic of route {strong(route)} without evals, gate or canary, "
        f"instead of {name}. Nothing changes until a second person, an admin, confirms it. "
        f"At its end {name} returns."
    )
    target = form.choose_or_type(
        "target",
        "Model",
        page_frame.candidates(ctx, route),
        need="Choose a model first.",
        placeholder=TYPE_A_MODEL,
    )
    lasts = form.pick("lasts", "How long", GLASS_LASTS)
    through = st.checkbox("Also while the route is frozen", key=form.key("through"))
    reason = form.reason()
    done = (
        f"asked for a break-glass of route {route}; a second person must confirm it within "
        "an hour."
    )
    form.submit(
        "Ask for it",
        done,
        break_glass.propose_break_glass,
        route,
        target,
        lasts=lasts,
        reason=reason,
        through_freeze=through,
    )


def drift_openers(route: str, statuses: Sequence[DriftStatus]) -> list[Opener]:
    """Lists the buttons of the drift watch. While a drift waits for a decision, no check may
    start.
    """
    calm = [status for status in statuses if not is_drifted(status)]
    return [
        run.opener(route, calm, missing="" if calm else WAITS),
        accept.opener(route, statuses),
    ]


def is_drifted(status: DriftStatus) -> bool:
    return status.state == drift_watches.DRIFTED


@dialog(
    "Check for drift now",
    Role.PROPOSER,
    "drift-run",
    "refresh",
    label="Check for drift now …",
)
def run(
    form: Form,
    route: str,
    statuses: Sequence[DriftStatus],
) -> None:
    """Asks to check a route's model for drift now."""
    model = statuses[0].model
    suite = _choose_suite(form, statuses)
    form.say(
        f"The control process asks {strong(model)} the items of {strong(suite)} now, outside "
        "of the schedule, and compares its answers with the baseline. The month's spending "
        "counts the calls as drift checks."
    )
    page_frame.warn_without_control()
    done = f"asked {model} again; the drift watch of route {route} shows the result."
    form.submit("Check it", done, drift_watches.start_checks, route, suite=suite)


@dialog(
    "Accept how it answers now",
    Role.APPROVER,
    "drift",
    "task_alt",
    label="Accept how it answers now …",
    width="medium",
)
def accept(
    form: Form,
    route: str,
    statuses: Sequence[DriftStatus],
) -> None:
    """Asks to accept a model's present answers as the new baseline."""
    # A suite with drift comes first.
    suite = _choose_suite(form, sorted(statuses, key=lambda status: not is_drifted(status)))
    status = next(status for status in statuses if status.suite == suite)
    evidence = status.last.evidence if status.last else None
    found = f" So far: {escape(evidence.change_text)}." if evidence else ""
    others = ", ".join(name for name in status.routes if name != route)
    also = f" The model also serves {strong(others)}." if others else ""
    form.say(
        f"The control process measures a new baseline of {strong(status.model)} on "
        f"{strong(suite)}. Later checks compare with it, and this drift's alert "
        f"ends.{found}{also}"
    )
    page_frame.warn_without_control()
    done = f"accepted how {status.model} answers on suite {suite}: a new baseline is measured."
    reason = form.reason()
    form.submit(
        "Accept it",
        done,
        drift_watches.accept_baseline,
        route,
        suite=suite,
        reason=reason,
    )


def _choose_suite(form: Form, statuses: Sequence[DriftStatus]) -> str:
    """Asks for a suite, if there are several."""
    names = [status.suite for status in statuses]
    return names[0] if len(names) == 1 else st.selectbox("Suite", names, key=form.key("suite"))
