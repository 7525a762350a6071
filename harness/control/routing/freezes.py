"""Says what a freeze holds back: no canary opens, advances or is promoted while its route is
frozen. Rollback, abort and kill switch are never held back.

Sets and lifts route freezes, for people. The proposer of a
swap does not lift the freeze that holds it back.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from harness.control import audit
from harness.control.context import Context
from harness.control.proposals import four_eyes
from harness.control.routing import routes
from harness.domain.canary.rollout import RolloutSignal
from harness.domain.errors import Conflict, InputError, SignatureInvalid
from harness.domain.formatting import format_date_time
from harness.domain.operations.access import Actor, Role
from harness.domain.operations.audit import require_reason
from harness.domain.routing.freeze import (
    ADDED,
    LIFTED,
    LONGEST,
    Freeze,
    FreezeRecord,
    FreezeSpan,
    describe_reach,
    find_freeze,
    list_freeze_spans,
    measure_frozen_time,
)
from harness.store.transaction import Transaction

# What brings a candidate further, or ends the watch over a promotion.
ONWARD_SIGNALS = frozenset(
    {
        *(RolloutSignal.STEP_DONE, RolloutSignal.ADVANCE),
        *(RolloutSignal.PROVEN, RolloutSignal.PROMOTE),
        *(RolloutSignal.BAKED, RolloutSignal.FINISH),
    }
)

STILL_WORKS = "Abort, rollback and kill switch work."


@dataclass(frozen=True, slots=True)
class FreezeNotice:
    """Describes a freeze in force, for everybody to see."""

    routes: frozenset[str]  # empty for all
    ends_at: datetime
    reason: str
    source: str  # who set it, or when it comes back every week

    @property
    def scope(self) -> str:
        """Names what is frozen, as the beginning of a sentence: `Routes faq and chat are`."""
        if not self.routes:
            return "All routes are"
        *others, last = sorted(self.routes)
        if not others:
            return f"Route {last} is"
        return f"Routes {', '.join(others)} and {last} are"

    @property
    def heading(self) -> str:
        return f"{self.scope} frozen until {format_date_time(self.ends_at)}."

    @property
    def text(self) -> str:
        why = f"{self.reason.rstrip('.')} ({self.source})."
        return f"{why} No canary opens, goes on or is promoted. {STILL_WORKS}"


def list_freeze_notices(ctx: Context, route: str | None = None) -> Sequence[FreezeNotice]:
    """Lists the freezes in force, of all routes or of one. Raises SignatureInvalid where
    somebody else than Swapgate changed a stored freeze.
    """
    now = ctx.clock.now()
    with ctx.store.read() as tx:
        records = tx.freezes.overlapping(now)
    notices = [
        FreezeNotice(
            _routes(record), record.ended_at, record.freeze.reason, record.freeze.actor
        )
        for record in records
        if record.freeze.starts_at <= now < record.ended_at
    ]
    notices += [
        FreezeNotice(window.routes, span.ends_at, span.reason, span.source)
        for window in ctx.freeze_windows
        for span in window.list_spans(now, now)
    ]
    return [n for n in notices if route is None or not n.routes or route in n.routes]


def list_liftable_freezes(ctx: Context, route: str) -> Sequence[FreezeRecord]:
    """Lists the freezes of a route, or of all, that people set and that have not ended; those
    to come as well. None, where the stored freezes
    cannot be trusted.
    """
    try:
        with ctx.store.read() as tx:
            records = tx.freezes.overlapping(ctx.clock.now())
    except SignatureInvalid:
        return ()
    return [
        record
        for record in records
        if record.freeze.route in (None, route) and record.ended_at > ctx.clock.now()
    ]


def list_unknown_routes(ctx: Context, routes: Collection[str]) -> Sequence[tuple[str, str]]:
    """Lists the routes that the configuration's freezes name and that there are not, each with
    the freeze. routes: that there are.
    """
    return [
        (name, str(window))
        for window in ctx.freeze_windows
        for name in sorted(window.routes.difference(routes))
    ]


def _routes(record: FreezeRecord) -> frozenset[str]:
    route = record.freeze.route
    return frozenset() if route is None else frozenset({route})


def describe_freeze(ctx: Context, tx: Transaction, route: str) -> str:
    """Says until when a route is frozen, and why; empty while it is not.

    Where somebody else than Swapgate changed a stored freeze, the route counts as frozen.
    """
    now = ctx.clock.now()
    try:
        span = find_freeze(_list_spans(ctx, tx, route, now, now), now)
    except SignatureInvalid as error:
        return f"route {route} counts as frozen, since its freezes cannot be trusted: {error}"
    if span is None:
        return ""
    until = format_date_time(span.ends_at)
    return f"route {route} is frozen until {until} ({span.reason}; {span.source})"


def list_refused_signals(ctx: Context, route: str) -> Collection[RolloutSignal]:
    """Lists what a freeze refuses a canary of a route now."""
    with ctx.store.read() as tx:
        return ONWARD_SIGNALS if describe_freeze(ctx, tx, route) else frozenset()


def require_thawed(ctx: Context, tx: Transaction, route: str, act: str) -> None:
    """Checks that a route is not frozen; else raises Conflict. act: `no canary opens`."""
    if frozen := describe_freeze(ctx, tx, route):
        raise Conflict(
            f"{frozen}: {act}. Rollback, abort and kill switch work; wait until it ends, or "
            "lift it: `swapgate route freezes` lists them"
        )


def measure_frozen(ctx: Context, tx: Transaction, route: str, since: datetime) -> timedelta:
    """Tells for how long a route was frozen since a moment: its deadlines stood still then.

    Nothing, where the stored freezes cannot be trusted; the route counts as frozen then.
    """
    now = ctx.clock.now()
    try:
        spans = _list_spans(ctx, tx, route, since, now)
    except SignatureInvalid:
        return timedelta(0)
    return measure_frozen_time(spans, since, now)


def _list_spans(
    ctx: Context, tx: Transaction, route: str, since: datetime, until: datetime
) -> Sequence[FreezeSpan]:
    stored = tx.freezes.overlapping(since)
    return list_freeze_spans(route, stored, ctx.freeze_windows, since, until)


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
