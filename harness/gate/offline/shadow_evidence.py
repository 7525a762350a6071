"""The evidence of a shadow: does a judge prefer the candidate's answers to the incumbent's
(statistics.md §2.9)? Pure.

The unit is a caller's first pair of answers. Its score is the candidate's win share. Each unit
pays fixed bets, so anyone may read the evidence after each unit, and the first verdict counts.
A pair that the judge could not score counts against both verdicts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from harness.gate.arrays import Bools, Floats, np
from harness.gate.offline.design import REJECT_LOG_E
from harness.gate.offline.label_plan import LabelDesign
from harness.gate.offline.sequential import log_e_below

UNSCORED: Final = (0.0, 1.0)  # the bounds of a pair that the judge could not score


@dataclass(frozen=True, slots=True)
class SharePaths:
    """The log e-values after each unit (…, units), and where they reach their levels."""

    passing: Floats
    failing: Floats
    passes: Bools
    fails: Bools


@dataclass(frozen=True, slots=True)
class ShareEvidence:
    """What a shadow's units show. outcome: passed | failed | running.

    units: up to the verdict, else all. low and high: bounds of the mean win share over these
    units; 0 and 1 without a unit. The log e-values are those after the last of these units.
    """

    outcome: str
    units: int
    low: float
    high: float
    log_e_passing: float
    log_e_failing: float


def trace_shares(low: Floats, high: Floats, design: LabelDesign) -> SharePaths:
    """Computes the evidence after each unit.

    Args:
        low: lower bounds of each unit's win share (…, units), in the order of the units.
        high: the upper bounds.

    A difference of scores is twice the win share less 1. Source: Waudby-Smith & Ramdas 2024.
    """
    passing = log_e_below(1.0 - 2.0 * low, 1.0 - 2.0 * design.theta0)
    failing = log_e_below(2.0 * high - 1.0, 2.0 * design.theta0 - 1.0)
    return SharePaths(
        passing,
        failing,
        passing >= -math.log(design.alpha),
        failing >= REJECT_LOG_E,
    )


def judge_shares(bounds: Sequence[tuple[float, float]], design: LabelDesign) -> ShareEvidence:
    """Judges a shadow by its units so far.

    Args:
        bounds: of each unit's win share, in their order.
    """
    if not bounds:
        return ShareEvidence("running", 0, 0.0, 1.0, 0.0, 0.0)
    low, high = np.array(bounds, dtype=np.float64).T
    paths = trace_shares(low, high, design)
    decided = paths.passes | paths.fails
    at = int(np.argmax(decided)) if decided.any() else len(bounds) - 1
    outcome = "running"
    if decided.any():
        outcome = "passed" if paths.passes[at] else "failed"
    used = at + 1
    return ShareEvidence(
        outcome,
        used,
        math.fsum(low[:used]) / used,
        math.fsum(high[:used]) / used,
        float(paths.passing[at]),
        float(paths.failing[at]),
    )
