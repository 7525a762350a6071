"""Drift watches: opens, measures, reports and closes them. `start_checks` measures a route's
watched suites at once. `accept_baseline` measures the present model as the new baseline.

These functions queue runs and read their results; they neither call a model nor compare scores.
`harness.evals.drift_monitor` moves the watches by schedule, and `harness.gate.drift` has the
test.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from harness.evals.context import EvalsContext
from harness.evals.records import Drift
from harness.frame.alerts import alerts
from harness.frame.alerts.alert import AlertKind
from harness.frame.errors import Conflict, NotFound
from harness.frame.people.access import Actor, Role
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit import require_reason
from harness.frame.signing.audit_log import AuditLog
from harness.gate.drift import DriftCheck, DriftPlan, DriftWatch
from harness.gate.policy import DriftPolicy
from harness.gate.run import (
    RUNNABLE_STATES,
    EvalRun,
    RunBudget,
    RunState,
    Sample,
)
from harness.providers.records import Targets
from harness.routing.control import routes
from harness.routing.records.routes import Routing
from harness.routing.records.runs import EvalRuns, Suites

WATCH_ALERTS: Final = (AlertKind.DRIFT, AlertKind.SERVED_MODEL, AlertKind.JOB_FAILED)
DRIFTED: Final = "drifted"  # until a person accepts a new baseline, or swaps the model
_SAME_SCORE: Final = 1e-9


@dataclass(frozen=True, slots=True)
class WatchedPair:
    """A target and a suite that one watch measures, for all routes with both."""

    target: str
    suite: str
    routes: tuple[str, ...]  # routes that the target serves, with this suite
    policy: DriftPolicy

    @property
    def key(self) -> tuple[str, str]:
        return self.target, self.suite

    @property
    def subject(self) -> str:
        noun = "route" if len(self.routes) == 1 else "routes"
        return f"{noun} {', '.join(self.routes)}, suite {self.suite}"


def list_watched_pairs(ctx: EvalsContext, tx: Transaction) -> list[WatchedPair]:
    """Lists each incumbent with the suites of its routes that have a drift policy."""
    if not ctx.drift:
        return []
    by_pair: dict[tuple[str, str], list[str]] = {}
    for name, route in sorted(Routing(tx).table().routes.items()):
        for suite in route.settings.suites:
            if suite.suite in ctx.drift:
                by_pair.setdefault((route.incumbent, suite.suite), []).append(name)
    return [
        WatchedPair(target, suite, tuple(names), ctx.drift[suite])
        for (target, suite), names in sorted(by_pair.items())
    ]


def find_open_watches(tx: Transaction) -> Mapping[tuple[str, str], DriftWatch]:
    """Returns the open watches by target and suite. Each pair has at most one."""
    watches = Drift(tx).open_watches()
    return {(watch.baseline.target, watch.baseline.suite): watch for watch in watches}


def plan_watch(ctx: EvalsContext, pair: WatchedPair) -> DriftPlan:
    """Plans a watch by the suite's present pin. The plan has at most the suite's items."""
    pin = ctx.suites.pin(pair.suite)
    items = min(pair.policy.items or pin.items, pin.items)
    return DriftPlan(pin.digest, items, pair.policy.epochs, pair.policy.alpha)


def start_check(
    ctx: EvalsContext,
    tx: Transaction,
    actor: Actor,
    pair: WatchedPair,
    watch: DriftWatch | None = None,
    reason: str = "",
) -> DriftCheck:
    """Queues the next run of a watch. Without a watch, opens one and queues its baseline run;
    this needs a reason. Returns a running check unchanged. Raises Conflict if another process
    was first.

    A later run keeps the plan of its baseline, even if the policy has changed since.
    """
    if watch is not None and watch.running is not None:
        return watch.running
    now = ctx.clock.now()
    plan = watch.plan if watch else plan_watch(ctx, pair)
    run = EvalRun(
        id=ctx.chance.token("run_"),
        suite=pair.suite,
        suite_digest=plan.suite_digest,
        target=pair.target,
        # The watch has its own order of items, so that no verdict reuses these runs.
        order_seed=int(plan.suite_digest[16:24], 16),
        epochs=plan.epochs,
        wanted=plan.items,
        state=RunState.QUEUED,
        created_at=now,
        budget=RunBudget(pair.policy.max_tokens, pair.policy.max_cost_usd),
    )
    check = DriftCheck(
        run=run.id,
        watch=watch.id if watch else ctx.chance.token("dw_"),
        number=len(watch.checks) if watch else 0,
        target=pair.target,
        suite=pair.suite,
        plan=plan,
        started_at=now,
        started_by=actor.name,
        reason=reason,
    )
    EvalRuns(tx).add(run)
    if not Drift(tx).start(check):
        raise Conflict(
            f"another process has just started a run of {pair.suite} on route "
            f"{pair.routes[0]}; try again"
        )
    if watch is None:
        Suites(tx).put(ctx.suites.pin(pair.suite), now)
        details = {
            "target": pair.target,
            "suite": pair.suite,
            "reason": reason,
        }
        AuditLog(tx).append(actor, "drift.baseline", f"drift watch {check.watch}", details)
    return check


def close_watch(
    ctx: EvalsContext,
    tx: Transaction,
    watch: DriftWatch,
) -> bool:
    """Closes a watch, and stops its run; returns False if another process was first."""
    now = ctx.clock.now()
    message = "the drift watch was closed"
    if not Drift(tx).close(watch.id, now):
        return False
    last = Drift(tx).checks(watch.id)[-1]
    was_running = Drift(tx).end(replace(last, ended_at=now, message=message))
    if was_running and EvalRuns(tx).get(last.run).state in RUNNABLE_STATES:
        EvalRuns(tx).set_state(last.run, RunState.STOPPED, message)
    for kind in WATCH_ALERTS:
        alerts.resolve_alert(tx, kind, watch.id)
    return True


@dataclass(frozen=True, slots=True)
class ItemChange:
    """One item in the baseline and in the newest run. served_*: the model that the provider
    names.
    """

    item: str
    score_before: float
    score_now: float
    answer_before: str
    answer_now: str
    served_before: str
    served_now: str


def list_item_changes(tx: Transaction, watch: DriftWatch) -> list[ItemChange]:
    """Lists items whose score differs between the baseline and the newest counted run, the
    largest loss first.

    Shows each item's first stored answer, because one example is enough to see the change.
    Empty below two counted runs.
    """
    counted = watch.counted
    if len(counted) < 2:
        return []
    before = counted[0]
    now = counted[-1]
    old_samples = _load_first_samples(tx, before.run)
    new_samples = _load_first_samples(tx, now.run)
    scores = dict(now.scores)
    changes = []
    for item, score in before.scores:
        new_score = scores.get(item)
        if score is None or new_score is None or abs(new_score - score) < _SAME_SCORE:
            continue
        old_sample = old_samples[item]
        new_sample = new_samples[item]
        changes.append(
            ItemChange(
                item,
                score,
                new_score,
                old_sample.answer,
                new_sample.answer,
                old_sample.served_model,
                new_sample.served_model,
            )
        )
    return sorted(
        changes,
        key=lambda change: (
            change.score_now - change.score_before,
            change.item,
        ),
    )


def _load_first_samples(tx: Transaction, run: str) -> dict[str, Sample]:
    first_samples: dict[str, Sample] = {}
    for sample in EvalRuns(tx).samples(run):
        first_samples.setdefault(sample.item, sample)
    return first_samples


def describe_comparison(comparisons: int) -> str:
    return {0: "not yet", 1: "once"}.get(comparisons, f"{comparisons} times")


@dataclass(frozen=True, slots=True)
class DriftStatus:
    """A watched pair's state for people.

    `running` is the run's id. `last` is the newest check that has ended, measured or not.
    """

    routes: tuple[str, ...]
    suite: str
    model: str
    state: str  # starting | baseline | watching | drifted
    baseline: DriftCheck | None = None  # None until its run has started
    comparisons: int = 0  # with the baseline
    running: str | None = None
    last: DriftCheck | None = None
    next_at: datetime | None = None  # None during a run, and while drift waits for a person


@dataclass(frozen=True, slots=True)
class DriftReport:
    """A watched pair with its checks and the items that changed."""

    status: DriftStatus
    checks: tuple[DriftCheck, ...]  # since the baseline, the newest first
    changes: tuple[ItemChange, ...]


def list_drift_status(ctx: EvalsContext, *, route: str = "") -> list[DriftStatus]:
    """Lists every watched pair of incumbent and suite. Raises NotFound for an unknown route."""
    return [report.status for report in _list_reports(ctx, route, "", with_changes=False)]


def list_drift_reports(
    ctx: EvalsContext,
    route: str,
    *,
    suite: str = "",
) -> list[DriftReport]:
    """Reports each watched suite of the route, with the items that changed."""
    return _list_reports(ctx, route, suite, with_changes=True)


def _list_reports(
    ctx: EvalsContext,
    route: str,
    suite: str,
    *,
    with_changes: bool,
) -> list[DriftReport]:
    reports = []
    with ctx.store.read() as tx:
        if route:
            route_suites = routes.require_route(tx, route).settings.suites
            if not any(suite_use.suite in ctx.drift for suite_use in route_suites):
                return []
        open_watches = find_open_watches(tx)
        targets = Targets(tx).all()
        for pair in list_watched_pairs(ctx, tx):
            if route in ("", *pair.routes) and suite in ("", pair.suite):
                watch = open_watches.get(pair.key)
                changes = list_item_changes(tx, watch) if watch and with_changes else ()
                status = _build_status(pair, targets[pair.target].name, watch)
                checks = watch.checks[::-1] if watch else ()
                reports.append(DriftReport(status, checks, tuple(changes)))
    return reports


def _build_status(
    pair: WatchedPair,
    model: str,
    watch: DriftWatch | None,
) -> DriftStatus:
    """Builds the status.

    A pair without a watch is `starting`: the next turn of the monitor opens it.
    """
    if watch is None:
        return DriftStatus(pair.routes, pair.suite, model, "starting")
    counted = watch.counted
    ended_checks = watch.ended
    running = watch.running
    state = DRIFTED if watch.is_drifted else "watching" if counted else "baseline"
    has_no_due_time = running or watch.is_drifted
    return DriftStatus(
        routes=pair.routes,
        suite=pair.suite,
        model=model,
        state=state,
        baseline=watch.baseline,
        comparisons=max(len(counted) - 1, 0),
        running=running.run if running else None,
        last=ended_checks[-1] if ended_checks else None,
        next_at=None if has_no_due_time else watch.find_next_due(pair.policy.every_s),
    )


def start_checks(
    ctx: EvalsContext,
    actor: Actor,
    route: str,
    *,
    suite: str = "",
) -> list[DriftCheck]:
    """Starts a run of each watched suite of the route, without waiting for the schedule.

    Raises NotFound without a watched suite, Conflict if a watch has found drift.
    """
    actor.require(Role.PROPOSER)
    checks = []
    with ctx.store.write() as tx:
        for pair in _require_pairs(ctx, tx, route, suite):
            watch = find_open_watches(tx).get(pair.key)
            if watch is not None and watch.is_drifted:
                raise Conflict(
                    f"suite {pair.suite} has found drift on route {route}: see `swapproof "
                    f"drift status {route}`, then `swapproof drift accept {route} --reason …`"
                )
            check = start_check(
                ctx,
                tx,
                actor,
                pair,
                watch,
                "" if watch else "requested by hand",
            )
            checks.append(check)
            AuditLog(tx).append(
                actor,
                "drift.run",
                f"drift watch {check.watch}",
                {"run": check.run},
            )
    return checks


def accept_baseline(
    ctx: EvalsContext,
    actor: Actor,
    route: str,
    *,
    reason: str,
    suite: str = "",
) -> list[DriftCheck]:
    """Measures a new baseline. The run that raised the alarm does not become the baseline,
    because a baseline selected for its scores is biased. Needs an approver and a reason. Raises
    NotFound without a watched suite, InputError, NotAllowed.
    """
    actor.require(Role.APPROVER)
    require_reason(reason, "a new baseline")
    baselines = []
    with ctx.store.write() as tx:
        for pair in _require_pairs(ctx, tx, route, suite):
            old_watch = find_open_watches(tx).get(pair.key)
            if old_watch is not None:
                close_watch(ctx, tx, old_watch)
            baselines.append(start_check(ctx, tx, actor, pair, reason=reason))
    return baselines


def _require_pairs(
    ctx: EvalsContext,
    tx: Transaction,
    route: str,
    suite: str,
) -> list[WatchedPair]:
    """Lists the route's watched pairs.

    Args:
        suite: empty for all.

    Raises NotFound without a watched pair.
    """
    routes.require_route(tx, route)
    pairs = [
        pair
        for pair in list_watched_pairs(ctx, tx)
        if route in pair.routes and suite in ("", pair.suite)
    ]
    if not pairs:
        subject = f"suite {suite!r} does not watch" if suite else "no suite watches"
        raise NotFound(
            f"{subject} route {route!r}: give a suite of the route a `drift` section in "
            "the configuration (`swapproof docs open explanation/drift`)"
        )
    return pairs
