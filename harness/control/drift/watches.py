"""Opens, measures and closes drift watches, each in the caller's unit of work. A watch is one
incumbent on one suite; a check is one eval run for it, the first one its baseline.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from harness.control.context import Context
from harness.control.operations import alerts
from harness.domain.drift import (
    DriftCheck,
    DriftCheckState,
    DriftPlan,
    DriftPolicy,
    DriftWatch,
    DriftWatchState,
    counted_checks,
)
from harness.domain.errors import Conflict
from harness.domain.evals.run import RUNNABLE_STATES, EvalRun, RunBudget, RunState, Sample
from harness.domain.operations.access import Actor
from harness.domain.operations.alerts import AlertKind
from harness.store.transaction import Transaction

OURS: Final = (AlertKind.DRIFT, AlertKind.SERVED_MODEL, AlertKind.JOB_FAILED)
_SAME_SCORE: Final = 1e-9


@dataclass(frozen=True, slots=True)
class WatchedPair:
    """Pairs an incumbent with a suite that watches it."""

    target: str
    suite: str
    routes: tuple[str, ...]  # that it serves, with this suite
    policy: DriftPolicy

    @property
    def key(self) -> tuple[str, str]:
        return self.target, self.suite

    @property
    def subject(self) -> str:
        """Names routes and suite, as alerts do."""
        what = "route" if len(self.routes) == 1 else "routes"
        return f"{what} {', '.join(self.routes)}, suite {self.suite}"


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


def find_open_watches(tx: Transaction) -> Mapping[tuple[str, str], DriftWatch]:
    return {(watch.target, watch.suite): watch for watch in tx.drift.open_watches()}


def plan_watch(ctx: Context, pair: WatchedPair) -> DriftPlan:
    pin = ctx.suites.pin(pair.suite)
    items = min(pair.policy.items or pin.items, pin.items)
    return DriftPlan(pin.digest, items, pair.policy.epochs, pair.policy.alpha)


def begin_watch(
    ctx: Context, tx: Transaction, actor: Actor, pair: WatchedPair, reason: str
) -> DriftWatch | None:
    """A new watch with its baseline's run; None when another was first."""
    now = ctx.clock.now()
    watch = DriftWatch(
        id=ctx.chance.token("dw_"),
        target=pair.target,
        suite=pair.suite,
        plan=plan_watch(ctx, pair),
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
    tx.audit.append(actor, "drift.baseline", f"drift watch {watch.id}", details)
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


def close_watch(ctx: Context, tx: Transaction, watch: DriftWatch) -> bool:
    """Closes a watch; False when another process was first."""
    now = ctx.clock.now()
    if not tx.drift.save(replace(watch, state=DriftWatchState.CLOSED, closed_at=now)):
        return False
    stopped, why = DriftCheckState.NOT_MEASURED, "the watch was closed"
    for check in tx.drift.checks(watch.id):
        if check.state is DriftCheckState.RUNNING:
            tx.drift.end(replace(check, state=stopped, ended_at=now, message=why))
            if tx.runs.get(check.run).state in RUNNABLE_STATES:
                tx.runs.set_state(check.run, RunState.STOPPED, "the drift watch was closed")
    for kind in OURS:
        alerts.resolve_alert(tx, kind, watch.id)
    return True


@dataclass(frozen=True, slots=True)
class ItemChange:
    """One item in the baseline and in the newest run. served_*: as the provider named it."""

    item: str
    score_before: float
    score_now: float
    answer_before: str
    answer_now: str
    served_before: str
    served_now: str


def list_item_changes(tx: Transaction, checks: Sequence[DriftCheck]) -> list[ItemChange]:
    """Lists the items whose scores changed since the baseline, the largest losses first."""
    measured = counted_checks(checks)
    if len(measured) < 2:
        return []
    before, now = measured[0], measured[-1]
    old, new = _first_answers(tx, before.run), _first_answers(tx, now.run)
    scores = dict(now.scores)
    found = []
    for item, score in before.scores:
        present = scores.get(item)
        if score is None or present is None or abs(present - score) < _SAME_SCORE:
            continue
        a, b = old[item], new[item]
        found.append(
            ItemChange(item, score, present, a.answer, b.answer, a.served_model, b.served_model)
        )
    return sorted(
        found, key=lambda change: (change.score_now - change.score_before, change.item)
    )


def _first_answers(tx: Transaction, run: str) -> dict[str, Sample]:
    found: dict[str, Sample] = {}
    for sample in tx.runs.samples(run):
        found.setdefault(sample.item, sample)
    return found
