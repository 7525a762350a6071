"""Says what a freeze holds back: no canary opens, advances or is promoted while its route is
frozen. Rollback, abort and kill switch are never held back.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from harness.control.context import Context
from harness.domain.canary.rollout import RolloutSignal
from harness.domain.errors import Conflict, SignatureInvalid
from harness.domain.routing.freeze import (
    FreezeSpan,
    find_freeze,
    list_freeze_spans,
    measure_frozen_time,
)
from harness.ports import Transaction

# What brings a candidate further, or ends the watch over a promotion.
ONWARD_SIGNALS = frozenset(
    {
        *(RolloutSignal.STEP_DONE, RolloutSignal.ADVANCE),
        *(RolloutSignal.PROVEN, RolloutSignal.PROMOTE),
        *(RolloutSignal.BAKED, RolloutSignal.FINISH),
    }
)


def list_freeze_notices(ctx: Context) -> Sequence[tuple[str, str]]:
    """Lists the freezes in force: what is frozen until when, and why. For everybody to see."""
    now = ctx.clock.now()
    with ctx.store.read() as tx:
        records = tx.freezes.overlapping(now)
    notices: list[tuple[str, str]] = []
    for record in records:
        if record.freeze.starts_at <= now < record.ended_at:
            route, by = record.freeze.route, f"{record.freeze.actor}, {record.freeze.id}"
            scope = "All routes are" if route is None else f"Route {route} is"
            notices.append(_notice(scope, record.ended_at, record.freeze.reason, by))
    for window in ctx.freeze_windows:
        for span in window.list_spans(now, now):
            scope = "All routes are"
            if window.routes:
                scope = f"{', '.join(sorted(window.routes))} (routes) are"
            notices.append(_notice(scope, span.ends_at, span.reason, span.source))
    return notices


def _notice(scope: str, ends_at: datetime, reason: str, source: str) -> tuple[str, str]:
    return (
        f"{scope} frozen until {ends_at:%Y-%m-%d %H:%M} UTC.",
        (
            f"{reason} ({source}). No canary opens, goes on or is promoted; evals, approvals "
            "and shadows go on, and abort, rollback and kill switch work."
        ),
    )


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
    until = f"{span.ends_at:%Y-%m-%d %H:%M} UTC"
    return f"route {route} is frozen until {until} ({span.reason}; {span.source})"


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
