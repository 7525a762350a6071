"""Watches incumbents for drift (F7): asks them a suite again by schedule, compares the scores
with those of the runs before, and alerts.

One turn (`run_once`) looks at every watched pair of incumbent and suite: it measures a first
baseline, starts runs that are due, judges those that ended (`finish_check`), and tells at once
when the provider names another model. All that it knows is in the store, and what it does is
decided there: a second control process finds it done.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import structlog

from harness.control.context import Context
from harness.control.drift import reports, watches
from harness.control.drift.watches import WatchedPair
from harness.control.operations import alerts
from harness.domain.drift import (
    DriftCheck,
    DriftCheckState,
    DriftPlan,
    DriftWatch,
    DriftWatchState,
    ItemScores,
    counted_checks,
    next_check_due,
)
from harness.domain.errors import Conflict, InputError, SwapgateError
from harness.domain.evals.pins import ServedModel, ServedPin, Sighting, find_replacement
from harness.domain.evals.run import RUNNABLE_STATES, EvalRun, RunState, Sample
from harness.domain.operations.access import SYSTEM
from harness.domain.operations.alerts import AlertKind
from harness.gate import drift
from harness.store.transaction import Transaction

# More samples than this share without a score: the run says nothing about the model.
MOST_MISSING: Final = 0.02
LEAST_MEASURED: Final = 0.5


def finish_check(
    ctx: Context,
    watch: DriftWatch,
    check: DriftCheck,
    run: EvalRun,
    samples: Sequence[Sample],
    before: Sequence[DriftCheck],
) -> DriftCheck:
    over = replace(check, ended_at=ctx.clock.now())
    because = _unmeasured(watch, run, samples)
    if because:
        return replace(over, state=DriftCheckState.NOT_MEASURED, message=because)
    over = replace(
        over, state=DriftCheckState.COUNTED, scores=load_scores(samples, watch.plan.epochs)
    )
    if not before:
        return over
    last = before[-1].evidence
    evidence = drift.compare_runs(
        [*(drift_check.scores for drift_check in before), over.scores],
        watch.plan.alpha,
        -float("inf") if last is None else last.log_e,
    )
    return replace(over, evidence=evidence)


def _unmeasured(watch: DriftWatch, run: EvalRun, samples: Sequence[Sample]) -> str:
    """Why the run says nothing about the model; empty when it does."""
    missing = [sample for sample in samples if sample.error]
    if run.state in (RunState.FAILED, RunState.STOPPED):
        last = missing[-1].error_text if missing else ""
        return ": ".join(filter(None, (f"the run {run.state.value}", run.message or last)))
    if len(missing) > MOST_MISSING * len(samples):
        many = f"{len(missing)} of {len(samples)} answers have no score"
        return f"{many}: {missing[-1].error_text or 'no reply'}"
    if len(samples) < LEAST_MEASURED * watch.plan.items * watch.plan.epochs:
        why = run.message or run.state.value.replace("_", " ")
        return f"{len(samples)} answers are too few for {watch.plan.items} items: {why}"
    return ""


def load_scores(samples: Sequence[Sample], epochs: int) -> ItemScores:
    """Computes each item's mean strict score, in the samples' order. An item was not measured
    if one of its answers has no score.
    """
    found: dict[str, list[Sample]] = {}
    for sample in samples:
        found.setdefault(sample.item, []).append(sample)
    return tuple((item, _score(group, epochs)) for item, group in found.items())


def _score(group: Sequence[Sample], epochs: int) -> float | None:
    if len(group) < epochs or any(sample.error for sample in group):
        return None
    return sum(0.0 if sample.strict is None else sample.strict for sample in group) / len(group)


log = structlog.get_logger("swapgate.drift")


def run_once(ctx: Context) -> list[str]:
    """Start what is due, judge what has ended. Returns what it did, in words.

    Raises InputError with the suites that cannot be watched, after all others were.
    """
    with ctx.store.read() as tx:
        pairs = watches.list_watched_pairs(ctx, tx)
        open_ = {(watch.target, watch.suite): watch for watch in tx.drift.open_watches()}
    did, failed = _close_unwatched(ctx, pairs, open_), []
    for pair in pairs:
        try:
            did += _advance_pair(ctx, pair, open_.get((pair.target, pair.suite)))
        except Conflict:
            # Another control process was first: the next turn looks at what it did.
            continue
        except SwapgateError as error:
            if error.retryable:
                raise
            # A suite that does not load must not keep the others from being watched.
            failed.append(f"suite {pair.suite}: {error}")
    for words in did:
        log.info("drift_watch", did=words)
    if failed:
        raise InputError("; ".join(failed))
    return did


def _close_unwatched(
    ctx: Context, pairs: Sequence[WatchedPair], open_: Mapping[tuple[str, str], DriftWatch]
) -> list[str]:
    wanted = {(pair.target, pair.suite) for pair in pairs}
    did = []
    for key in sorted(set(open_) - wanted):
        with ctx.store.write() as tx:
            if watches.close_watch(ctx, tx, open_[key]):
                did.append(f"{open_[key].id}: closed, no route asks for it any more")
    return did


def _advance_pair(ctx: Context, pair: WatchedPair, watch: DriftWatch | None) -> list[str]:
    plan = watches.plan_watch(ctx, pair)
    if watch is None:
        return _begin_watch(ctx, pair, plan, "the first")
    with ctx.store.read() as tx:
        checks = tx.drift.checks(watch.id)
        another = _find_other_model(tx, watch, checks)
    did = []
    if another is not None and not alerts.is_open(ctx, AlertKind.SERVED_MODEL, watch.id):
        with ctx.store.write() as tx:
            # Unless a person has just closed the watch.
            if tx.drift.save(watch):
                did = _alert_other_model(ctx, tx, pair, watch, checks)
    if checks and checks[-1].state is DriftCheckState.RUNNING:
        return did + _finish_running_check(ctx, pair, watch, checks)
    if watch.state is DriftWatchState.DRIFTED:
        return did
    if watch.plan != plan:
        return did + _begin_watch(ctx, pair, plan, "the suite or its plan changed", after=watch)
    if ctx.clock.now() < next_check_due(checks, pair.policy.every_s, ctx.clock.now()):
        return did
    return did + _start_check(ctx, pair, watch)


def _begin_watch(
    ctx: Context,
    pair: WatchedPair,
    plan: DriftPlan,
    reason: str,
    *,
    after: DriftWatch | None = None,
) -> list[str]:
    with ctx.store.write() as tx:
        if after is not None and not watches.close_watch(ctx, tx, after):
            return []
        watch = watches.begin_watch(ctx, tx, SYSTEM, pair, plan, reason)
    return [] if watch is None else [f"{watch.id}: a baseline of {pair.suite} is measured"]


def _start_check(ctx: Context, pair: WatchedPair, watch: DriftWatch) -> list[str]:
    with ctx.store.write() as tx:
        check = watches.start_check(ctx, tx, pair, watch)
    return [] if check is None else [f"{watch.id}: {pair.suite} is asked again"]


def _finish_running_check(
    ctx: Context, pair: WatchedPair, watch: DriftWatch, checks: Sequence[DriftCheck]
) -> list[str]:
    """At the running check: nothing while it goes on, all that it found at its end."""
    check = checks[-1]
    with ctx.store.read() as tx:
        run = tx.runs.get(check.run)
        if run.state in RUNNABLE_STATES:
            return []
        samples = tx.runs.samples(check.run)
    served = tuple(sorted({sample.served_model for sample in samples if sample.served_model}))
    ended = finish_check(
        ctx, watch, replace(check, served=served), run, samples, counted_checks(checks)
    )
    with ctx.store.write() as tx:
        if not tx.drift.end(ended):
            return []
        # What answered last may not have been looked at while the run was on.
        did = _alert_other_model(ctx, tx, pair, watch, checks)
        return did + _record_result(ctx, tx, pair, watch, [*checks[:-1], ended])


def _record_result(
    ctx: Context,
    tx: Transaction,
    pair: WatchedPair,
    watch: DriftWatch,
    checks: Sequence[DriftCheck],
) -> list[str]:
    """The alerts of a check that has just ended, beside it."""
    check = checks[-1]
    if check.state is DriftCheckState.NOT_MEASURED:
        alerts.raise_alert(
            ctx,
            tx,
            AlertKind.JOB_FAILED,
            watch.id,
            subject=reports.alert_subject(pair.routes, pair.suite),
            title=f"the drift watch could not measure {reports.describe_watch(tx, watch)}",
            text=f"{check.message}. It is tried again within the hour.",
        )
        return [f"{watch.id}: not measured, {check.message}"]
    alerts.resolve_alert(ctx, tx, AlertKind.JOB_FAILED, watch.id)
    evidence = check.evidence
    if evidence is None:
        return [f"{watch.id}: the baseline of {pair.suite} is measured"]
    if not evidence.drifted:
        return [f"{watch.id}: no drift"]
    tx.drift.save(replace(watch, state=DriftWatchState.DRIFTED))
    title, text = reports.describe_drift(tx, pair.routes, watch, checks)
    alerts.raise_alert(
        ctx,
        tx,
        AlertKind.DRIFT,
        watch.id,
        subject=reports.alert_subject(pair.routes, pair.suite),
        title=title,
        text=text,
    )
    details = {"check": check.number, "run": check.run, "evidence": evidence.as_json()}
    watches.record_watch_event(ctx, tx, SYSTEM, "drift.found", watch, details)
    return [f"{watch.id}: {title}"]


def _find_other_model(
    tx: Transaction, watch: DriftWatch, checks: Sequence[DriftCheck]
) -> Sighting | None:
    """A model that none of the counted runs met, seen since: by a router, or by any eval."""
    measured = counted_checks(checks)
    if not measured:
        return None
    met = {ServedModel(name) for check in measured for name in check.served}
    since = measured[-1].ended_at
    return find_replacement(
        met, tx.sightings.for_target(watch.target), ServedPin.MODEL, decided_at=since
    )


def _alert_other_model(
    ctx: Context,
    tx: Transaction,
    pair: WatchedPair,
    watch: DriftWatch,
    checks: Sequence[DriftCheck],
) -> list[str]:
    """Told at once, once for a watch: how that model answers is measured by the next run."""
    another = _find_other_model(tx, watch, checks)
    record = tx.alerts.newest(f"{AlertKind.SERVED_MODEL.value}:{watch.id}")
    if another is None or (record is not None and record.open):
        return []
    title, text = reports.describe_other_model(tx, pair.routes, watch, checks, another)
    alerts.raise_alert(
        ctx,
        tx,
        AlertKind.SERVED_MODEL,
        watch.id,
        subject=reports.alert_subject(pair.routes, pair.suite),
        title=title,
        text=text,
    )
    return [f"{watch.id}: {title}"]
