"""Planned tests say, before a comparison is made, which differences it shows under its rule:
`PairedTest` (statistics.md §1.9) and `AdjustedTest` (§1.14). `cheapest_design` finds the items
and epochs that show what matters.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Protocol

from harness.domain.evals.suite_plan import SuitePlan
from harness.gate.offline.design import interim_items, interim_power
from harness.gate.planning import budget
from harness.gate.planning.budget import DesignOption, DifferenceSpread, MeanUsage

# Items that the incumbent answers for each one of the candidate: more say little about others.
POOL_PER_ITEM: Final = 2.5
_MOST_DRIFT: Final = 8.0  # standard errors; nearly nothing is shown that needs more
_STEPS: Final = 14


class PlannedTest(Protocol):
    """Says what a suite's items show."""

    @property
    def suite_items(self) -> int:
        """Counts the units that the suite has."""

    def smallest_effect(self, sd: float, items: int) -> float:
        """Computes the smallest true distance from the null that is shown with power .8."""

    def power(self, sd: float, effect: float, items: int) -> float:
        """Computes how often a true distance from the null is shown."""

    def items_needed(self, sd: float, effect: float) -> int:
        """Computes how many items of the candidate show a distance with power .8."""

    def incumbent_items(self, items: int) -> int:
        """Counts the items that the incumbent is asked."""


@dataclass(frozen=True, slots=True)
class PairedTest:
    """The test of the differences alone."""

    alpha: float
    suite_items: int

    def smallest_effect(self, sd: float, items: int) -> float:
        return budget.minimum_detectable_effect(sd, items, self.alpha)

    def power(self, sd: float, effect: float, items: int) -> float:
        return budget.power_of(sd, effect, items, self.alpha)

    def items_needed(self, sd: float, effect: float) -> int:
        return budget.items_needed(sd, effect, self.alpha)

    def incumbent_items(self, items: int) -> int:
        return items


@dataclass(frozen=True, slots=True)
class AdjustedTest:
    """The test at planned analyses, of what could not be foreseen."""

    alpha: float
    suite_items: int
    planned: int  # items of the candidate, whose analyses these are
    foreseen: float = 0.0  # share of the differences' variance that is taken out

    def smallest_effect(self, sd: float, items: int) -> float:
        return self._reach * self._error(sd, items)

    def power(self, sd: float, effect: float, items: int) -> float:
        error = self._error(sd, items)
        if error <= 0.0:
            return 1.0
        drift = min(effect / error, _MOST_DRIFT)
        return interim_power(interim_items(items), self.alpha, drift)

    def items_needed(self, sd: float, effect: float) -> int:
        allowed = (effect / (self._reach * sd)) ** 2 if sd > 0.0 else math.inf
        left = 1.0 - self.foreseen
        free = max(1, math.ceil((left + self.foreseen / POOL_PER_ITEM) / allowed))
        if pool_items(free, self.suite_items) < self.suite_items:
            return free
        # Of a pool that is the whole suite.
        rest = allowed - self.foreseen / self.suite_items
        within = max(1, math.ceil(left / rest)) if rest > 0.0 else self.suite_items + 1
        return within if within <= self.suite_items else max(1, math.ceil(1.0 / allowed))

    def incumbent_items(self, items: int) -> int:
        return pool_items(items, self.suite_items)

    @property
    def _reach(self) -> float:
        return _reach(interim_items(self.planned), self.alpha)

    def _error(self, sd: float, items: int) -> float:
        """What is left varies over the items, what is foreseen over the pool."""
        pool = self.incumbent_items(items)
        return sd * math.sqrt((1.0 - self.foreseen) / items + self.foreseen / pool)


def pool_items(n_max: int, suite_items: int) -> int:
    """Counts the items of the pool, for a claim about these items."""
    return min(suite_items, math.ceil(POOL_PER_ITEM * n_max))


def planned_test(plan: SuitePlan, suite_items: int, foreseen: float) -> PlannedTest:
    """Finds the plan's test. foreseen: as `DifferenceSpread` has it."""
    if plan.about_these:
        return AdjustedTest(plan.alpha, suite_items, plan.n_max, foreseen)
    return PairedTest(plan.alpha, suite_items)


def cheapest_design(
    spread: DifferenceSpread,
    effect: float,
    test: PlannedTest,
    sides: Sequence[MeanUsage | None],
) -> DesignOption | None:
    """Finds the cheapest design that shows the effect; None when the suite has too few items
    for any.

    effect: true distance from the null, above 0. Where prices are unknown, the fewest answers.
    """
    found = []
    for epochs in range(1, budget.MAX_EPOCHS + 1):
        items = test.items_needed(spread.sd(epochs), effect)
        if items <= test.suite_items:
            first = test.incumbent_items(items)
            answers = (first + items) * epochs
            cost = budget.cost_with_pool(
                budget.comparison_cost_usd, items, first, epochs, sides
            )
            found.append(DesignOption(items, epochs, answers, cost))
    return min(found, key=lambda option: (option.answers, option.epochs), default=None)


@lru_cache(maxsize=64)
def _reach(items: tuple[int, ...], alpha: float) -> float:
    """The distance, in standard errors of the last test, that is shown with power .8."""
    low, high = 0.0, _MOST_DRIFT
    for _ in range(_STEPS):
        middle = (low + high) / 2.0
        shown = interim_power(items, alpha, middle) >= budget.POWER
        low, high = (low, middle) if shown else (middle, high)
    return high
