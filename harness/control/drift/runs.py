"""A drift watch's run that has ended: what it measured, if it did."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from harness.control.context import Context
from harness.domain.drift.watch import DriftCheck, DriftCheckState, DriftWatch, ItemScores
from harness.domain.evals.run import EvalRun, RunState, Sample, SampleError
from harness.gate import drift as gate

# More samples than this share without an answer: the run says nothing about the model.
MOST_UNANSWERED: Final = 0.02
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
    evidence = gate.compare_runs(
        [*(each.scores for each in before), over.scores],
        watch.plan.alpha,
        -float("inf") if last is None else last.log_e,
    )
    return replace(over, evidence=evidence)


def _unmeasured(watch: DriftWatch, run: EvalRun, samples: Sequence[Sample]) -> str:
    """Why the run says nothing about the model; empty when it does."""
    unanswered = [each for each in samples if each.error is SampleError.INFRA]
    if run.state in (RunState.FAILED, RunState.STOPPED):
        last = unanswered[-1].error_text if unanswered else ""
        return ": ".join(filter(None, (f"the run {run.state.value}", run.message or last)))
    if len(unanswered) > MOST_UNANSWERED * len(samples):
        many = f"{len(unanswered)} of {len(samples)} answers did not come"
        return f"{many}: {unanswered[-1].error_text or 'no reply'}"
    if len(samples) < LEAST_MEASURED * watch.plan.items * watch.plan.epochs:
        why = run.message or run.state.value.replace("_", " ")
        return f"{len(samples)} answers are too few for {watch.plan.items} items: {why}"
    return ""


def load_scores(samples: Sequence[Sample], epochs: int) -> ItemScores:
    """Mean strict score by item, in order. An answer without a score counts 0 in every run
    alike; an item with an epoch that did not come was not measured.
    """
    found: dict[str, list[Sample]] = {}
    for each in samples:
        found.setdefault(each.item, []).append(each)
    return tuple((item, _score(group, epochs)) for item, group in found.items())


def _score(group: Sequence[Sample], epochs: int) -> float | None:
    if len(group) < epochs or any(each.error is SampleError.INFRA for each in group):
        return None
    return sum(0.0 if each.strict is None else each.strict for each in group) / len(group)
