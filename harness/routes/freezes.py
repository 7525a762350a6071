"""Checks whether a candidate may advance (`require_may_go_on`); sets and lifts freezes."""

from collections.abc import Collection, Mapping, Sequence
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
from harness.routing.records.interventions import Freezes
from harness.routing.records.proposals import Proposals

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
    """Explains for each approved proposal, by its route, when its canary opens."""
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
    """Ends a freeze early. Does nothing if the freeze has ended. Needs an approver who is not
    the proposer of a proposal that the freeze holds. Raises NotFound, InputError without a
    reason, NotAllowed.
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
