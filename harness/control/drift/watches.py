"""Drift watches: opens, measures, reports and closes them. A watch is one incumbent on one
suite; a check is one eval run for it, the first one its baseline. `start_checks` measures a
route's watched suites at once, `accept_baseline` takes the model as it answers now as the new
baseline.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from harness.control.context import Context
from harness.control.operations import alerts
from harness.control.routing import routes
from harness.domain.drift import (
    DriftCheck,
    DriftCheckState,
    DriftPlan,
    DriftPolicy,
    DriftWatch,
    DriftWatchState,
    counted_checks,
    next_check_due,
)
from harness.domain.errors import Conflict, NotFound
from harness.domain.evals.run import RUNNABLE_STATES, EvalRun, RunBudget, RunState, Sample
from harness.domain.operations.access import Actor, Role
from harness.domain.operations.alerts import AlertKind
from harness.domain.operations.audit import require_reason
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
        open_, targets = find_open_watches(tx), tx.routing.targets()
        found = []
        for pair in list_watched_pairs(ctx, tx):
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
                changes = tuple(list_item_changes(tx, checks))
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
            watch = find_open_watches(tx).get(pair.key)
            if watch is not None and watch.state is DriftWatchState.DRIFTED:
                raise Conflict(
                    f"suite {pair.suite} has found drift on route {route}: see `swapgate drift "
                    f"status {route}`, then `swapgate drift accept {route} --reason …`"
                )
            if watch is None:
                watch = begin_watch(ctx, tx, actor, pair, "asked for by hand")
            else:
                start_check(ctx, tx, pair, watch)
            if watch is not None:
                started.append(tx.drift.checks(watch.id)[-1])
                subject, details = f"drift watch {watch.id}", {"run": started[-1].run}
                tx.audit.append(actor, "drift.run", subject, details)
    return started


def accept_baseline(
    ctx: Context, actor: Actor, route: str, *, reason: str, suite: str = ""
) -> list[DriftWatch]:
    """Measures a new baseline; the run that raised the alarm is not it, as a baseline chosen
    for its scores is biased. Needs an approver and a reason. Raises NotFound where nothing is
    watched, InputError, NotAllowed.
    """
    actor.require(Role.APPROVER)
    require_reason(reason, "a new baseline")
    opened = []
    with ctx.store.write() as tx:
        for pair in _of_route(ctx, tx, route, suite):
            before = find_open_watches(tx).get(pair.key)
            if before is not None:
                close_watch(ctx, tx, before)
            opened.append(begin_watch(ctx, tx, actor, pair, reason))
    return [watch for watch in opened if watch is not None]


def _of_route(ctx: Context, tx: Transaction, route: str, suite: str) -> list[WatchedPair]:
    routes.require_route(tx, route)
    pairs = [
        pair
        for pair in list_watched_pairs(ctx, tx)
        if route in pair.routes and suite in ("", pair.suite)
    ]
    if not pairs:
        which = f"suite {suite!r}" if suite else "no suite"
        raise NotFound(
            f"{which} watches route {route!r}: give a suite of the route a `drift` section in "
            "the configuration (`swapgate docs open explanation/drift`)"
        )
    return pairs
