"""Expects the spread of two models' differences on a suite, from recorded comparisons or by a
guess, and the effect that a comparison plans for.
"""

from collections.abc import Sequence
from statistics import fmean
from typing import Final

from harness.frame.records.transaction import Transaction
from harness.gate import budget
from harness.gate.budget import DISAGREEMENT, EFFECT, DifferenceSpread, sd_pass_fail
from harness.gate.run import Sample
from harness.gate.suite_plan import Claim, SuitePlan
from harness.proposals.labels.blindness import hide_evidence
from harness.routing.proposal import Proposal
from harness.routing.records.runs import EvalRuns

# Enough for a mean, without reading every stored answer.
MOST_SAMPLES: Final = 500
# The assumed similarity of items of one cluster before any comparison.
CLUSTER_ICC: Final = 0.5
MOST_EARLIER: Final = 200  # maximum of proposals to search for a comparison on this suite


def find_recorded_spread(
    tx: Transaction,
    plan: SuitePlan,
    incumbent: str,
    earlier: Sequence[Proposal],
) -> DifferenceSpread | None:
    """Measures the newest comparison on this suite whose evidence is not hidden, preferably
    with the same incumbent.
    """
    for proposal in sorted(earlier, key=lambda former: former.incumbent != incumbent):
        registered_by_suite = {
            registered_plan.suite: registered_plan for registered_plan in proposal.plans
        }.get(plan.suite)
        runs = hide_evidence(tx, proposal)[0].runs.get(plan.suite)
        if (
            registered_by_suite is None
            or runs is None
            or registered_by_suite.suite_digest != plan.suite_digest
        ):
            continue
        incumbent_samples = EvalRuns(tx).samples(runs.incumbent, below=MOST_SAMPLES)
        candidate_samples = EvalRuns(tx).samples(runs.candidate, below=MOST_SAMPLES)
        spread = budget.measure_spread(
            _paired_differences(registered_by_suite, incumbent_samples, candidate_samples)
        )
        if spread is not None:
            return spread
    return None


def _paired_differences(
    plan: SuitePlan,
    incumbent_samples: Sequence[Sample],
    candidate_samples: Sequence[Sample],
) -> list[list[float]]:
    """Returns differences by unit and epoch, for answers with a score on both sides."""
    scores = {
        (sample_.item, sample_.epoch): sample_.strict
        for sample_ in incumbent_samples
        if sample_.strict is not None
    }
    units: dict[int, dict[int, list[float]]] = {}
    for sample in candidate_samples:
        score = scores.get((sample.item, sample.epoch))
        if score is not None and sample.strict is not None:
            epochs = units.setdefault(plan.units_in(sample.position), {})
            epochs.setdefault(sample.epoch, []).append(sample.strict - score)
    return [[fmean(epoch) for epoch in epochs.values()] for epochs in units.values()]


def planned_effect(plan: SuitePlan, wanted_effect: float | None) -> float:
    """Returns the effect to plan for; for non_inferior the margin, as for equal models."""
    if plan.claim.quality is Claim.NON_INFERIOR:
        return plan.margin
    return EFFECT if wanted_effect is None else wanted_effect


def guess_variance(plan: SuitePlan, effect: float) -> float:
    """Guesses the variance of a unit's difference, before any comparison.

    Assumes that the models differ on a share DISAGREEMENT of pass/fail items. Items of one
    cluster correlate by CLUSTER_ICC, so a cluster's mean varies more than the mean of
    independent items.
    """
    shift = effect if plan.claim is Claim.SUPERIOR else 0.0
    variance = sd_pass_fail(DISAGREEMENT, shift) ** 2
    if not plan.cluster:
        return variance
    shares = [CLUSTER_ICC + (1.0 - CLUSTER_ICC) / size for size in plan.cluster_sizes]
    return variance * fmean(shares)
