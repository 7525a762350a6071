"""Checks whether a candidate may advance (`require_may_go_on`); sets and lifts freezes and kill
switches. A switch adds no target to a route, so it needs no proof.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from harness.frame.errors import Conflict, InputError, NotAllowed, SignatureInvalid
from harness.frame.formatting import format_date_time
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
from harness.providers.target import Target
from harness.registry import targets
from harness.routes import routes
from harness.routing.context import Context
from harness.routing.freeze import (
    ADDED,
    FROZEN_SIGNALS,
    LIFTED,
    LONGEST,
    OBSERVED_SIGNALS,
    Freeze,
    Hold,
    describe_reach,
    list_holds,
    may_go_on,
    measure_frozen_time,
)
from harness.routing.proposal import Proposal
from harness.routing.records.interventions import Freezes, Switches
from harness.routing.records.proposals import Proposals
from harness.routing.records.routes import Routing

OBSERVE_ONLY: Final = "this installation only observes (control.observe_only)"


def list_freeze_notices(ctx: Context, route: str | None = None) -> Sequence[Hold]:
    now = ctx.clock.now()
    with ctx.store.read() as tx:
        holds = list_holds(Freezes(tx).overlapping(now), ctx.freeze_windows, now, now)
    return [hold for hold in holds if route is None or hold.covers(route)]


def list_liftable_freezes(ctx: Context, route: str) -> Sequence[Freeze]:
    now = ctx.clock.now()
    try:
        with ctx.store.read() as tx:
            records = Freezes(tx).overlapping(now)
    except SignatureInvalid:
        return ()
    return [r for r in records if r.hold.covers(route) and r.ended_at > now]


def list_unknown_routes(ctx: Context, routes: Collection[str]) -> Sequence[tuple[str, str]]:
    return [
        (name, str(window))
        for window in ctx.freeze_windows
        for name in sorted(window.routes.difference(routes))
    ]


def describe_freeze(
    ctx: Context, tx: Transaction, route: str, step: RolloutSignal | None = None
) -> str:
    """Returns why a step is frozen, or "". Invalid signatures of freezes count as a freeze."""
    now = ctx.clock.now()
    try:
        holds = list_holds(Freezes(tx).overlapping(now), ctx.freeze_windows, now, now)
    except SignatureInvalid as error:
        return f"route {route} counts as frozen, because its freezes cannot be trusted: {error}"
    refusing = may_go_on(route, step, holds, now)
    return refusing[0].describe(route) if refusing else ""


def describe_waits(
    ctx: Context, tx: Transaction, approved: Collection[Proposal]
) -> Mapping[str, str]:
    """Explains when the canary of each approved proposal opens. Returns sentences by route."""
    if not approved:
        return {}
    if ctx.observe_only:
        why = f"{OBSERVE_ONLY[0].upper()}{OBSERVE_ONLY[1:]}; its canary opens after that."
        return {proposal.route: why for proposal in approved}
    now, found = ctx.clock.now(), dict[str, str]()
    try:
        holds = list_holds(Freezes(tx).overlapping(now), ctx.freeze_windows, now, now)
    except SignatureInvalid as error:
        why = f"Its route counts as frozen because the freezes cannot be trusted: {error}."
        return {proposal.route: why for proposal in approved}
    for proposal in approved:
        if refusing := may_go_on(proposal.route, None, holds, now):
            frozen = "; ".join(hold.describe(proposal.route) for hold in refusing)
            ends = " ".join(
                f"An approver other than {proposal.proposer} can end it earlier: `swapgate "
                f"route unfreeze {hold.freeze} --reason WHY`."
                for hold in refusing
                if hold.freeze
            )
            found[proposal.route] = (
                f"{frozen[0].upper()}{frozen[1:]}. The canary opens when the freeze ends. "
                f"{ends or 'Only a change of the configuration file ends it earlier.'}"
            )
        else:
            found[proposal.route] = "The canary opens within seconds."
    return found


def require_swaps(ctx: Context, act: str) -> None:
    if ctx.observe_only:
        raise NotAllowed(
            f"{OBSERVE_ONLY}: {act}. Verdicts, records and shadows continue. To allow swaps, "
            "remove the setting from the file and send control a SIGHUP"
        )


def require_may_go_on(
    ctx: Context, tx: Transaction, route: str, step: RolloutSignal | None = None
) -> None:
    """Checks a step. Raises NotAllowed with observe_only, Conflict during a freeze."""
    stays = f"canary does not continue ({step.value})" if step else "no canary opens"
    if step is None or step in OBSERVED_SIGNALS:
        require_swaps(ctx, f"a {stays}" if step else stays)
    if (step is None or step in FROZEN_SIGNALS) and (
        frozen := describe_freeze(ctx, tx, route, step)
    ):
        raise Conflict(
            f"{frozen}: {f'its {stays}' if step else stays}. Rollback, abort and kill switch "
            "work. Wait until it ends, or lift it: `swapgate route freezes` lists the freezes"
        )


def describe_hindrance(ctx: Context, route: str) -> str:
    """Returns why no canary may open now, with the next step, or ""."""
    try:
        with ctx.store.read() as tx:
            require_may_go_on(ctx, tx, route)
    except (Conflict, NotAllowed) as error:
        return str(error)
    return ""


def list_frozen_signals(ctx: Context, route: str) -> Collection[RolloutSignal]:
    with ctx.store.read() as tx:
        return FROZEN_SIGNALS if describe_freeze(ctx, tx, route) else frozenset()


def measure_frozen(ctx: Context, tx: Transaction, route: str, since: datetime) -> timedelta:
    now = ctx.clock.now()
    try:
        holds = list_holds(Freezes(tx).overlapping(since), ctx.freeze_windows, since, now)
    except SignatureInvalid:
        return timedelta(0)
    return measure_frozen_time([h for h in holds if h.covers(route)], since, now)


@dataclass(frozen=True, slots=True)
class FreezeRequest:
    route: str | None  # None for all routes
    ends_at: datetime
    reason: str
    starts_at: datetime | None = None  # None for now


def add_freeze(ctx: Context, actor: Actor, request: FreezeRequest) -> Freeze:
    actor.require(Role.APPROVER)
    require_reason(request.reason, "a freeze")
    now = ctx.clock.now()
    starts_at = max(request.starts_at or now, now)
    if request.ends_at <= starts_at:
        raise InputError(
            f"the freeze would end at {format_date_time(request.ends_at)}, before it begins at "
            f"{format_date_time(starts_at)}: give a later end"
        )
    if request.ends_at - now > LONGEST:
        raise InputError("a freeze ends within a year: give an earlier end, and renew it then")
    id_, route = ctx.chance.token("fz_"), request.route
    freeze = Freeze(id_, route, request.reason, actor.name, now, starts_at, request.ends_at)
    details = {
        "freeze": freeze.id,
        "reason": freeze.reason,
        "starts_at": starts_at.isoformat(),
        "ends_at": freeze.ends_at.isoformat(),
    }
    with ctx.store.write() as tx:
        if route is not None:
            routes.require_route(tx, route)
        Freezes(tx).add(freeze)
        AuditLog(tx).append(actor, ADDED, describe_reach(route), details)
    return freeze


def lift_freeze(ctx: Context, actor: Actor, freeze: str, *, reason: str) -> Freeze:
    """Ends a freeze early; does nothing if it has ended. Raises NotAllowed unless the actor is
    an approver and proposed none of the swaps that the freeze holds. Raises NotFound, and
    InputError without a reason.
    """
    actor.require(Role.APPROVER)
    require_reason(reason, "to lift a freeze")
    now = ctx.clock.now()
    with ctx.store.write() as tx:
        before = Freezes(tx).get(freeze)
        if before.ended_at <= now:
            return before
        for proposal in Proposals(tx).open():
            if before.hold.covers(proposal.route):
                four_eyes.check_four_eyes(tx, actor, proposal, "lift a freeze for")
        record = Freezes(tx).lift(freeze, actor=actor.name, now=now)
        subject = describe_reach(record.route)
        AuditLog(tx).append(actor, LIFTED, subject, {"freeze": freeze, "reason": reason})
    return record


@dataclass(frozen=True, slots=True)
class SwitchRequest:
    force: Force
    reason: str
    route: str | None = None  # None for all routes
    lasts: timedelta | None = None  # None: until it is lifted


def throw_switch(
    ctx: Context, actor: Actor, request: SwitchRequest, *, source: SwitchSource
) -> KillSwitch:
    """Sets a kill switch. Raises NotAllowed if it would force traffic to a candidate that the
    actor proposed.
    """
    actor.require(Role.APPROVER)
    require_reason(request.reason, "a switch")
    if request.lasts is not None and not timedelta(0) < request.lasts <= LONGEST:
        raise InputError("a switch's duration is longer than zero and at most one year")
    now = ctx.clock.now()
    with ctx.store.write() as tx:
        _check(tx, request)
        switch = KillSwitch(
            id=ctx.chance.token("sw_"),
            route=request.route,
            force=request.force,
            reason=request.reason,
            actor=actor.name,
            created_at=now,
            expires_at=now + request.lasts if request.lasts else None,
            source=source,
        )
        _check_four_eyes(tx, actor, switch)
        Switches(tx).add(switch)
        details = {
            "force": str(switch.force),
            "route": switch.route or "all",
            "reason": switch.reason,
            "expires_at": switch.expires_at.isoformat() if switch.expires_at else None,
            "source": source.value,
        }
        AuditLog(tx).append(actor, "switch.throw", f"switch {switch.id}", details)
    return switch


def _check(tx: Transaction, request: SwitchRequest) -> None:
    if request.route is not None:
        routes.require_route(tx, request.route)
    name = request.force.name
    if request.force.names_target:
        known = Routing(tx).targets().values()
        # If several targets share the name, the switch means all of them.
        if not any(name in (target.id, target.name) for target in known):
            targets.find_target(tx, name)
    else:
        targets.require_provider(tx, name)


def _check_four_eyes(tx: Transaction, actor: Actor, switch: KillSwitch) -> None:
    by_name, stored = Routing(tx).table().routes, Routing(tx).targets()
    for proposal in Proposals(tx).open():
        route = by_name.get(proposal.route)
        if route is None or switch.route not in (None, route.name):
            continue
        # Includes the candidate, which may become a target of the route during the switch.
        ids = (route.incumbent, *route.fallbacks, proposal.candidate)
        forced_plan = _force(switch, ids, stored)
        if forced_plan.in_effect and forced_plan.kept[0] == proposal.candidate:
            four_eyes.check_four_eyes(tx, actor, proposal, "force")


def lift_switch(ctx: Context, actor: Actor, switch: str, *, reason: str) -> SwitchRecord:
    """Lifts a kill switch on every router within two seconds. Does nothing if it is lifted.
    Raises NotFound, NotAllowed, InputError without a reason.
    """
    actor.require(Role.APPROVER)
    require_reason(reason, "to lift a switch")
    now = ctx.clock.now()
    with ctx.store.write() as tx:
        before = Switches(tx).get(switch)
        record = Switches(tx).lift(switch, actor=actor.name, now=now)
        if before.lifted_at is None:
            details = {"force": str(record.switch.force), "reason": reason}
            AuditLog(tx).append(actor, "switch.lift", f"switch {switch}", details)
    return record


def _force(switch: KillSwitch, ids: Iterable[str], known: Mapping[str, Target]) -> ForcedPlan:
    return force_plan(switch, [known[id_] for id_ in ids])


@dataclass(frozen=True, slots=True)
class SwitchPreview:
    affected: list[str]  # routes whose requests the switch would redirect
    unaffected: list[str]  # routes that keep their plans, because they lack the target


def preview_switch(ctx: Context, force: Force, route: str | None) -> SwitchPreview:
    switch = KillSwitch("", route, force, "", "", ctx.clock.now(), None, SwitchSource.REST)
    with ctx.store.read() as tx:
        table = Routing(tx).table()
    preview = SwitchPreview([], [])
    for name, reached in sorted(table.routes.items()):
        if route in (None, name):
            forced = _force(switch, sorted(reached.may_answer), table.targets).in_effect
            (preview.affected if forced else preview.unaffected).append(name)
    return preview


def list_live_switches(ctx: Context) -> Sequence[KillSwitch]:
    with ctx.store.read() as tx:
        return active_switches(Switches(tx).not_lifted(), ctx.clock.now())
