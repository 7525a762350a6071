"""Sets and lifts route freezes, for people. Whoever lifts a freeze may not be the proposer of
what it holds back.
"""

from dataclasses import dataclass
from datetime import datetime

from harness.control import audit
from harness.control.context import Context
from harness.control.proposals import four_eyes
from harness.control.routing import routes
from harness.domain.errors import InputError
from harness.domain.formatting import format_date_time
from harness.domain.operations.access import Actor, Role
from harness.domain.operations.audit import require_reason
from harness.domain.routing.freeze import (
    ADDED,
    LIFTED,
    LONGEST,
    Freeze,
    FreezeRecord,
    describe_reach,
)


@dataclass(frozen=True, slots=True)
class FreezeRequest:
    """Describes a freeze that somebody wants to set."""

    route: str | None  # None for all
    ends_at: datetime
    reason: str
    starts_at: datetime | None = None  # None for now


def add_freeze(ctx: Context, actor: Actor, wanted: FreezeRequest) -> Freeze:
    """Freezes a route, or all of them. Raises NotFound for an unknown route, InputError without
    a reason or for a time that makes no sense, NotAllowed.
    """
    actor.require(Role.APPROVER)
    require_reason(wanted.reason, "a freeze")
    now = ctx.clock.now()
    starts_at = max(wanted.starts_at or now, now)
    if wanted.ends_at <= starts_at:
        raise InputError(
            f"the freeze would end at {format_date_time(wanted.ends_at)}, before it begins at "
            f"{format_date_time(starts_at)}: give a later end"
        )
    if wanted.ends_at - now > LONGEST:
        raise InputError("a freeze ends within a year: give an earlier end, and renew it then")
    with ctx.store.write() as tx:
        if wanted.route is not None:
            routes.require_route(tx, wanted.route)
        freeze = Freeze(
            id=ctx.chance.token("fz_"),
            route=wanted.route,
            reason=wanted.reason,
            actor=actor.name,
            created_at=now,
            starts_at=starts_at,
            ends_at=wanted.ends_at,
        )
        tx.freezes.add(freeze)
        audit.record(
            ctx,
            tx,
            actor,
            ADDED,
            describe_reach(freeze.route),
            {
                "freeze": freeze.id,
                "reason": freeze.reason,
                "starts_at": starts_at.isoformat(),
                "ends_at": freeze.ends_at.isoformat(),
            },
        )
    return freeze


def lift_freeze(ctx: Context, actor: Actor, freeze: str, *, reason: str) -> FreezeRecord:
    """Ends a freeze before its time. Again, or late, changes nothing.

    Raises NotFound, InputError without a reason, NotAllowed, also for the proposer of what the
    freeze holds back.
    """
    actor.require(Role.APPROVER)
    require_reason(reason, "to lift a freeze")
    now = ctx.clock.now()
    with ctx.store.write() as tx:
        before = tx.freezes.get(freeze)
        if before.ended_at <= now:
            return before
        for proposal in tx.proposals.open():
            if before.freeze.route in (None, proposal.route):
                four_eyes.check_four_eyes(tx, actor, proposal, "lift a freeze for")
        record = tx.freezes.lift(freeze, actor=actor.name, now=now)
        audit.record(
            ctx,
            tx,
            actor,
            LIFTED,
            describe_reach(record.freeze.route),
            {"freeze": freeze, "reason": reason},
        )
    return record
