"""Evidence from a shadow's pairs that the candidate is worse (McNemar, anytime-valid).

Of the pairs in which exactly one side holds a check, a candidate that is no worse loses at
most half. For a rate θ above ½, the product of 2θ for each pair that the candidate alone lost,
and of 2(1 - θ) for each that the incumbent alone lost, is then a supermartingale. The mean
over THETAS is one as well, so that it ever exceeds 1/α with probability α at most (Ville). So
is the mean over all checks, as long as each keeps its weight from the start. It depends on the
counts alone: counts added up by many workers give the same figure.
"""

import math
from collections.abc import Mapping
from typing import Final

from harness.domain.shadow.pairs import ShadowCheck
from harness.gate.logspace import log_mean

# Of false alarms, over all checks and the whole life of a shadow.
SHADOW_ALPHA: Final = 0.05
# By which a decision was made; its audit event says so. The first was the mean of the checks
# seen so far: their weights changed with each new one, and the level did not hold.
SEEN_CHECKS_RULE: Final = 1
ALL_CHECKS_RULE: Final = 2
THETAS: Final = (0.55, 0.6, 0.7, 0.8, 0.9, 0.97)


def check_log_e(lost: int, won: int) -> float:
    """Of one check. lost: pairs that only the incumbent held. won: only the candidate."""
    return log_mean(
        [lost * math.log(2 * theta) + won * math.log(2 * (1 - theta)) for theta in THETAS]
    )


def combined_log_e(
    discordant: Mapping[str, tuple[int, int]], *, rule: int = ALL_CHECKS_RULE
) -> float:
    """The mean of the checks' e-values: they see the same pairs, and are not independent.

    A check that no pair was asked for yet has its weight, and an e-value of 1.
    """
    seen = [check_log_e(*each) for each in discordant.values()]
    if rule == ALL_CHECKS_RULE:
        return log_mean([*seen, *[0.0] * (len(ShadowCheck) - len(seen))])
    return log_mean(seen) if seen else 0.0


def is_harm(log_e_all: float, alpha: float = SHADOW_ALPHA) -> bool:
    return log_e_all >= -math.log(alpha)


def share_of_level(log_e_value: float, alpha: float = SHADOW_ALPHA) -> float:
    """How near it is to the level, 0 to 1 and beyond."""
    return max(0.0, log_e_value / -math.log(alpha))
