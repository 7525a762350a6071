"""Throws and lifts kill switches. A switch adds no target to a route, so it needs no proof."""

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
    route: str | None = None  # None for all
    lasts: timedelta | None = None  # None until it is lifted


def throw_switch(
    ctx: Context, actor: Actor, wanted: SwitchRequest, *, source: SwitchSource
) -> KillSwitch:
    """Throws a kill switch. Raises NotAllowed to force all traffic to one's own candidate."""
    actor.require(Role.APPROVER)
    require_reason(wanted.reason, "a switch")
    if wanted.lasts is not None and not timedelta(0) < wanted.lasts <= LONGEST:
        raise InputError("a switch lasts for more than no time, and for a year at the most")
    now = ctx.clock.now()
    with ctx.store.write() as tx:
        _check(tx, wanted)
        switch = KillSwitch(
            id=ctx.chance.token("sw_"),
            route=wanted.route,
            force=wanted.force,
            reason=wanted.reason,
            actor=actor.name,
            created_at=now,
            expires_at=now + wanted.lasts if wanted.lasts else None,
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


def _check(tx: Transaction, wanted: SwitchRequest) -> None:
    if wanted.route is not None:
        routes.require_route(tx, wanted.route)
    name = wanted.force.name
    if wanted.force.names_target:
        known = Routing(tx).targets().values()
        # Several targets may share a name: the switch then means each of them.
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
        # In the chain or not yet: it may come into it while the switch holds.
        ids = (route.incumbent, *route.fallbacks, proposal.candidate)
        forced_plan = _force(switch, ids, stored)
        if forced_plan.in_effect and forced_plan.kept[0] == proposal.candidate:
            four_eyes.check_four_eyes(tx, actor, proposal, "force")


def lift_switch(ctx: Context, actor: Actor, switch: str, *, reason: str) -> SwitchRecord:
    """Lifts a kill switch on every router within two seconds; a second time changes nothing.
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
    affected: list[str]  # whose requests all go where it forces them
    unaffected: list[str]  # that may use nothing of it and keep their plans


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
