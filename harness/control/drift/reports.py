"""Reports drift to people, measures a route's watched suites at once (`start_checks`), and
accepts the model as it answers now as the new baseline (`accept_baseline`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from harness.control.context import Context
from harness.control.drift import watches
from harness.control.drift.watches import ItemChange, WatchedPair
from harness.control.routing import routes
from harness.domain.drift import (
    DriftCheck,
    DriftCheckState,
    DriftWatch,
    DriftWatchState,
    counted_checks,
    next_check_due,
)
from harness.domain.errors import Conflict, NotFound
from harness.domain.operations.access import Actor, Role
from harness.domain.operations.audit import require_reason
from harness.store.transaction import Transaction


def describe_comparison(times: int) -> str:
    """How often the baseline was compared."""
    return {0: "not yet", 1: "once"}.get(times, f"{times} times")


@dataclass(frozen=True, slots=True)
class DriftStatus:
    """Says where one watched suite of one incumbent stands."""

    routes: tuple[str, ...]
    suite: str
    model: str
    state: str  # starting | baseline | watching | drifted
    watch: DriftWatch | None  # None until its first turn
    comparisons: int  # with the baseline
    running: str | None
    last: DriftCheck | None
    next_at: datetime | None  # None while a run is on, and while drift waits for a person


@dataclass(frozen=True, slots=True)
class DriftReport:
    status: DriftStatus
    changes: tuple[ItemChange, ...]


def list_drift_status(ctx: Context, *, route: str = "") -> list[DriftStatus]:
    """Lists every watched pair of incumbent and suite. Raises NotFound for an unknown route."""
    with ctx.store.read() as tx:
        if route:
            watched = routes.require_route(tx, route).settings.suites
            if not any(suite.suite in ctx.drift for suite in watched):
                return []
        open_, targets = watches.find_open_watches(tx), tx.routing.targets()
        found = []
        for pair in watches.list_watched_pairs(ctx, tx):
            if route in ("", *pair.routes):
                watch = open_.get(pair.key)
                checks = tx.drift.checks(watch.id) if watch else ()
                found.append(_status(ctx, pair, targets[pair.target].name, watch, checks))
        return found


def _status(
    ctx: Context,
    pair: WatchedPair,
    model: str,
    watch: DriftWatch | None,
    checks: Sequence[DriftCheck],
) -> DriftStatus:
    measured = counted_checks(checks)
    ended = [check for check in checks if check.state is not DriftCheckState.RUNNING]
    running = checks[-1].run if len(ended) < len(checks) else None
    state = watch.state.value if watch is not None else "starting"
    if state == DriftWatchState.WATCHING and not measured:
        state = "baseline"
    due = next_check_due(ended, pair.policy.every_s, ctx.clock.now())
    waits = running or watch is None or watch.state is DriftWatchState.DRIFTED
    return DriftStatus(
        routes=pair.routes,
        suite=pair.suite,
        model=model,
        state=state,
        watch=watch,
        comparisons=max(len(measured) - 1, 0),
        running=running,
        last=ended[-1] if ended else None,
        next_at=None if waits else due,
    )


def list_drift_reports(ctx: Context, route: str, *, suite: str = "") -> list[DriftReport]:
    """Reports each watched suite of the route, with the items that changed."""
    statuses = list_drift_status(ctx, route=route)
    found = []
    with ctx.store.read() as tx:
        for status in statuses:
            if suite in ("", status.suite):
                checks = tx.drift.checks(status.watch.id) if status.watch else ()
                changes = tuple(watches.list_item_changes(tx, checks))
                found.append(DriftReport(status, changes))
    return found


def start_checks(
    ctx: Context, actor: Actor, route: str, *, suite: str = ""
) -> list[DriftCheck]:
    """Asks again at once; a run that goes on is given as it is. Raises NotFound where nothing
    is watched, Conflict while found drift waits for a person.
    """
    actor.require(Role.PROPOSER)
    started = []
    with ctx.store.write() as tx:
        for pair in _of_route(ctx, tx, route, suite):
            watch = watches.find_open_watches(tx).get(pair.key)
            if watch is not None and watch.state is DriftWatchState.DRIFTED:
                raise Conflict(
                    f"suite {pair.suite} has found drift on route {route}: see `swapgate drift "
                    f"status {route}`, then `swapgate drift accept {route} --reason …`"
                )
            if watch is None:
                watch = watches.begin_watch(ctx, tx, actor, pair, "asked for by hand")
            else:
                watches.start_check(ctx, tx, pair, watch)
            if watch is not None:
                started.append(tx.drift.checks(watch.id)[-1])
                subject, details = f"drift watch {watch.id}", {"run": started[-1].run}
                tx.audit.append(actor, "drift.run", subject, details)
    return started


def accept_baseline(
    ctx: Context, actor: Actor, route: str, *, reason: str, suite: str = ""
) -> list[DriftWatch]:
    """Measures a new baseline; the run that raised the alarm is not it, as a baseline chosen
    for its scores is biased. Raises NotFound where nothing is watched, InputError, NotAllowed.
    """
    actor.require(Role.APPROVER)
    require_reason(reason, "a new baseline")
    opened = []
    with ctx.store.write() as tx:
        for pair in _of_route(ctx, tx, route, suite):
            before = watches.find_open_watches(tx).get(pair.key)
            if before is not None:
                watches.close_watch(ctx, tx, before)
            opened.append(watches.begin_watch(ctx, tx, actor, pair, reason))
    return [watch for watch in opened if watch is not None]


def _of_route(ctx: Context, tx: Transaction, route: str, suite: str) -> list[WatchedPair]:
    routes.require_route(tx, route)
    pairs = [
        pair
        for pair in watches.list_watched_pairs(ctx, tx)
        if route in pair.routes and suite in ("", pair.suite)
    ]
    if not pairs:
        which = f"suite {suite!r}" if suite else "no suite"
        raise NotFound(
            f"{which} watches route {route!r}: give a suite of the route a `drift` section in "
            "the configuration (`swapgate docs open explanation/drift`)"
        )
    return pairs
