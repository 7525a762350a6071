"""A comparison's budget: the items that show an effect, the smallest effect that can be shown,
costs and duration (statistics.md §1.9). It uses the spread of measured differences and the mean
usage of answers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from harness.gate.arrays import special

# Share of items on which two models within five points differ: .13 to .21 on real suites.
DISAGREEMENT = 0.20
POWER = 0.8
SLICE_POWER = 0.95
EFFECT = 0.05


def sd_pass_fail(disagree: float, delta: float = 0.0) -> float:
    """Computes the deviation of a pass/fail difference from the share of items that differ."""
    return math.sqrt(max(disagree - delta * delta, 0.0))


def slice_effect(sd: float, n: int, level: float) -> float:
    """Computes the smallest loss of a slice that one look at n units finds with power .8.

    level: the error of that look (statistics.md §1.13). A much worse candidate differs on more
    items than earlier candidates did, so the plan uses more power.
    """
    reach = float(special.stdtrit(n - 1.0, 1.0 - level) + special.ndtri(SLICE_POWER))
    unseen = 1.0 / (1.0 + n * sd * sd / 4.0)
    return (reach * math.sqrt(sd * sd * n + 0.25 + unseen * unseen) + unseen) / n


MAX_EPOCHS: Final = 5
# A spread from fewer pairs is a guess; the default is at least a cautious guess.
MIN_PAIRS: Final = 30


@dataclass(frozen=True, slots=True)
class MeanUsage:
    """Mean tokens, cost and duration of one answer."""

    answers: int
    input_tokens: float
    output_tokens: float
    cost_usd: float | None  # None if a price is unknown
    duration_s: float
    judge_usd: float | None = 0.0  # the judge's cost, 0 without a judge, None if unknown

    @property
    def total_usd(self) -> float | None:
        if self.cost_usd is None or self.judge_usd is None:
            return None
        return self.cost_usd + self.judge_usd


@dataclass(frozen=True, slots=True)
class DifferenceSpread:
    """Holds the variances of an item's difference, between items and within an item. With one
    epoch, `between` contains both, and further epochs do not help.
    """

    between: float
    within: float
    pairs: int
    graded: bool = False  # not every difference is -1, 0 or 1

    def sd(self, epochs: int) -> float:
        return math.sqrt(self.between + self.within / epochs)


@dataclass(frozen=True, slots=True)
class DesignOption:
    items: int
    epochs: int
    answers: int  # of both sides
    cost_usd: float | None


def measure_spread(differences: Sequence[Sequence[float]]) -> DifferenceSpread | None:
    """Measures the spread of differences, per item and epoch; None below MIN_PAIRS items."""
    if len(differences) < MIN_PAIRS:
        return None
    means = [fmean(difference) for difference in differences]
    total = _variance(means)
    graded = any(d != round(d) for difference in differences for d in difference)
    epochs = min(len(difference) for difference in differences)
    if epochs < 2:
        return DifferenceSpread(total, 0.0, len(means), graded)
    within = fmean(_variance(difference) for difference in differences)
    return DifferenceSpread(max(0.0, total - within / epochs), within, len(means), graded)


def comparison_cost_usd(
    items: int, epochs: int, sides: Sequence[MeanUsage | None]
) -> float | None:
    """Returns the maximum cost, including judging; None if a price is unknown."""
    return _summed(items * epochs, [side.total_usd if side else None for side in sides])


def judging_cost_usd(
    items: int, epochs: int, sides: Sequence[MeanUsage | None]
) -> float | None:
    return _summed(items * epochs, [side.judge_usd if side else None for side in sides])


def _summed(answers: int, costs: Sequence[float | None]) -> float | None:
    known = [usd for usd in costs if usd is not None]
    return answers * math.fsum(known) if len(known) == len(costs) else None


def comparison_duration_s(
    items: int,
    epochs: int,
    sides: Sequence[MeanUsage | None],
    connections: int,
) -> float | None:
    """Returns the duration of both sides in parallel; each side has `connections`
    connections."""
    known = [side.duration_s for side in sides if side is not None]
    if len(known) < len(sides) or not known:
        return None
    return items * max(known) * epochs / connections


def _variance(values: Sequence[float]) -> float:
    if len(values) < 2:
        return 0.0
    mean = fmean(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
