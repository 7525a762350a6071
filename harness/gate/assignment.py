"""Sample-ratio check: do as many units reach the canary as were planned (statistics.md 2.6)?"""

import math
from collections.abc import Iterable

from scipy import special

from harness.domain.observation import Block

STRENGTH = 2000.0
ALARM_AT = math.log(1000.0)


def log_srm(canary: int, units: int, share: float, strength: float = STRENGTH) -> float:
    """log e-value against "each unit goes to the canary with probability `share`".

    Count assignments, not served requests. Source: Lindon & Malek 2022.
    """
    a, b = strength * share, strength * (1.0 - share)
    others = units - canary
    mixture = special.betaln(a + canary, b + others) - special.betaln(a, b)
    return float(mixture - canary * math.log(share) - others * math.log1p(-share))


def worst_log_srm(blocks: Iterable[Block]) -> float:
    """The largest log e-value after any block; it starts anew at each weight."""
    counts: dict[int, tuple[int, int]] = {}
    worst = 0.0
    for block in blocks:
        if not 0 < block.weight_bps < 10_000:
            continue
        canary, units = counts.get(block.weight_bps, (0, 0))
        canary, units = canary + block.canary_units, units + block.units
        counts[block.weight_bps] = (canary, units)
        worst = max(worst, log_srm(canary, units, block.weight_bps / 10_000.0))
    return worst
