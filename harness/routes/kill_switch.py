"""Sets and lifts kill switches. A switch adds no target to a route, so it needs no proof."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from harness.frame.errors import InputError
from harness.frame.people import four_eyes
from harness.frame.people.access import Actor, Role
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit import require_reason
from harness.frame.signing.audit_log import AuditLog
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
from harness.routing.records.interventions import Switches
from harness.routing.records.proposals import Proposals
from harness.routing.records.routes import Routing

LONGEST = timedelta(days=365)


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
        # The candidate may join the chain while the switch is in force.
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
    unaffected: list[str]  # routes without a target that it forces; their plans stay


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
