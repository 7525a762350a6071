"""A planned test predicts, before a comparison, which differences it shows (`PlannedTest`,
statistics.md §1.9). `cheapest_design` finds the items and epochs that show the difference that
matters.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from harness.gate.offline.design import interim_items, interim_power
from harness.gate.offline.intervals import VARIANCE_GUARD
from harness.gate.offline.item_tests import MOST_NOISE, asked_anew, share_left
from harness.gate.planning import budget
from harness.gate.planning.budget import DesignOption, DifferenceSpread, MeanUsage
from harness.gate.suite_plan import Claim, SuitePlan

_MOST_DRIFT: Final = 8.0  # standard errors; larger effects are always shown
_STEPS: Final = 14
_MOST_ITEMS: Final = 10**7
# The part of the differences' spread that wins and losses share: .33 to .46 on graded suites.
_SHARED: Final = 0.4


@dataclass(frozen=True, slots=True)
class PlannedTest:
    """Predicts the test at planned analyses for a suite."""

    alpha: float
    suite_items: int  # units of the suite
    planned: int  # units of the planned analyses
    about_these: bool = False
    # Share of the differences' variance that comes from asking the same items again.
    anew: float = 1.0
    graded: bool = False  # not every difference is -1, 0 or 1
    margin: float = 0.0  # allowed loss; 0 for a claim without one

    def with_epochs(self, spread: DifferenceSpread, epochs: int) -> "PlannedTest":
        test = replace(self, graded=spread.graded or epochs > 1)
        if not self.about_these or not spread.within:
            return test
        # For each model, add one item with the maximum noise.
        noise = spread.within / epochs + 2.0 * MOST_NOISE / self.planned
        return replace(test, anew=float(asked_anew(noise, spread.sd(epochs) ** 2)))

    def smallest_effect(self, sd: float, items: int) -> float:
        """Computes the smallest true distance from the null that the test shows with power
        .8."""
        return self._reach * self._error(sd, items) + self._unseen(sd, items) / items

    def power(self, sd: float, effect: float, items: int) -> float:
        shown = (effect - self._unseen(sd, items) / items) / self._error(sd, items)
        drift = max(-_MOST_DRIFT, min(shown, _MOST_DRIFT))
        return interim_power(interim_items(items), self.alpha, drift)

    def items_needed(self, sd: float, effect: float) -> int:
        """Computes how many items show a distance above 0 with power .8."""
        enough = range(1, _MOST_ITEMS)
        return enough.start + bisect_left(
            enough, -effect, key=lambda items: -self.smallest_effect(sd, items)
        )

    @property
    def _reach(self) -> float:
        return _reach(interim_items(self.planned), self.alpha)

    def _error(self, sd: float, items: int) -> float:
        left = float(share_left(min(1.0, items / self.suite_items), self.anew))
        guards = VARIANCE_GUARD + self._unseen(sd, items) ** 2
        variance = sd * sd + guards / items
        if self.margin and not self.graded:
            variance = max(variance, self._null_variance(sd * sd))
        return math.sqrt(left * variance / items)

    def _null_variance(self, disagree: float) -> float:
        """Computes the score test's variance for equal models."""
        square = self.margin * self.margin
        root = disagree * disagree + 4.0 * square * max(0.0, 1.0 - disagree)
        return (disagree + math.sqrt(root)) / 2.0 - square

    def _unseen(self, sd: float, items: int) -> float:
        """The unseen loss of graded items (statistics.md §1.17)."""
        return 1.0 / (1.0 + _SHARED * items * sd * sd / 2.0) if self.graded else 0.0


def planned_test(plan: SuitePlan, suite_items: int, spread: DifferenceSpread) -> PlannedTest:
    test = PlannedTest(
        plan.alpha,
        suite_items,
        plan.n_max,
        about_these=plan.about_these,
        margin=0.0 if plan.claim is Claim.SUPERIOR else plan.margin,
    )
    return test.with_epochs(spread, plan.epochs)


def cheapest_design(
    spread: DifferenceSpread,
    effect: float,
    test: PlannedTest,
    sides: Sequence[MeanUsage | None],
) -> DesignOption | None:
    """Finds the cheapest design that shows the effect; None if the suite has too few items.

    effect: true distance from the null, above 0. If prices are unknown, counts answers.
    """
    found = []
    for epochs in range(2 if test.about_these else 1, budget.MAX_EPOCHS + 1):
        items = test.with_epochs(spread, epochs).items_needed(spread.sd(epochs), effect)
        if items <= test.suite_items:
            cost = budget.comparison_cost_usd(items, epochs, sides)
            found.append(DesignOption(items, epochs, 2 * items * epochs, cost))
    return min(found, key=lambda option: (option.answers, option.epochs), default=None)


@lru_cache(maxsize=64)
def _reach(items: tuple[int, ...], alpha: float) -> float:
    """Returns the distance, in standard errors of the last test, shown with power .8."""
    low, high = 0.0, _MOST_DRIFT
    for _ in range(_STEPS):
        middle = (low + high) / 2.0
        shown = interim_power(items, alpha, middle) >= budget.POWER
        low, high = (low, middle) if shown else (middle, high)
    return high
