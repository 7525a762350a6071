"""Evidence that a mirrored candidate is worse than its incumbent: an anytime-valid sign test
for each check that only one side's answer passed (`check_log_e`), averaged over all. Pure.
"""

import math
from collections.abc import Mapping
from typing import Final

from harness.gate.arrays import log_mean
from harness.routing.shadow import ShadowCheck

# Of false alarms, over all checks and the whole life of a shadow.
SHADOW_ALPHA: Final = 0.05
THETAS: Final = (0.55, 0.6, 0.7, 0.8, 0.9, 0.97)


def check_log_e(lost: int, won: int) -> float:
    """Returns the log e-value of one check. lost: pairs that only the incumbent held. won: only
    the candidate.
    """
    return log_mean(
        [lost * math.log(2 * theta) + won * math.log(2 * (1 - theta)) for theta in THETAS]
    )


def combined_log_e(discordant: Mapping[str, tuple[int, int]]) -> float:
    """The mean of the checks' e-values: they see the same pairs, and are not independent.

    A check that no pair was asked for yet has its weight, and an e-value of 1.
    """
    seen = [check_log_e(*counts) for counts in discordant.values()]
    return log_mean([*seen, *[0.0] * (len(ShadowCheck) - len(seen))])


def is_harm(log_e_all: float) -> bool:
    return log_e_all >= -math.log(SHADOW_ALPHA)


def share_of_level(log_e_value: float) -> float:
    """How near the evidence is to the level of harm, 0 to 1 and beyond."""
    return max(0.0, log_e_value / -math.log(SHADOW_ALPHA))
