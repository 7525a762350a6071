"""Evidence paths give each guardrail's evidence after every block, and all combined
(statistics.md §2.5).

The same figures as `HarmEvidence` and `RankEvidence` (`harm_evidence`) give step by step, for
all blocks at once: a rollout of a million requests is looked at every few seconds. Also the
weight of each guardrail, and what it counted in a block.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import accumulate

import numpy as np

from harness.domain.canary.guardrails import (
    FailureTally,
    Guardrail,
    GuardrailKind,
    guardrail_kind,
)
from harness.domain.canary.observation import ObservationBlock
from harness.domain.canary.worker_guard import HARM_GRID
from harness.gate.logspace import Floats, log_mean_rows, running_sum
from harness.gate.online.fisher import log_factors
from harness.gate.online.harm_evidence import RANK_STAKES, odds_grid

ERRORS_WEIGHT = 0.5


def guardrail_weights(guardrails: Collection[Guardrail]) -> dict[Guardrail, float]:
    """Errors ½, the others the other ½ in equal shares; registered with the policy.

    One that sees nothing keeps its weight and an e-value of 1.
    """
    others = len(guardrails) - 1
    if not others:
        return dict.fromkeys(guardrails, 1.0)
    share = (1.0 - ERRORS_WEIGHT) / others
    return {
        guardrail: ERRORS_WEIGHT if guardrail is Guardrail.ERRORS else share
        for guardrail in guardrails
    }


def block_tally(block: ObservationBlock, guardrail: Guardrail) -> FailureTally | None:
    """What a guardrail of counts saw in a block."""
    if guardrail is Guardrail.ERRORS:
        return FailureTally(
            block.units, block.canary_units, block.failures, block.canary_failures
        )
    return block.counts.get(guardrail)


def guardrail_path(
    blocks: Sequence[ObservationBlock], guardrail: Guardrail, tolerated: float
) -> Floats:
    """Computes log e of one guardrail after each block."""
    if guardrail_kind(guardrail) is GuardrailKind.RANKS:
        return ranks_path([block.ranks.get(guardrail, ()) for block in blocks])
    return counts_path([block_tally(block, guardrail) for block in blocks], tolerated)


def combined_path(paths: Mapping[Guardrail, Floats]) -> Floats:
    """Computes the log of the weighted mean of the e-values: a product would count dependent
    data twice.
    """
    weight = guardrail_weights(paths)
    rows = [path + math.log(weight[guardrail]) for guardrail, path in paths.items()]
    # The mean of weighted terms times their number: their sum.
    return log_mean_rows(rows) + math.log(len(rows))


def counts_path(tallies: Sequence[FailureTally | None], tolerated: float = 1.0) -> Floats:
    """Computes log e of harm after each block; None for one that the guardrail did not apply
    to.
    """
    odds, nothing = odds_grid(tolerated), (0.0,) * len(HARM_GRID)
    factors = [
        log_factors(t.units, t.canary, t.failures, t.canary_failures, odds=odds)
        if t
        else nothing
        for t in tallies
    ]
    return _mean_of_products(np.array(factors, dtype=np.float64).reshape(-1, len(HARM_GRID)))


def ranks_path(ranks: Sequence[Sequence[float]]) -> Floats:
    """Computes log e of harm after each block's ranks."""
    leans = 2.0 * np.array([u for rank in ranks for u in rank], dtype=np.float64) - 1.0
    factors = np.log1p(leans[:, None] * np.array(RANK_STAKES))
    ends = list(accumulate(len(rank) for rank in ranks))
    start = np.zeros((1, len(RANK_STAKES)))
    after_each = np.cumsum(np.concatenate([start, factors]), axis=0)
    return _mean(after_each[ends])


def _mean_of_products(factors: Floats) -> Floats:
    return _mean(running_sum(0.0, factors.T)[:, 1:].T)


def _mean(products: Floats) -> Floats:
    return log_mean_rows(list(products.T)) + 0.0
