"""Opens, measures and closes drift watches, each in the caller's unit of work. A watch is one
incumbent on one suite; a check is one eval run for it, the first one its baseline.
`list_watched_pairs` reads from routes and configuration what to watch. Used by `monitor` and
`operations`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from harness.control import audit
from harness.control.context import Context
from harness.control.operations import alerts
from harness.domain.drift import (
    DriftCheck,
    DriftCheckState,
    DriftPlan,
    DriftPolicy,
    DriftWatch,
    DriftWatchState,
)
from harness.domain.errors import Conflict
from harness.domain.evals.run import RUNNABLE_STATES, EvalRun, RunBudget, RunState
from harness.domain.operations.access import Actor
from harness.domain.operations.alerts import AlertKind
from harness.store.transaction import Transaction

OURS: Final = (AlertKind.DRIFT, AlertKind.SERVED_MODEL, AlertKind.JOB_FAILED)


@dataclass(frozen=True, slots=True)
class WatchedPair:
    """Pairs an incumbent with a suite that watches it."""

    target: str
    suite: str
    routes: tuple[str, ...]  # that it serves, with this suite
    policy: DriftPolicy


def list_watched_pairs(ctx: Context, tx: Transaction) -> list[WatchedPair]:
    """What the routing table and the configuration ask to be watched."""
    if not ctx.drift:
        return []
    by_pair: dict[tuple[str, str], list[str]] = {}
    for name, route in sorted(tx.routing.table().routes.items()):
        for suite in route.settings.suites:
            if suite.suite in ctx.drift:
                by_pair.setdefault((route.incumbent, suite.suite), []).append(name)
    return [
        WatchedPair(target, suite, tuple(names), ctx.drift[suite])
        for (target, suite), names in sorted(by_pair.items())
    ]


def plan_watch(ctx: Context, pair: WatchedPair) -> DriftPlan:
    pin = ctx.suites.pin(pair.suite)
    items = min(pair.policy.items or pin.items, pin.items)
    return DriftPlan(pin.digest, items, pair.policy.epochs, pair.policy.alpha)


def begin_watch(
    ctx: Context, tx: Transaction, actor: Actor, pair: WatchedPair, plan: DriftPlan, reason: str
) -> DriftWatch | None:
    """A new watch with its baseline's run; None when another was first."""
    now = ctx.clock.now()
    watch = DriftWatch(
        id=ctx.chance.token("dw_"),
        target=pair.target,
        suite=pair.suite,
        plan=plan,
        state=DriftWatchState.WATCHING,
        opened_at=now,
        opened_by=actor.name,
        reason=reason,
    )
    tx.suites.put(ctx.suites.pin(pair.suite), now)
    if not tx.drift.open(watch):
        return None
    start_check(ctx, tx, pair, watch)
    details = {"target": pair.target, "suite": pair.suite, "reason": reason}
    record_watch_event(ctx, tx, actor, "drift.baseline", watch, details)
    return watch


def start_check(
    ctx: Context, tx: Transaction, pair: WatchedPair, watch: DriftWatch
) -> DriftCheck | None:
    """A run, and the check that waits for it; None when one runs already."""
    checks = tx.drift.checks(watch.id)
    if checks and checks[-1].state is DriftCheckState.RUNNING:
        return None
    now, plan = ctx.clock.now(), watch.plan
    run = EvalRun(
        id=ctx.chance.token("run_"),
        suite=watch.suite,
        suite_digest=plan.suite_digest,
        target=watch.target,
        # Its own order: never a proposal's, so that no verdict shares these runs.
        order_seed=int(plan.suite_digest[16:24], 16),
        epochs=plan.epochs,
        wanted=plan.items,
        state=RunState.QUEUED,
        created_at=now,
        budget=RunBudget(pair.policy.max_tokens, pair.policy.max_cost_usd),
    )
    tx.runs.add(run)
    check = DriftCheck(watch=watch.id, number=len(checks), run=run.id, started_at=now)
    if not tx.drift.start(check):
        raise Conflict(f"{watch.id}: another control process has just started a run; try again")
    return check


def find_open_watch(tx: Transaction, pair: WatchedPair) -> DriftWatch | None:
    pairs = {(watch.target, watch.suite): watch for watch in tx.drift.open_watches()}
    return pairs.get((pair.target, pair.suite))


def close_watch(ctx: Context, tx: Transaction, watch: DriftWatch) -> bool:
    """Closes a watch; False when another process was first."""
    now = ctx.clock.now()
    closed = replace(watch, state=DriftWatchState.CLOSED, closed_at=now)
    if not tx.drift.save(closed):
        return False
    for check in tx.drift.checks(watch.id):
        if check.state is DriftCheckState.RUNNING:
            tx.drift.end(
                replace(
                    check,
                    state=DriftCheckState.NOT_MEASURED,
                    ended_at=now,
                    message="the watch was closed",
                )
            )
            if tx.runs.get(check.run).state in RUNNABLE_STATES:
                tx.runs.set_state(check.run, RunState.STOPPED, "the drift watch was closed")
    for kind in OURS:
        alerts.resolve_alert(ctx, tx, kind, watch.id)
    return True


def record_watch_event(
    ctx: Context,
    tx: Transaction,
    actor: Actor,
    action: str,
    watch: DriftWatch,
    details: Mapping[str, object],
) -> None:
    audit.record(ctx, tx, actor, action, f"drift watch {watch.id}", details)
