"""Futility: a comparison that can hardly be shown any more ends before its last item
(statistics.md §1.16). It ends as inconclusive, never as passed, so it cannot raise the rate of
false promotions; what it may cost is power.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from harness.gate.arrays import ArrayLike, Floats, Ints, np, running_sum, special
from harness.gate.offline.design import OPTIMISM_SE, Design, chance_of_passing
from harness.gate.offline.sequential import ComparisonEvidence, judge_differences

# Not before this share of the items: what the first ones show is mostly luck.
FIRST_LOOK: Final = 0.25
FUTILE: Final = "futile"  # how a comparison ended that was given up
EARLY_ENDS: Final = ("early", FUTILE)


def hopeless_at(differences: ArrayLike, design: Design, futility: float) -> Ints:
    """Finds after how many items (…, items) the test at `n_max` would be reached with less than
    the chance `futility`; n_max where it never is.
    """
    d = np.asarray(differences, dtype=np.float64)
    n = np.arange(1, d.shape[-1] + 1)
    sums = running_sum(0.0, d)[..., 1:], running_sum(0.0, d * d)[..., 1:]
    hopeless = chance_of_passing(n, *sums, design) < futility
    hopeless &= (n >= FIRST_LOOK * design.n_max) & (n < design.n_max)
    first = np.where(hopeless.any(axis=-1), hopeless.argmax(axis=-1) + 1, design.n_max)
    return np.asarray(first, dtype=np.int64)


def chance_of_last(now: Floats, share: float, level: float) -> Floats:
    """Computes the chance that the last planned analysis is passed, at this level.

    now: the distance from the null in standard errors, after this share of the items. What is
    to come is taken to be as good as the upper end of what was seen.
    """
    drift = (now + OPTIMISM_SE) / np.sqrt(share)
    ahead = now * np.sqrt(share) + drift * (1.0 - share) + special.ndtri(level)
    return np.asarray(special.ndtr(ahead / np.sqrt(1.0 - share)))


def judge_or_give_up(
    differences: Sequence[float], design: Design, futility: float
) -> ComparisonEvidence:
    """Judges by the rule PAIRED, and ends where the comparison has become hopeless."""
    evidence = judge_differences(differences, design)
    return give_up(evidence, differences, design, futility)


def give_up(
    evidence: ComparisonEvidence,
    differences: Sequence[float],
    design: Design,
    futility: float,
) -> ComparisonEvidence:
    """The judgement up to where the comparison had become hopeless; `evidence` itself where it
    was decided before, or nothing is given up.
    """
    if not futility or not differences:
        return evidence
    at = int(hopeless_at(differences, design, futility))
    last = evidence.n_used if evidence.outcome == "running" else evidence.n_used - 1
    if at == design.n_max or at > last:
        return evidence
    ended = judge_differences(differences[:at], design)
    return replace(ended, outcome="inconclusive", how=FUTILE)
