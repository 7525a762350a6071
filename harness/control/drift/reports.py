"""What the drift watch knows, for the doors. Reads only."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from harness.control.context import Context
from harness.control.drift import text
from harness.control.drift import watches as watching
from harness.control.drift.text import ItemChange
from harness.control.routing import routes
from harness.domain.drift.watch import (
    DriftCheck,
    DriftCheckState,
    DriftWatch,
    DriftWatchState,
    counted_checks,
    next_check_due,
)


@dataclass(frozen=True, slots=True)
class DriftStatus:
    """One watched suite of one incumbent. watch: None until its first turn. state: starting |
    baseline | watching | drifted. comparisons: with the baseline. next_at: None while a run is
    on, and while drift waits for a person.
    """

    routes: tuple[str, ...]
    suite: str
    model: str
    state: str
    watch: DriftWatch | None
    comparisons: int
    running: str | None
    last: DriftCheck | None
    next_at: datetime | None


@dataclass(frozen=True, slots=True)
class DriftReport:
    status: DriftStatus
    changes: tuple[ItemChange, ...]


def list_drift_status(ctx: Context, *, route: str = "") -> list[DriftStatus]:
    """Every watched pair of incumbent and suite. Raises NotFound for an unknown route."""
    with ctx.store.read() as tx:
        if route:
            routes.require_route(tx, route)
        pairs = [
            each for each in watching.list_watched_pairs(ctx, tx) if route in ("", *each.routes)
        ]
        open_ = {(each.target, each.suite): each for each in tx.drift.watches(open_only=True)}
        targets = tx.routing.targets()
        found = []
        for pair in pairs:
            watch = open_.get((pair.target, pair.suite))
            checks = tx.drift.checks(watch.id) if watch else ()
            found.append(_status(ctx, pair, targets[pair.target].name, watch, checks))
    return found


def _status(
    ctx: Context,
    pair: watching.WatchedPair,
    model: str,
    watch: DriftWatch | None,
    checks: Sequence[DriftCheck],
) -> DriftStatus:
    measured = counted_checks(checks)
    ended = [each for each in checks if each.state is not DriftCheckState.RUNNING]
    running = checks[-1].run if len(ended) < len(checks) else None
    drifted = watch is not None and watch.state is DriftWatchState.DRIFTED
    due = next_check_due(ended, pair.policy.every_s, ctx.clock.now())
    return DriftStatus(
        routes=pair.routes,
        suite=pair.suite,
        model=model,
        state=_state(watch, measured),
        watch=watch,
        comparisons=max(len(measured) - 1, 0),
        running=running,
        last=ended[-1] if ended else None,
        next_at=None if running or drifted or watch is None else due,
    )


def _state(watch: DriftWatch | None, measured: Sequence[DriftCheck]) -> str:
    if watch is None:
        return "starting"
    if watch.state is DriftWatchState.WATCHING and not measured:
        return "baseline"
    return watch.state.value


def list_drift_reports(ctx: Context, route: str, *, suite: str = "") -> list[DriftReport]:
    """Each watched suite of the route with the items that changed since its baseline."""
    found = [each for each in list_drift_status(ctx, route=route) if suite in ("", each.suite)]
    with ctx.store.read() as tx:
        return [
            DriftReport(
                each,
                tuple(text.list_item_changes(tx, tx.drift.checks(each.watch.id)))
                if each.watch
                else (),
            )
            for each in found
        ]
