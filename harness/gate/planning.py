"""Before money is spent: what a suite can see, and how many items an effect needs."""

import math
from dataclasses import dataclass

from scipy import special

from harness.domain.evaluation import Claim
from harness.gate.design import FINAL_SHARE, Design

# Share of items on which two models within five points differ: .13 to .21 on real suites.
DISAGREE = 0.20
POWER = 0.8
EFFECT = 0.05


@dataclass(frozen=True, slots=True)
class Forecast:
    """mde: smallest true distance from the null seen with 80 % power. effect: what is wanted.

    items: needed to see `effect`. warning: empty when the suite is large enough.
    """

    sd: float
    mde: float
    effect: float
    items: int
    warning: str


def sd_pass_fail(disagree: float, delta: float = 0.0) -> float:
    """Standard deviation of a pass/fail difference, from the share of items that differ."""
    return math.sqrt(max(disagree - delta * delta, 0.0))


def sd_epochs(between: float, within: float, epochs: int) -> float:
    """Standard deviation of a mean over epochs, from the two variances."""
    return math.sqrt(between + within / epochs)


def mde(sd: float, n: int, alpha: float = 0.05, power: float = POWER) -> float:
    """Minimum detectable effect with n items, a share of 1. alpha: of the whole comparison."""
    return _reach(alpha, power) * sd / math.sqrt(n)


def items_needed(sd: float, delta: float, alpha: float = 0.05, power: float = POWER) -> int:
    """Items that show a true distance `delta` > 0 from the null with the given power."""
    return math.ceil((_reach(alpha, power) * sd / delta) ** 2)


def forecast(design: Design, *, effect: float = EFFECT, disagree: float = DISAGREE) -> Forecast:
    """What this design can see, for pass/fail scores of one epoch.

    effect: that matters to the user; for `non_inferior` it is the margin (equal models).
    disagree: share of items on which the two sides differ.
    """
    wanted = design.margin if design.claim is Claim.NON_INFERIOR else effect
    sd = sd_pass_fail(disagree, wanted if design.claim is Claim.SUPERIOR else 0.0)
    smallest = mde(sd, design.n_max, design.alpha)
    items = items_needed(sd, wanted, design.alpha)
    warning = ""
    if smallest > wanted:
        warning = (
            f"With {design.n_max} items you can only see differences of "
            f"{smallest * 100:.1f} points or more; "
            f"{wanted * 100:.1f} points need {items} items."
        )
    return Forecast(sd, smallest, wanted, items, warning)


def _reach(alpha: float, power: float) -> float:
    return float(special.ndtri(1.0 - FINAL_SHARE * alpha) + special.ndtri(power))
