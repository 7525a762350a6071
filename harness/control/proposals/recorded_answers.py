"""Recorded answers say what the next comparison on a suite may take: what an answer of a target
costs (`mean_usage`), and how much differences vary and can be foreseen (`measure_spread`).
"""

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Final

from harness.control.evals.run_costs import sum_judging_cost
from harness.control.routing import monthly_bill
from harness.domain.evals.run import AnswerColumns, Sample, SampleError
from harness.domain.evals.suite_plan import SuitePlan
from harness.domain.proposals.proposal import Proposal
from harness.domain.routing.target import Target
from harness.gate.arrays import np
from harness.gate.offline.adjusted import Covariates, adjust_difference
from harness.gate.planning import budget
from harness.gate.planning.budget import DifferenceSpread, MeanUsage
from harness.ports import Transaction

# Enough to know a mean; reading every stored answer would take longer than it tells.
MOST_SAMPLES: Final = 500


def mean_usage(tx: Transaction, plan: SuitePlan, target: Target | None) -> MeanUsage | None:
    """Computes the means of the newest run with answers; None where there is none."""
    if target is None:
        return None
    for run in tx.runs.of_suite(target.id, plan.suite, plan.suite_digest):
        answered = [
            sample
            for sample in tx.runs.samples(run.id, below=MOST_SAMPLES)
            if sample.error is not SampleError.INFRA
        ]
        if answered:
            judged = tx.suites.get(plan.suite_digest).judged
            return _means(answered, judged=judged)
    return None


def _means(samples: Sequence[Sample], *, judged: bool) -> MeanUsage:
    costs = [sample.cost_usd for sample in samples if sample.cost_usd is not None]
    judging = sum_judging_cost(AnswerColumns.from_samples(samples), judged=judged)
    return MeanUsage(
        answers=len(samples),
        input_tokens=fmean(sample.input_tokens for sample in samples),
        output_tokens=fmean(sample.output_tokens for sample in samples),
        cost_usd=fmean(costs) if len(costs) == len(samples) else None,
        duration_s=fmean(sample.duration_s for sample in samples),
        judge_usd=None if judging.usd is None else judging.usd / len(samples),
    )


def usage_at_price(tx: Transaction, target: Target | None, of: MeanUsage) -> MeanUsage:
    """Prices a target as if it took the same tokens and time, and the judge as much."""
    price = monthly_bill.find_price(tx, target)
    per_answer = price.cost_usd(of.input_tokens, of.output_tokens) if price else None
    return replace(of, answers=0, cost_usd=per_answer)


def measure_spread(
    tx: Transaction, plan: SuitePlan, incumbent: str, earlier: Sequence[Proposal]
) -> DifferenceSpread | None:
    """Measures the newest comparison on this suite; one with the same incumbent goes first."""
    for proposal in sorted(earlier, key=lambda former: former.incumbent != incumbent):
        registered = {
            registered_plan.suite: registered_plan for registered_plan in proposal.plans
        }.get(plan.suite)
        runs = proposal.runs.get(plan.suite)
        if registered is None or runs is None or registered.suite_digest != plan.suite_digest:
            continue
        ours = tx.runs.samples(runs.incumbent, below=MOST_SAMPLES)
        theirs = tx.runs.samples(runs.candidate, below=MOST_SAMPLES)
        spread = budget.measure_spread(_differences(registered, ours, theirs))
        if spread is not None:
            return replace(spread, foreseen=_foreseen(registered, ours, theirs))
    return None


def _foreseen(plan: SuitePlan, ours: Sequence[Sample], theirs: Sequence[Sample]) -> float:
    """Share of the differences' variance that the incumbent's scores foresee."""
    pool, answered = _item_scores(ours), _item_scores(theirs)
    items = min(len(pool), len(answered))
    if items < budget.MIN_PAIRS or plan.cluster:
        return 0.0
    columns = Covariates(np.array(pool)).rows(1)
    differences = np.array(answered[:items]) - np.array(pool[:items])
    fitted = adjust_difference(differences[None, :], columns)
    left = float(fitted.squares[0]) / max(items - 1 - fitted.columns, 1)
    whole = float(fitted.all_squares[0]) / (items - 1)
    return max(0.0, 1.0 - left / whole) if whole > 0.0 else 0.0


def _item_scores(samples: Sequence[Sample]) -> list[float]:
    """Of the items in their order, up to the first without a score."""
    scores: dict[int, list[float | None]] = {}
    for sample in samples:
        scores.setdefault(sample.position, []).append(sample.strict)
    found: list[float] = []
    while known := [score for score in scores.get(len(found), []) if score is not None]:
        found.append(fmean(known))
    return found


def _differences(
    plan: SuitePlan, ours: Sequence[Sample], theirs: Sequence[Sample]
) -> list[list[float]]:
    """Per unit, per epoch; only answers that both sides have a score of."""
    scores = {(s.item, s.epoch): s.strict for s in ours if s.strict is not None}
    units: dict[int, dict[int, list[float]]] = {}
    for sample in theirs:
        score = scores.get((sample.item, sample.epoch))
        if score is not None and sample.strict is not None:
            epochs = units.setdefault(plan.units_in(sample.position), {})
            epochs.setdefault(sample.epoch, []).append(sample.strict - score)
    return [[fmean(epoch) for epoch in epochs.values()] for epochs in units.values()]
