"""Checks whether a candidate may advance (`require_step_allowed`), and sets and lifts switches.
A switch adds no target to a route, so it needs no proof.

A freeze stops candidates and changes no request. It comes from the configuration's weekly
windows, from `control.observe_only`, or from a person. The other switches force or avoid a
provider or a target at once. The rules are pure: `harness.routing.freeze` and
`harness.providers.force`.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from harness.frame.errors import Conflict, InputError, SignatureInvalid
from harness.frame.people import four_eyes
from harness.frame.people.access import Actor, Role
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit import require_reason
from harness.frame.signing.audit_log import AuditLog
from harness.gate.online.rollout import RolloutSignal
from harness.providers.force import (
    Force,
    ForcedPlan,
    KillSwitch,
    SwitchRecord,
    SwitchSource,
    active_switches,
    force_plan,
)
from harness.providers.records import Targets
from harness.providers.registry import targets
from harness.providers.target import Target
from harness.routing.context import RoutingContext
from harness.routing.control import routes
from harness.routing.freeze import (
    FROZEN_SIGNALS,
    Freeze,
    build_standing_freeze,
    measure_frozen_time,
)
from harness.routing.proposal import Proposal
from harness.routing.records.interventions import Switches
from harness.routing.records.proposals import Proposals
from harness.routing.records.routes import Routing

MAX_DURATION: Final = timedelta(days=365)
OBSERVE_ONLY: Final = (
    "this installation only observes",
    "control.observe_only",
)


def load_freezes(
    ctx: RoutingContext,
    tx: Transaction,
    route: str | None = None,
    since: datetime | None = None,
) -> Sequence[Freeze]:
    """Lists the freezes in force now, or since a time, the latest end first. If the stored
    freezes have an invalid signature, all routes count as frozen.
    """
    now = ctx.clock.now()
    since = since or now
    freezes = [
        freeze for window in ctx.freeze_windows for freeze in window.list_freezes(since, now)
    ]
    if ctx.observe_only:
        freezes.append(build_standing_freeze(*OBSERVE_ONLY, now))
    try:
        freezes += Switches(tx).freezes(since)
    except SignatureInvalid as error:
        reason = f"the stored freezes cannot be trusted: {error}"
        freezes.append(build_standing_freeze(reason, "the database", now))
    in_force = [
        f for f in freezes if f.covers(route) and f.starts_at <= now and f.ends_at > since
    ]
    return sorted(in_force, key=lambda freeze: freeze.ends_at, reverse=True)


def list_freeze_notices(ctx: RoutingContext, route: str | None = None) -> Sequence[Freeze]:
    """Lists the freezes that hold now, the latest end first.

    Args:
        route: None for all routes.
    """
    with ctx.store.read() as tx:
        return load_freezes(ctx, tx, route)


def list_unknown_routes(
    ctx: RoutingContext, routes: Collection[str]
) -> Sequence[tuple[str, str]]:
    """Lists (route, window) for each weekly window that names a route that does not exist."""
    return [
        (name, str(window))
        for window in ctx.freeze_windows
        for name in sorted(window.routes.difference(routes))
    ]


def list_refusals_of_step(
    ctx: RoutingContext,
    tx: Transaction,
    route: str,
    step: RolloutSignal | None = None,
) -> Sequence[str]:
    """Lists the reasons that forbid a step, as texts; empty if the step is allowed.

    Args:
        step: None for the opening of a canary.

    No freeze forbids a rollback or an abort.
    """
    if step is not None and step not in FROZEN_SIGNALS:
        return ()
    return [freeze.describe(route) for freeze in load_freezes(ctx, tx, route)]


def require_step_allowed(
    ctx: RoutingContext,
    tx: Transaction,
    route: str,
    step: RolloutSignal | None = None,
) -> None:
    """Checks a step. Raises Conflict during a freeze.

    Args:
        step: None for the opening of a canary.
    """
    if reasons := list_refusals_of_step(ctx, tx, route, step):
        consequence = (
            f"its canary does not continue ({step.value})" if step else "no canary opens"
        )
        raise Conflict(
            f"{reasons[0]}: {consequence}. Rollback, abort and kill switch work. Wait until it "
            "ends, or lift it: `swapproof switch list` lists the freezes"
        )


def describe_canary_openings(
    ctx: RoutingContext,
    tx: Transaction,
    approved: Collection[Proposal],
) -> Mapping[str, str]:
    """Explains when the canary of each approved proposal opens. Returns sentences by route."""
    all_freezes = load_freezes(ctx, tx) if approved else ()
    openings = dict[str, str]()
    for proposal in approved:
        if freezes := [freeze for freeze in all_freezes if freeze.covers(proposal.route)]:
            reason = "; ".join(freeze.describe(proposal.route) for freeze in freezes)
            how_to_lift = "".join(
                f" An approver other than {proposal.proposer} can end it earlier: `swapproof "
                f"switch lift {freeze.switch} --reason WHY`."
                for freeze in freezes
                if freeze.switch
            )
            openings[proposal.route] = (
                f"{reason[0].upper()}{reason[1:]}. The canary opens when the freeze ends."
                f"{how_to_lift}"
            )
        else:
            openings[proposal.route] = "The canary opens within seconds."
    return openings


def measure_frozen(
    ctx: RoutingContext,
    tx: Transaction,
    route: str,
    since: datetime,
) -> timedelta:
    """Measures how long a route was frozen since a time, so that a canary's deadlines can
    exclude it.
    """
    return measure_frozen_time(load_freezes(ctx, tx, route, since), since, ctx.clock.now())


@dataclass(frozen=True, slots=True)
class SwitchRequest:
    """A person's request for a switch, before anything is checked."""

    force: Force
    reason: str
    route: str | None = None  # None for all routes
    lasts: timedelta | None = None  # None: until a person lifts it
    starts_at: datetime | None = None  # only of a freeze; None for now


def set_switch(
    ctx: RoutingContext,
    actor: Actor,
    request: SwitchRequest,
    *,
    source: SwitchSource,
) -> KillSwitch:
    """Sets a switch; routers follow it within two seconds.

    Needs an approver and a reason.

    Args:
        source: the interface through which the person acts.

    Raises NotAllowed if it would force traffic to a candidate that the actor proposed.
    Raises InputError for a freeze without an end, for a later start of another switch, and for
    more than a year. Raises NotFound for an unknown route, target or provider.
    """
    actor.require(Role.APPROVER)
    require_reason(request.reason, "a switch")
    if request.lasts is not None and not timedelta(0) < request.lasts <= MAX_DURATION:
        raise InputError("a switch's duration is longer than zero and at most one year")
    now = ctx.clock.now()
    if request.force.freezes and request.lasts is None:
        raise InputError("a freeze needs an end: give its duration")
    if request.starts_at is not None and not request.force.freezes:
        raise InputError("only a freeze can start later")
    starts_at = max(request.starts_at or now, now)
    if starts_at - now > MAX_DURATION:
        raise InputError("a freeze begins within one year")
    with ctx.store.write() as tx:
        _check_names_exist(tx, request)
        switch = KillSwitch(
            id=ctx.chance.token("sw_"),
            route=request.route,
            force=request.force,
            reason=request.reason,
            actor=actor.name,
            created_at=now,
            expires_at=starts_at + request.lasts if request.lasts else None,
            source=source,
            starts_at=starts_at if starts_at > now else None,
        )
        _check_four_eyes(tx, actor, switch)
        Switches(tx).add(switch)
        details = {
            "force": str(switch.force),
            "route": switch.route or "all",
            "reason": switch.reason,
            "starts_at": starts_at.isoformat(),
            "expires_at": switch.expires_at.isoformat() if switch.expires_at else None,
            "source": source.value,
        }
        AuditLog(tx).append(actor, "switch.throw", f"switch {switch.id}", details)
    return switch


def _check_names_exist(tx: Transaction, request: SwitchRequest) -> None:
    """Checks that the route, target or provider of a switch exists. Raises NotFound,
    InputError.
    """
    if request.route is not None:
        routes.require_route(tx, request.route)
    name = request.force.name
    if request.force.freezes:
        return
    if request.force.names_target:
        targets_ = Targets(tx).all().values()
        # If several targets share the name, the switch means all of them.
        if not any(name in (target.id, target.name) for target in targets_):
            targets.find_target(tx, name)
    else:
        targets.require_provider(tx, name)


def _check_four_eyes(
    tx: Transaction,
    actor: Actor,
    switch: KillSwitch,
) -> None:
    """Raises NotAllowed if the switch would make a candidate serve that the actor proposed.

    A forcing switch would otherwise promote a candidate that no other person approved.
    """
    routes_by_name = Routing(tx).table().routes
    targets_by_id = Targets(tx).all()
    for proposal in Proposals(tx).open():
        route = routes_by_name.get(proposal.route)
        if route is None or not switch.covers(route.name):
            continue
        # Includes the candidate, because a canary may add it to the route while the switch is
        # in force.
        target_ids = (route.incumbent, *route.fallbacks, proposal.candidate)
        forced_plan = _apply_switch(switch, target_ids, targets_by_id)
        if forced_plan.in_effect and forced_plan.kept[0] == proposal.candidate:
            four_eyes.check_four_eyes(tx, actor, proposal, "force")


def lift_switch(
    ctx: RoutingContext,
    actor: Actor,
    switch: str,
    *,
    reason: str,
) -> SwitchRecord:
    """Lifts a switch; routers follow within two seconds. Does nothing if it was lifted already.
    A freeze cannot be lifted by the proposer of a proposal that it stops. Raises NotFound,
    NotAllowed, and InputError without a reason.
    """
    actor.require(Role.APPROVER)
    require_reason(reason, "to lift a switch")
    now = ctx.clock.now()
    with ctx.store.write() as tx:
        stored = Switches(tx).get(switch)
        for proposal in Proposals(tx).open() if stored.switch.force.freezes else ():
            if stored.switch.covers(proposal.route):
                four_eyes.check_four_eyes(tx, actor, proposal, "lift a freeze for")
        lifted = Switches(tx).lift(switch, actor=actor.name, now=now)
        if stored.lifted_at is None:
            details = {"force": str(lifted.switch.force), "reason": reason}
            AuditLog(tx).append(actor, "switch.lift", f"switch {switch}", details)
    return lifted


def _apply_switch(
    switch: KillSwitch,
    ids: Iterable[str],
    known: Mapping[str, Target],
) -> ForcedPlan:
    return force_plan(switch, [known[id_] for id_ in ids])


@dataclass(frozen=True, slots=True)
class SwitchPreview:
    """The routes that a switch would change, before a person throws it."""

    affected: list[str]  # routes with requests that the switch would redirect
    unaffected: list[str]  # routes that keep their plans, because they lack the target


def preview_switch(
    ctx: RoutingContext,
    force: Force,
    route: str | None,
) -> SwitchPreview:
    """Lists the routes that a switch would redirect. Stores nothing.

    Args:
        route: None for all routes.
    """
    switch = KillSwitch("", route, force, "", "", ctx.clock.now(), None, SwitchSource.REST)
    with ctx.store.read() as tx:
        table = Routing(tx).table()
    preview = SwitchPreview([], [])
    for name, covered_route in sorted(table.routes.items()):
        if route in (None, name):
            is_forced = _apply_switch(
                switch, sorted(covered_route.may_answer), table.targets
            ).in_effect
            (preview.affected if is_forced else preview.unaffected).append(name)
    return preview


def list_liftable_switches(ctx: RoutingContext, route: str) -> Sequence[KillSwitch]:
    """Lists the stored switches for a route that are neither lifted nor expired."""
    now = ctx.clock.now()
    with ctx.store.read() as tx:
        liftable = Switches(tx).liftable()
    return [switch for switch in liftable if switch.covers(route) and not switch.is_over(now)]


def list_live_switches(ctx: RoutingContext) -> Sequence[KillSwitch]:
    """Lists the stored switches that change plans now, strongest first, without freezes."""
    with ctx.store.read() as tx:
        return active_switches(Switches(tx).not_lifted(), ctx.clock.now())
