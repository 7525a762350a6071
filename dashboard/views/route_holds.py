"""Dialogs that act on a route at once: freeze, kill switch, break-glass and drift.

They serve the Routes and Canary pages. Each dialog says what will change before the person
confirms. Settings that change slowly are in `route_settings`.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
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

SWITCH_DURATIONS: Final[Mapping[str, timedelta | None]] = {
    "until it is lifted": None,
    "30 minutes": timedelta(minutes=30),
    "2 hours": timedelta(hours=2),
    "1 day": timedelta(days=1),
}
BREAK_GLASS_DURATIONS: Final[Mapping[str, timedelta]] = {
    "1 hour": timedelta(hours=1),
    "4 hours": timedelta(hours=4),
    "1 day": timedelta(days=1),
    "7 days": timedelta(days=7),
}
MOST_SHOWN_ROUTES: Final = 5
CANARY_OBSTACLE: Final = (
    "Break-glass: the route has a canary or a bake. Abort it on Canary first."
)
DRIFT_OBSTACLE: Final = (
    "Drift waits for a decision: accept the model's answers, or propose another model."
)
FREEZE_NOTE: Final = (
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
    """Asks for a freeze of one route or of all routes, from and until the reader's times."""
    ctx = page_frame.context()
    now = ctx.clock.now()
    scope_route = form.choose_scope(route)
    left, right = st.columns(2)
    entered_start = left.datetime_input(
        "From, your time (empty: now)", None, key=form.key("from")
    )
    entered_end = right.datetime_input("Until, your time", None, key=form.key("until"))
    zone = labels.reader_zone()
    starts_at = entered_start and entered_start.replace(tzinfo=zone)
    ends_at = entered_end and entered_end.replace(tzinfo=zone)
    canaries = canary_status.list_canaries(ctx, route=scope_route)
    held_canaries = ", ".join(
        f"{canary.candidate.name} on {canary.rollout.route}" for canary in canaries
    )
    form.say(
        f"Held back: {strong(held_canaries)}."
        if held_canaries
        else "No canary runs there now.",
        FREEZE_NOTE,
    )
    form.need(ends_at, "Choose when the freeze ends first.")
    freeze_end = ends_at or now
    form.need(
        freeze_end > max(starts_at or now, now),
        "The freeze would end before it begins: choose a later end.",
    )
    scope_text = "all routes" if scope_route is None else f"route {route}"
    done_text = f"froze {scope_text} until {labels.date_time(freeze_end)}."
    freeze = Force(ForceKind.FREEZE, "")
    duration = freeze_end - max(starts_at or now, now)
    request = SwitchRequest(freeze, form.reason(), scope_route, duration, starts_at)
    form.submit(
        "Freeze",
        done_text,
        freezes.set_switch,
        request,
        source=SwitchSource.REST,
    )


def lift_openers(route: str) -> list[Opener]:
    """Lists the buttons that lift the route's switches. If a stored switch has an invalid
    signature, there is no button, and a banner reports the fault.
    """
    try:
        switches = freezes.list_liftable_switches(page_frame.context(), route)
    except SignatureInvalid:
        return []
    return [opener for switch in switches for opener in operation_openers(SWITCHES, switch)]


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
    scope_route = form.choose_scope(route)
    force = form.choose(
        "force",
        "Force or avoid",
        _list_forces(route),
        format_func=_name_force,
        need="Choose a model or a provider first.",
        placeholder="Choose a model or a provider",
    )
    duration = st.selectbox("How long", list(SWITCH_DURATIONS), key=form.key("lasts"))
    preview = None
    if force is not None:
        preview = freezes.preview_switch(page_frame.context(), parse_force(force), scope_route)
        form.say(*_describe_effect(preview))
    form.need(preview is not None and preview.affected, "It would change no route.")
    scope_text = "all routes" if scope_route is None else f"route {scope_route}"
    done_text = (
        f"threw the kill switch for {scope_text}: {_name_force(force or '')} {duration}."
    )
    reason = form.reason()

    def act(ctx: Context, actor: Actor) -> None:
        request = SwitchRequest(
            parse_force(force or ""), reason, scope_route, SWITCH_DURATIONS[duration]
        )
        # The audit log has no separate source for the dashboard.
        freezes.set_switch(ctx, actor, request, source=SwitchSource.REST)

    form.submit("Throw the switch", done_text, act)


def _list_forces(route: str) -> list[str]:
    """Lists the choices of a switch: to force or avoid a target of the route, or a provider."""
    with page_frame.context().store.read() as tx:
        targets = Targets(tx).all()
        own_targets = routes.require_route(tx, route).may_answer
        providers = sorted(Providers(tx).all())
    names = sorted({targets[target].name for target in own_targets})
    forces = [f"target:{name}" for name in names] + [f"provider:{name}" for name in providers]
    return [*forces, *(f"avoid:{force}" for force in forces)]


def _name_force(force: str) -> str:
    subject = force.removeprefix("avoid:")
    kind, _, name = subject.partition(":")
    phrase = f"{name} (the whole provider)" if kind == "provider" else name
    return phrase if subject == force else f"all but {phrase}"


def _describe_effect(preview: SwitchPreview) -> Sequence[str]:
    """Describes the routes that a switch changes, and the routes without evidence for it."""
    count = labels.plural(len(preview.affected), "route")
    affected = labels.few(preview.affected, MOST_SHOWN_ROUTES) or "none"
    parts = [f"{strong(count)} within 2 s: {escape(affected)}."]
    if preview.unaffected:
        unaffected_count = labels.plural(len(preview.unaffected), "route")
        names = escape(labels.few(preview.unaffected, MOST_SHOWN_ROUTES))
        parts.append(
            f"{strong(unaffected_count)} without evidence for it: unchanged ({names})."
        )
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
        missing = CANARY_OBSTACLE if find_route(ctx, route).experiment is not None else ""
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
    incumbent = strong(page_frame.incumbent_name(ctx, route))
    form.say(
        f"The model gets all traffic of route {strong(route)} without evals, gate or canary, "
        f"instead of {incumbent}. Nothing changes until a second person, an admin, confirms "
        f"it. At its end {incumbent} returns."
    )
    target = form.choose_or_type(
        "target",
        "Model",
        page_frame.candidates(ctx, route),
        need="Choose a model first.",
        placeholder=TYPE_A_MODEL,
    )
    duration = form.pick("lasts", "How long", BREAK_GLASS_DURATIONS)
    through_freeze = st.checkbox("Also while the route is frozen", key=form.key("through"))
    reason = form.reason()
    done_text = (
        f"asked for a break-glass of route {route}; a second person must confirm it within "
        "an hour."
    )
    form.submit(
        "Ask for it",
        done_text,
        break_glass.propose_break_glass,
        route,
        target,
        lasts=duration,
        reason=reason,
        through_freeze=through_freeze,
    )


def drift_openers(route: str, statuses: Sequence[DriftStatus]) -> list[Opener]:
    """Lists the buttons of the drift watch. While a drift waits for a decision, no check may
    start.
    """
    without_drift = [status for status in statuses if not is_drifted(status)]
    return [
        run.opener(route, without_drift, missing="" if without_drift else DRIFT_OBSTACLE),
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
    done_text = f"asked {model} again; the drift watch of route {route} shows the result."
    form.submit("Check it", done_text, drift_watches.start_checks, route, suite=suite)


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
    evidence_text = f" So far: {escape(evidence.change_text)}." if evidence else ""
    other_routes = ", ".join(name for name in status.routes if name != route)
    other_routes_text = (
        f" The model also serves {strong(other_routes)}." if other_routes else ""
    )
    form.say(
        f"The control process measures a new baseline of {strong(status.model)} on "
        f"{strong(suite)}. Later checks compare with it, and this drift's alert "
        f"ends.{evidence_text}{other_routes_text}"
    )
    page_frame.warn_without_control()
    done_text = (
        f"accepted how {status.model} answers on suite {suite}: a new baseline is measured."
    )
    reason = form.reason()
    form.submit(
        "Accept it",
        done_text,
        drift_watches.accept_baseline,
        route,
        suite=suite,
        reason=reason,
    )


def _choose_suite(form: Form, statuses: Sequence[DriftStatus]) -> str:
    """Asks for a suite if there are several; returns the only one otherwise."""
    names = [status.suite for status in statuses]
    return names[0] if len(names) == 1 else st.selectbox("Suite", names, key=form.key("suite"))
