"""Watches incumbents for drift (F7): asks them a suite again by schedule, compares the scores
with those of the runs before, and alerts. All that it knows is in the store: a second control
process finds its work done.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Final

import structlog

from harness.control.context import Context
from harness.control.drift import watches
from harness.control.drift.watches import WatchedPair
from harness.control.operations import alerts
from harness.domain.drift import (
    DriftCheck,
    DriftCheckState,
    DriftEvidence,
    DriftWatch,
    DriftWatchState,
    ItemScores,
    counted_checks,
    next_check_due,
)
from harness.domain.errors import Conflict, InputError, SwapgateError
from harness.domain.evals.pins import ServedModel, ServedPin, Sighting, find_replacement
from harness.domain.evals.run import RUNNABLE_STATES, EvalRun, RunState, Sample
from harness.domain.formatting import format_points, format_points_interval, format_score
from harness.domain.operations.access import SYSTEM
from harness.domain.operations.alerts import AlertKind
from harness.gate import drift
from harness.store.transaction import Transaction

log = structlog.get_logger("swapgate.drift")
# More samples than this share without a score: the run says nothing about the model.
MOST_MISSING: Final = 0.02
LEAST_MEASURED: Final = 0.5
EXAMPLES: Final = 3
ANSWER_WIDTH: Final = 120


def run_once(ctx: Context) -> list[str]:
    """Starts what is due, judges what has ended, and says what it did. Raises InputError with
    the suites that cannot be watched, after all others were.
    """
    with ctx.store.read() as tx:
        pairs, open_ = watches.list_watched_pairs(ctx, tx), watches.find_open_watches(tx)
    did, failed = [], []
    for key in sorted(set(open_) - {pair.key for pair in pairs}):
        with ctx.store.write() as tx:
            if watches.close_watch(ctx, tx, open_[key]):
                did.append(f"{open_[key].id}: closed, no route asks for it any more")
    for pair in pairs:
        try:
            did += _advance_pair(ctx, pair, open_.get(pair.key))
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


def _advance_pair(ctx: Context, pair: WatchedPair, watch: DriftWatch | None) -> list[str]:
    plan = watches.plan_watch(ctx, pair)
    if watch is None:
        return _begin_watch(ctx, pair, "the first")
    with ctx.store.read() as tx:
        checks = tx.drift.checks(watch.id)
        another = _find_other_model(tx, watch, checks)
    did = []
    if another is not None and not alerts.is_open(ctx, AlertKind.SERVED_MODEL, watch.id):
        with ctx.store.write() as tx:
            # Unless a person has just closed the watch.
            if tx.drift.save(watch):
                did = _alert_other_model(tx, pair, watch, checks)
    if checks and checks[-1].state is DriftCheckState.RUNNING:
        return did + _finish_running_check(ctx, pair, watch, checks)
    if watch.state is DriftWatchState.DRIFTED:
        return did
    if watch.plan != plan:
        return did + _begin_watch(ctx, pair, "the suite or its plan changed", after=watch)
    if ctx.clock.now() < next_check_due(checks, pair.policy.every_s, ctx.clock.now()):
        return did
    with ctx.store.write() as tx:
        if watches.start_check(ctx, tx, pair, watch) is not None:
            did.append(f"{watch.id}: {pair.suite} is asked again")
    return did


def _begin_watch(
    ctx: Context, pair: WatchedPair, reason: str, *, after: DriftWatch | None = None
) -> list[str]:
    with ctx.store.write() as tx:
        if after is not None and not watches.close_watch(ctx, tx, after):
            return []
        watch = watches.begin_watch(ctx, tx, SYSTEM, pair, reason)
    return [] if watch is None else [f"{watch.id}: a baseline of {pair.suite} is measured"]


def _finish_running_check(
    ctx: Context, pair: WatchedPair, watch: DriftWatch, checks: Sequence[DriftCheck]
) -> list[str]:
    """At the running check: nothing while it goes on, all that it found at its end."""
    with ctx.store.read() as tx:
        run = tx.runs.get(checks[-1].run)
        if run.state in RUNNABLE_STATES:
            return []
        samples = tx.runs.samples(run.id)
    served = tuple(sorted({sample.served_model for sample in samples if sample.served_model}))
    check = replace(checks[-1], served=served, ended_at=ctx.clock.now())
    ended = finish_check(watch, check, run, samples, counted_checks(checks))
    with ctx.store.write() as tx:
        if not tx.drift.end(ended):
            return []
        # What answered last may not have been looked at while the run was on.
        did = _alert_other_model(tx, pair, watch, checks)
        return did + _record_result(tx, pair, watch, [*checks[:-1], ended])


def finish_check(
    watch: DriftWatch,
    check: DriftCheck,
    run: EvalRun,
    samples: Sequence[Sample],
    before: Sequence[DriftCheck],
) -> DriftCheck:
    """Judges a check whose run has ended. before: the counted checks of its watch."""
    if because := _unmeasured(watch, run, samples):
        return replace(check, state=DriftCheckState.NOT_MEASURED, message=because)
    scores = load_scores(samples, watch.plan.epochs)
    over = replace(check, state=DriftCheckState.COUNTED, scores=scores)
    if not before:
        return over
    last = before[-1].evidence
    evidence = drift.compare_runs(
        [*(drift_check.scores for drift_check in before), scores],
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
    """Computes each item's mean strict score; None where one of its answers has no score."""
    found: dict[str, list[Sample]] = {}
    for sample in samples:
        found.setdefault(sample.item, []).append(sample)
    return tuple(
        (
            item,
            None
            if len(group) < epochs or any(sample.error for sample in group)
            else sum(sample.strict or 0.0 for sample in group) / len(group),
        )
        for item, group in found.items()
    )


def _record_result(
    tx: Transaction,
    pair: WatchedPair,
    watch: DriftWatch,
    checks: Sequence[DriftCheck],
) -> list[str]:
    check = checks[-1]
    if check.state is DriftCheckState.NOT_MEASURED:
        title = f"the drift watch could not measure {_target_name(tx, watch)}"
        text = f"{check.message}. It is tried again within the hour."
        _raise_alert(tx, AlertKind.JOB_FAILED, pair, watch, (title, text))
        return [f"{watch.id}: not measured, {check.message}"]
    alerts.resolve_alert(tx, AlertKind.JOB_FAILED, watch.id)
    evidence = check.evidence
    if evidence is None:
        return [f"{watch.id}: the baseline of {pair.suite} is measured"]
    if not evidence.drifted:
        return [f"{watch.id}: no drift"]
    tx.drift.save(replace(watch, state=DriftWatchState.DRIFTED))
    words = _describe_drift(tx, pair, watch, checks, evidence)
    _raise_alert(tx, AlertKind.DRIFT, pair, watch, words)
    details = {"check": check.number, "run": check.run, "evidence": asdict(evidence)}
    tx.audit.append(SYSTEM, "drift.found", f"drift watch {watch.id}", details)
    return [f"{watch.id}: {words[0]}"]


def _find_other_model(
    tx: Transaction, watch: DriftWatch, checks: Sequence[DriftCheck]
) -> Sighting | None:
    """A model that none of the counted runs met, seen since: by a router, or by any eval."""
    measured = counted_checks(checks)
    if not measured:
        return None
    met = {ServedModel(name) for name in _list_served(measured)}
    since, seen = measured[-1].ended_at, tx.sightings.for_target(watch.target)
    return find_replacement(met, seen, ServedPin.MODEL, decided_at=since)


def _alert_other_model(
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
    name, model = _target_name(tx, watch), another.served.model
    title = f"the provider of {name} serves another model: {model}"
    text = (
        f"First seen {another.first_at:%Y-%m-%d %H:%M} UTC; the runs so far met "
        f"{', '.join(_list_served(checks))}. Whether it answers as well is measured by the "
        f"next run: `swapgate drift run {pair.routes[0]}` starts it now."
    )
    _raise_alert(tx, AlertKind.SERVED_MODEL, pair, watch, (title, text))
    return [f"{watch.id}: {title}"]


def _raise_alert(
    tx: Transaction,
    kind: AlertKind,
    pair: WatchedPair,
    watch: DriftWatch,
    words: tuple[str, str],
) -> None:
    title, text = words
    about = watch.id
    alerts.raise_alert(tx, kind, about, subject=pair.subject, title=title, text=text)


def _target_name(tx: Transaction, watch: DriftWatch) -> str:
    return tx.routing.targets()[watch.target].name


def _describe_drift(
    tx: Transaction,
    pair: WatchedPair,
    watch: DriftWatch,
    checks: Sequence[DriftCheck],
    evidence: DriftEvidence,
) -> tuple[str, str]:
    """Writes title and text of the alert about drift."""
    by = f"{format_score(abs(evidence.delta))} points {evidence.direction}"
    which = "run" if evidence.window == 1 else f"{evidence.window} runs"
    ends = format_points_interval(evidence.ci_low, evidence.ci_high, missing="")
    interval = f" (95 % interval {ends})" if ends else ""
    changes = watches.list_item_changes(tx, checks)
    shown = changes if evidence.direction == "worse" else changes[::-1]
    figures = (
        f"The newest {which} against those before: {format_points(evidence.delta)} "
        f"points{interval} over {evidence.items} items; {evidence.worse} worse, "
        f"{evidence.same} the same, {evidence.better} better."
    )
    lines = [
        figures,
        f"It serves {pair.subject}. {_describe_served(checks)}",
        *(
            f"Item {change.item}: {change.score_before:g} before, {change.score_now:g} now. "
            f"Before: “{_short(change.answer_before)}” Now: “{_short(change.answer_now)}”"
            for change in shown[:EXAMPLES]
        ),
    ]
    title = f"{_target_name(tx, watch)} answers {watch.suite} otherwise than it did: {by}"
    return title, "\n".join(lines)


def _list_served(checks: Sequence[DriftCheck]) -> list[str]:
    """Lists the models that the provider named in the counted checks."""
    return sorted({name for check in counted_checks(checks) for name in check.served})


def _describe_served(checks: Sequence[DriftCheck]) -> str:
    before, now = _list_served(checks[:-1]), list(checks[-1].served)
    if not now:
        return "The provider does not say which model answers."
    if now == before:
        return f"The provider names the same model as before: {', '.join(now)}."
    return f"The provider named {', '.join(before) or 'none'} before, {', '.join(now)} now."


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= ANSWER_WIDTH else f"{flat[: ANSWER_WIDTH - 1]}…"
