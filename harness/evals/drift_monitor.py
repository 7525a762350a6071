"""Watches incumbents for drift: runs a suite on them by schedule, compares the scores with
earlier runs, and alerts. All state is in the store, so a second control process repeats no
step.

The monitor never changes a route: a person accepts a new baseline or swaps the model. The test
is in `harness.gate.drift`; opening and closing a watch is in `harness.evals.drift_watches`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final

import structlog

from harness.evals import drift_watches
from harness.evals.context import EvalsContext
from harness.evals.drift_watches import WatchedPair
from harness.evals.records import Drift
from harness.frame.alerts import alerts
from harness.frame.alerts.alert import AlertKind
from harness.frame.alerts.records import Alerts
from harness.frame.errors import Conflict, InputError, SwapproofError
from harness.frame.formatting import format_score
from harness.frame.people.access import SYSTEM
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit_log import AuditLog
from harness.gate import drift
from harness.gate.drift import (
    DriftCheck,
    DriftEvidence,
    DriftWatch,
    ItemScores,
    list_served,
)
from harness.gate.pins import (
    ServedModel,
    ServedPin,
    Sighting,
    find_replacement,
)
from harness.gate.run import LASTING, RUNNABLE_STATES, EvalRun, RunState, Sample
from harness.providers.records import Sightings, Targets
from harness.routing.records.runs import EvalRuns

log = structlog.get_logger("swapproof.drift")
# If a larger share of samples has no score, Swapproof ignores the run.
MAX_MISSING_SHARE: Final = 0.02
# If the run stored a smaller share of the planned answers, Swapproof ignores it too.
MIN_MEASURED_SHARE: Final = 0.5
EXAMPLES: Final = 3
ANSWER_WIDTH: Final = 120


def run_once(ctx: EvalsContext) -> list[str]:
    """Advances all watches. Returns log lines.

    Raises InputError with all suites that failed, but only at the end, so that a broken suite
    does not stop other watches. Raises a retryable SwapproofError at once.
    """
    with ctx.store.read() as tx:
        pairs = drift_watches.list_watched_pairs(ctx, tx)
        open_watches = drift_watches.find_open_watches(tx)
    log_lines = []
    errors = []
    for key in sorted(set(open_watches) - {pair.key for pair in pairs}):
        with ctx.store.write() as tx:
            if drift_watches.close_watch(ctx, tx, open_watches[key]):
                log_lines.append(
                    f"{open_watches[key].id}: closed, because no route asks for it any more"
                )
    for pair in pairs:
        try:
            log_lines += _advance_pair(ctx, pair, open_watches.get(pair.key))
        except Conflict:
            # Another control process was first; the next turn reads its result.
            continue
        except SwapproofError as error:
            if error.retryable:
                raise
            # A suite that does not load must not block the watches of other suites.
            errors.append(f"suite {pair.suite}: {error}")
    for line in log_lines:
        log.info("drift_watch", did=line)
    if errors:
        raise InputError("; ".join(errors))
    return log_lines


def _advance_pair(
    ctx: EvalsContext,
    pair: WatchedPair,
    watch: DriftWatch | None,
) -> list[str]:
    """Advances one watch by at most one step: baseline, end of a run, or the next run.

    Args:
        watch: None if the pair has no open watch.

    A changed plan closes the watch and opens a new one, because scores of different plans
    cannot be compared.
    """
    plan = drift_watches.plan_watch(ctx, pair)
    if watch is None:
        return _begin_watch(ctx, pair, "the first")
    turn = _WatchTurn(ctx, pair, watch)
    log_lines = []
    with ctx.store.read() as tx:
        other_model = turn.find_other_model(tx)
    if other_model is not None and not alerts.is_open(ctx, AlertKind.SERVED_MODEL, watch.id):
        with ctx.store.write() as tx:
            # A person may have closed the watch a moment ago.
            if Drift(tx).is_open(watch.id):
                log_lines = turn.alert_other_model(tx)
    if watch.running is not None:
        return log_lines + turn.finish_run(watch.running)
    if watch.is_drifted:
        return log_lines
    if watch.plan != plan:
        return log_lines + _begin_watch(ctx, pair, "the suite or its plan changed", after=watch)
    if ctx.clock.now() < watch.find_next_due(pair.policy.every_s):
        return log_lines
    with ctx.store.write() as tx:
        drift_watches.start_check(ctx, tx, SYSTEM, pair, watch)
    return [*log_lines, f"{watch.id}: a new run of {pair.suite} starts"]


def _begin_watch(
    ctx: EvalsContext,
    pair: WatchedPair,
    reason: str,
    *,
    after: DriftWatch | None = None,
) -> list[str]:
    """Opens a watch with its baseline run.

    Args:
        after: the watch that it replaces, closed in the same write.
    """
    with ctx.store.write() as tx:
        if after is not None and not drift_watches.close_watch(ctx, tx, after):
            return []
        baseline = drift_watches.start_check(ctx, tx, SYSTEM, pair, reason=reason)
    return [f"{baseline.watch}: a baseline of {pair.suite} is measured"]


@dataclass(frozen=True)
class _WatchTurn:
    """One turn of an open watch. Methods that take a transaction write within it."""

    ctx: EvalsContext
    pair: WatchedPair
    watch: DriftWatch

    def finish_run(self, check: DriftCheck) -> list[str]:
        """Judges the running check once its run has ended."""
        with self.ctx.store.read() as tx:
            run = EvalRuns(tx).get(check.run)
            if run.state in RUNNABLE_STATES:
                return []
            samples = EvalRuns(tx).samples(run.id)
        served = tuple(
            sorted({sample.served_model for sample in samples if sample.served_model})
        )
        check = replace(check, served=served, ended_at=self.ctx.clock.now())
        ended = _judge_check(check, run, samples, self.watch.counted)
        with self.ctx.store.write() as tx:
            if not Drift(tx).end(ended):
                return []
            # The run's last answers may come from another model, and no turn has checked them.
            log_lines = self.alert_other_model(tx)
            new_watch = DriftWatch((*self.watch.checks[:-1], ended))
            return log_lines + replace(self, watch=new_watch).record_result(tx)

    def record_result(self, tx: Transaction) -> list[str]:
        """Writes the alerts and the audit event of the newest check. Returns log lines."""
        watch = self.watch
        check = self.watch.checks[-1]
        if check.message:
            title = f"the drift watch could not measure {self._target_name(tx)}"
            text = f"{check.message}. Swapproof tries again within the hour."
            self._raise_alert(tx, AlertKind.JOB_FAILED, title, text)
            return [f"{watch.id}: not measured, {check.message}"]
        alerts.resolve_alert(tx, AlertKind.JOB_FAILED, watch.id)
        evidence = check.evidence
        if evidence is None:
            return [f"{watch.id}: the baseline of {self.pair.suite} is measured"]
        if not evidence.drifted:
            return [f"{watch.id}: no drift"]
        title, text = self._describe_drift(tx, evidence)
        self._raise_alert(tx, AlertKind.DRIFT, title, text)
        details = {
            "check": check.number,
            "run": check.run,
            "evidence": asdict(evidence),
        }
        AuditLog(tx).append(SYSTEM, "drift.found", f"drift watch {watch.id}", details)
        return [f"{watch.id}: {title}"]

    def find_other_model(self, tx: Transaction) -> Sighting | None:
        """Finds a model that the provider served after the last counted run, but in no counted
        run.
        """
        counted = self.watch.counted
        if not counted:
            return None
        measured_models = {ServedModel(name) for name in list_served(counted)}
        since = counted[-1].ended_at
        sighting = Sightings(tx).for_target(self.pair.target)
        return find_replacement(measured_models, sighting, ServedPin.MODEL, decided_at=since)

    def alert_other_model(self, tx: Transaction) -> list[str]:
        """Raises one alert for each watch, because the next run measures the new model."""
        other_model = self.find_other_model(tx)
        record = Alerts(tx).newest(f"{AlertKind.SERVED_MODEL.value}:{self.watch.id}")
        if other_model is None or (record is not None and record.open):
            return []
        model = other_model.served.model
        title = f"the provider of {self._target_name(tx)} serves another model: {model}"
        text = (
            f"First seen {other_model.first_at:%Y-%m-%d %H:%M} UTC; the runs so far used "
            f"{', '.join(list_served(self.watch.counted))}. The next run measures whether it "
            f"answers as well: `swapproof drift run {self.pair.routes[0]}` starts the run now."
        )
        self._raise_alert(tx, AlertKind.SERVED_MODEL, title, text)
        return [f"{self.watch.id}: {title}"]

    def _raise_alert(
        self,
        tx: Transaction,
        kind: AlertKind,
        title: str,
        text: str,
    ) -> None:
        key = self.watch.id
        subject = self.pair.subject
        alerts.raise_alert(
            tx,
            kind,
            key,
            subject=subject,
            title=title,
            text=text,
        )

    def _target_name(self, tx: Transaction) -> str:
        return Targets(tx).all()[self.pair.target].name

    def _describe_drift(self, tx: Transaction, evidence: DriftEvidence) -> tuple[str, str]:
        """Returns title and text of the alert, with the EXAMPLES items that changed most."""
        difference = f"{format_score(abs(evidence.delta))} points {evidence.direction}"
        runs = "run" if evidence.window == 1 else f"{evidence.window} runs"
        change = evidence.change_text.replace("(", "(95 % interval ")
        changes = drift_watches.list_item_changes(tx, self.watch)
        examples = changes if evidence.direction == "worse" else changes[::-1]
        figures = (
            f"The newest {runs} against earlier runs: {change} over {evidence.items} items; "
            f"{evidence.worse} worse, {evidence.same} the same, {evidence.better} better."
        )
        lines = [
            figures,
            f"The model serves {self.pair.subject}. {_describe_served(self.watch.counted)}",
            *(
                f"Item {change.item}: {change.score_before:g} before, {change.score_now:g} "
                f"now. Before: “{_shorten(change.answer_before)}” Now: "
                f"“{_shorten(change.answer_now)}”"
                for change in examples[:EXAMPLES]
            ),
        ]
        name = self._target_name(tx)
        suite = self.pair.suite
        return (
            f"{name} answers {suite} differently than before: {difference}",
            "\n".join(lines),
        )


def _judge_check(
    check: DriftCheck,
    run: EvalRun,
    samples: Sequence[Sample],
    counted_before: Sequence[DriftCheck],
) -> DriftCheck:
    """Judges a check whose run has ended.

    Args:
        counted_before: the watch's counted checks.
    """
    if message := _explain_unmeasured(check, run, samples):
        return replace(check, message=message)
    counted = replace(check, scores=_load_scores(samples, check.plan.epochs))
    if not counted_before:
        return counted
    last = counted_before[-1].evidence
    evidence = drift.compare_runs(
        [earlier.scores for earlier in (*counted_before, counted)],
        check.plan.alpha,
        -float("inf") if last is None else last.log_e,
    )
    return replace(counted, evidence=evidence)


def _explain_unmeasured(
    check: DriftCheck,
    run: EvalRun,
    samples: Sequence[Sample],
) -> str:
    """Explains why a run gives no evidence; empty if its scores count.

    The watch ignores a run with too many missing answers, because they are not evidence about
    the model.
    """
    missing = [sample for sample in samples if sample.error not in LASTING]
    if run.state in (RunState.FAILED, RunState.STOPPED):
        last = missing[-1].error_text if missing else ""
        return ": ".join(filter(None, (f"the run {run.state.value}", run.message or last)))
    if len(missing) > MAX_MISSING_SHARE * len(samples):
        count = f"{len(missing)} of {len(samples)} answers have no score"
        return f"{count}: {missing[-1].error_text or 'no reply'}"
    if len(samples) < MIN_MEASURED_SHARE * check.plan.items * check.plan.epochs:
        reason = run.message or run.state.value.replace("_", " ")
        return f"{len(samples)} answers are too few for {check.plan.items} items: {reason}"
    return ""


def _load_scores(samples: Sequence[Sample], epochs: int) -> ItemScores:
    """Returns each item's mean strict score; None if an epoch is missing or failed."""
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.item, []).append(sample)
    return tuple(
        (
            item,
            None
            if len(group) < epochs or any(sample.error for sample in group)
            else sum(sample.strict or 0.0 for sample in group) / len(group),
        )
        for item, group in groups.items()
    )


def _describe_served(checks: Sequence[DriftCheck]) -> str:
    """Compares the model names in the newest run's answers with those of all earlier runs."""
    before = list_served(checks[:-1])
    now = list(checks[-1].served)
    if not now:
        return "The provider does not say which model answers."
    if now == before:
        return f"The provider names the same model as before: {', '.join(now)}."
    return f"The provider named {', '.join(before) or 'no model'} before, {', '.join(now)} now."


def _shorten(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= ANSWER_WIDTH else f"{flat[: ANSWER_WIDTH - 1]}…"
