"""The sample-ratio check asks whether as many units reach the canary as planned
(statistics.md §2.6).

A sticky key keeps its arm, so only its first count is information: each period and weight has
counts of its own. The j-th of them has alpha/(j(j+1)), so that all together raise a false alarm
in at most one rollout of 1,000, however much one period's keys are those of another (union
bound).
"""

import math
from collections.abc import Iterable
from datetime import datetime

from harness.domain.canary.observation import ObservationBlock
from harness.gate.arrays import special

PRIOR_STRENGTH = 2000.0
ALARM_LOG_E = math.log(1000.0)


def log_srm(canary: int, units: int, share: float, strength: float = PRIOR_STRENGTH) -> float:
    """Computes the log e-value against "each unit goes to the canary with probability `share`".

    Count assignments, not served requests. Source: Lindon & Malek 2022.
    """
    a, b = strength * share, strength * (1.0 - share)
    others = units - canary
    mixture = special.betaln(a + canary, b + others) - special.betaln(a, b)
    return float(mixture - canary * math.log(share) - others * math.log1p(-share))


def worst_log_srm(
    blocks: Iterable[ObservationBlock],
    since: datetime | None = None,
) -> float:
    """Computes the largest log e-value after any block, less what its part of alpha costs.

    blocks: in the order of number. since: when a person last went on, or the step began; blocks
    opened before are looked into no more. None for all.
    """
    counts: dict[tuple[int, int, bool], tuple[int, int]] = {}
    costs: dict[tuple[int, int, bool], float] = {}
    worst = 0.0
    for block in blocks:
        if not 0 < block.weight_bps < 10_000:
            continue
        looked_into = since is None or block.opened_at >= since
        part = (block.period, block.weight_bps, looked_into)
        j = len(costs) + 1
        cost = costs.setdefault(part, math.log(j * (j + 1)))
        if looked_into:
            canary, units = counts.get(part, (0, 0))
            canary, units = counts[part] = canary + block.canary_units, units + block.units
            worst = max(worst, log_srm(canary, units, block.weight_bps / 10_000.0) - cost)
    return worst
