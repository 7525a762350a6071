"""Clusters are the units of a suite whose items belong together: paraphrases, turns of one
conversation, questions on one document (statistics.md §1.12).

The registered order keeps the items of a cluster together, and the plan holds the clusters'
sizes in that order; so the plan alone says which items are one unit. Every cluster weighs the
same, however many items it has.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from harness.domain.evals.suite_plan import SuitePlan
from harness.domain.evals.verdict import ScorePair
from harness.gate.offline.pairs import PairedItem


def merge_clusters(plan: SuitePlan, items: Sequence[PairedItem]) -> tuple[PairedItem, ...]:
    """Averages the items of each whole cluster, both sides alike, into one that bears the name
    of its first; returns the items themselves where they are the units.
    """
    if not plan.cluster:
        return tuple(items)
    return tuple(_mean_item(members) for members in _clusters(plan, items))


def without_unanswered(items: Sequence[PairedItem]) -> tuple[PairedItem, ...]:
    """The items, with those that the candidate did not answer as ties."""
    return tuple(_tied(item) if item.unanswered else item for item in items)


def _clusters(plan: SuitePlan, items: Sequence[PairedItem]) -> Iterator[Sequence[PairedItem]]:
    begin = 0
    for size in plan.cluster_sizes:
        if begin + size > len(items):
            return
        yield items[begin : begin + size]
        begin += size


def _mean_item(members: Sequence[PairedItem]) -> PairedItem:
    def mean(scores: Sequence[float]) -> float:
        return math.fsum(scores) / len(scores)

    pairs = [member.pair for member in members]
    return PairedItem(
        pair=ScorePair(
            item=pairs[0].item,
            incumbent=mean([pair.incumbent for pair in pairs]),
            candidate=mean([pair.candidate for pair in pairs]),
            lenient_incumbent=mean([pair.lenient_incumbent for pair in pairs]),
            lenient_candidate=mean([pair.lenient_candidate for pair in pairs]),
        ),
        unscored_incumbent=sum(member.unscored_incumbent for member in members),
        unscored_candidate=sum(member.unscored_candidate for member in members),
        unanswered=any(member.unanswered for member in members),
        rules=tuple(rule for member in members for rule in member.rules),
        costs=(
            _mean_cost([member.costs[0] for member in members]),
            _mean_cost([member.costs[1] for member in members]),
        ),
    )


def _mean_cost(costs: Sequence[float | None]) -> float | None:
    """A cluster's cost is known where that of each item is."""
    known = [cost for cost in costs if cost is not None]
    return math.fsum(known) / len(known) if len(known) == len(costs) else None


def _tied(item: PairedItem) -> PairedItem:
    return replace(item, pair=replace(item.pair, candidate=item.pair.incumbent))
