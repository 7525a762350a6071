"""Past scores of other models say how hard each item of a suite is. They are read once, when a
proposal is registered, and written into its plan: nothing that comes later can change what the
gate adjusts by (statistics.md §1.14).
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import islice
from statistics import fmean
from typing import Final

from harness.domain.evals.difficulty import encode_scores
from harness.domain.evals.run import EvalRun, RunState, Sample
from harness.domain.evals.suite_plan import GateRule, SuitePlan
from harness.ports import Transaction

# More models say little more about an item, and each is read from the database.
MOST_MODELS: Final = 8


def with_difficulty(tx: Transaction, plan: SuitePlan, excluded: Collection[str]) -> SuitePlan:
    """The plan with the mean score of each item, over the models that answered them all.

    excluded: the two arms, and what the candidate descends from: what could tell the
    candidate's own answers is not used.
    """
    if plan.rule is not GateRule.ADJUSTED:
        return plan
    models = _scores_of_models(tx, plan, excluded)
    if not models:
        return plan
    means = [fmean(scores) for scores in zip(*models, strict=True)]
    return replace(plan, difficulty=encode_scores(means))


def _scores_of_models(
    tx: Transaction, plan: SuitePlan, excluded: Collection[str]
) -> Sequence[Sequence[float]]:
    """Of the newest complete run of each model, in the plan's order; of those models that
    were asked last.
    """
    others = frozenset(tx.routing.targets()) - frozenset(excluded)
    newest = tx.runs.newest_of_targets(others, [*RunState])
    asked = (_newest_scores(tx, plan, run.target) for run in newest if run.suite == plan.suite)
    found = (scores for scores in asked if scores is not None)
    return list(islice(found, MOST_MODELS))


def _newest_scores(tx: Transaction, plan: SuitePlan, model: str) -> Sequence[float] | None:
    for run in tx.runs.of_suite(model, plan.suite, plan.suite_digest):
        if _same_items(run, plan):
            scores = _item_scores(tx.runs.outcomes(run.id, below=plan.pool), plan.pool)
            if scores is not None:
                return scores
    return None


def _same_items(run: EvalRun, plan: SuitePlan) -> bool:
    return run.order_seed == plan.order_seed and run.wanted >= plan.pool


def _item_scores(samples: Sequence[Sample], items: int) -> Sequence[float] | None:
    """None where an item has no answer yet. One without a score says 0."""
    scores: list[list[float]] = [[] for _ in range(items)]
    for sample in samples:
        scores[sample.position].append(sample.strict or 0.0)
    return [fmean(epochs) for epochs in scores] if all(scores) else None
