"""Target scores are what ended runs of a target say of it on one suite as it is now. A run says
nothing that is too old, or was measured of another model or another place than answers today.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import count, takewhile
from statistics import fmean
from typing import Final

from harness.control.context import Context
from harness.control.routing import targets
from harness.domain.errors import SwapgateError
from harness.domain.evals.pins import (
    ServedModel,
    ServedPin,
    find_replacement,
    is_mixed,
    named_models,
)
from harness.domain.evals.run import EvalRun, RunState, Sample, SampleError
from harness.domain.evals.suite_plan import SuitePin
from harness.domain.routing.target import Target
from harness.gate.offline.intervals import lower_bound
from harness.store.transaction import Transaction

_ENDED: Final = (RunState.DONE, RunState.STOPPED, RunState.OVER_BUDGET)
MAX_REMEMBERED: Final = 256


@dataclass(frozen=True, slots=True)
class TargetScore:
    """What is known of a target on a suite. low: None where that is nothing."""

    low: float | None = None  # lower 95 % bound of its score
    usd: float | None = None  # of 1,000 answers, by today's price; None if unknown


@dataclass(frozen=True, slots=True)
class MeasuredRuns:
    low: float | None
    input_tokens: float  # input_tokens, output_tokens: of one answer, in the mean
    output_tokens: float
    served: tuple[ServedModel, ...]  # what the provider said that it served
    judge: tuple[ServedModel, ...]  # the same of the judge


@dataclass(frozen=True, slots=True)
class ScoreTerms:
    pin: SuitePin  # of the suite as it is now
    served_pin: ServedPin  # what the providers must go on serving
    lasts: timedelta  # how long a measurement holds


class TargetScores:
    """Scores by target and suite. It remembers what it read: ended runs only ever grow."""

    def __init__(self) -> None:
        self._measured: dict[tuple[object, ...], MeasuredRuns] = {}

    def load(
        self, ctx: Context, tx: Transaction, target: Target, terms: ScoreTerms
    ) -> TargetScore:
        """Nothing is known where a row's signature does not hold, either."""
        try:
            return self._load(ctx, tx, target, terms)
        except SwapgateError:
            return TargetScore()

    def _load(
        self, ctx: Context, tx: Transaction, target: Target, terms: ScoreTerms
    ) -> TargetScore:
        runs = _list_runs(ctx, tx, target, terms)
        if not runs:
            return TargetScore()
        measured = self._measure(tx, runs)
        newest = runs[0].created_at
        for who, served in ((target.id, measured.served), (terms.pin.judge, measured.judge)):
            sightings = tx.sightings.for_target(who) if who else ()
            replaced = find_replacement(served, sightings, terms.served_pin, decided_at=newest)
            if replaced is not None or is_mixed(served, terms.served_pin):
                return TargetScore()
        provider = tx.providers.all().get(target.provider)
        price = provider.prices.get(target.model) if provider is not None else None
        if price is None:
            return TargetScore(measured.low)
        usd = price.cost_usd(measured.input_tokens, measured.output_tokens) * 1000
        return TargetScore(measured.low, usd if math.isfinite(usd) else None)

    def _measure(self, tx: Transaction, runs: Sequence[EvalRun]) -> MeasuredRuns:
        key = tuple((run.id, tx.runs.progress(run.id)[0]) for run in runs)
        known = self._measured.get(key)
        if known is None:
            read = [list_whole_items(tx.runs.samples(run.id), run.epochs) for run in runs]
            known = measure_samples([sample for samples in read for sample in samples])
            while len(self._measured) >= MAX_REMEMBERED:
                self._measured.pop(next(iter(self._measured)))
            self._measured[key] = known
        return known


def _list_runs(
    ctx: Context, tx: Transaction, target: Target, terms: ScoreTerms
) -> Sequence[EvalRun]:
    since = ctx.clock.now() - terms.lasts
    runs = tx.runs.of_suite(target.id, terms.pin.name, terms.pin.digest)
    return [
        run
        for run in takewhile(lambda run: run.created_at > since, runs)
        if run.state in _ENDED
        and targets.find_move_since(ctx, tx, target.id, run.created_at) is None
    ]


def list_whole_items(samples: Sequence[Sample], epochs: int) -> Sequence[Sample]:
    """The run's first items, in its order, up to the first that lacks an answer: one that was
    taken out of the database must not raise the score.
    """
    asked = Counter(sample.position for sample in samples)
    whole = next(position for position in count() if asked[position] != epochs)
    return [sample for sample in samples if sample.position < whole]


def measure_samples(samples: Sequence[Sample]) -> MeasuredRuns:
    """An item that was asked several times counts once, with its mean. An answer that never
    came, or has no valid score, counts 0: a caller would have had none.
    """
    items: dict[str, list[float]] = {}
    for sample in samples:
        items.setdefault(sample.item, []).append(sample.strict or 0.0)
    answered = [sample for sample in samples if sample.error is not SampleError.INFRA]
    return MeasuredRuns(
        low=lower_bound([fmean(scores) for scores in items.values()]) if answered else None,
        input_tokens=fmean([sample.input_tokens for sample in answered] or [math.nan]),
        output_tokens=fmean([sample.output_tokens for sample in answered] or [math.nan]),
        served=named_models(sample.served for sample in answered),
        judge=named_models(sample.judge for sample in answered),
    )
