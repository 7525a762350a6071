"""Before money is spent: what a suite can see, and how many items an effect needs."""

import math

from scipy import special

from harness.gate.offline.design import FINAL_SHARE

# Share of items on which two models within five points differ: .13 to .21 on real suites.
DISAGREEMENT = 0.20
POWER = 0.8
EFFECT = 0.05


def sd_pass_fail(disagree: float, delta: float = 0.0) -> float:
    """Standard deviation of a pass/fail difference, from the share of items that differ."""
    return math.sqrt(max(disagree - delta * delta, 0.0))


def sd_epochs(between: float, within: float, epochs: int) -> float:
    """Standard deviation of a mean over epochs, from the two variances."""
    return math.sqrt(between + within / epochs)


def minimum_detectable_effect(
    sd: float, n: int, alpha: float = 0.05, power: float = POWER
) -> float:
    """Minimum detectable effect with n items, a share of 1. alpha: of the whole comparison."""
    return _reach(alpha, power) * sd / math.sqrt(n)


def items_needed(sd: float, delta: float, alpha: float = 0.05, power: float = POWER) -> int:
    """Items that show a true distance `delta` > 0 from the null with the given power."""
    return math.ceil((_reach(alpha, power) * sd / delta) ** 2)


def _reach(alpha: float, power: float) -> float:
    return float(special.ndtri(1.0 - FINAL_SHARE * alpha) + special.ndtri(power))
