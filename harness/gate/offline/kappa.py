"""Cohen's kappa measures how far two raters agree beyond chance, with its interval.

Cohen (1960), weighted: Cohen (1968); large-sample variance: Fleiss, Cohen and Everitt (1969).
"""

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from harness.domain.errors import InputError


@dataclass(frozen=True, slots=True)
class RaterAgreement:
    """Says how far two raters agree, with an interval of Cohen's kappa."""

    # 1 for full agreement, 0 for what chance gives; None where chance alone already gives full
    # agreement (both raters used one and the same category), so that nothing can be told.
    kappa: float | None
    low: float | None  # low, high: 95 % interval, None with it
    high: float | None
    observed: float  # share of pairs that agree
    n: int


def cohens_kappa(
    pairs: Sequence[tuple[Hashable, Hashable]], *, confidence: float = 0.95
) -> RaterAgreement:
    """Measures agreement on pairs of (one rater's category, the other's). Raises InputError
    without any pair.

    kappa = (p_o - p_e) / (1 - p_e), with p_e from the raters' own shares of each category. The
    interval is normal, cut to [-1, 1]; with few pairs it is rough.
    """
    n = len(pairs)
    if not n:
        raise InputError("agreement needs at least one pair of ratings")
    cells = {cell: count / n for cell, count in Counter(pairs).items()}
    ours = _shares([one for one, _ in pairs])
    theirs = _shares([other for _, other in pairs])
    observed = math.fsum(share for (one, other), share in cells.items() if one == other)
    chance = math.fsum(share * theirs.get(category, 0.0) for category, share in ours.items())
    if chance >= 1.0:
        return RaterAgreement(None, None, None, observed, n)
    kappa = (observed - chance) / (1 - chance)
    spread = 0.0
    for (one, other), share in cells.items():
        mean = theirs.get(one, 0.0) + ours.get(other, 0.0)
        agrees = 1.0 if one == other else 0.0
        spread += share * (agrees - mean * (1 - kappa)) ** 2
    variance = (spread - (kappa - chance * (1 - kappa)) ** 2) / (n * (1 - chance) ** 2)
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * math.sqrt(max(variance, 0.0))
    return RaterAgreement(kappa, max(kappa - reach, -1.0), min(kappa + reach, 1.0), observed, n)


def _shares(ratings: Sequence[Hashable]) -> dict[Hashable, float]:
    return {category: count / len(ratings) for category, count in Counter(ratings).items()}
