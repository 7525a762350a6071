"""A comparison's budget: items, costs, duration and alpha (statistics.md §1.9).

`PlannedTest` predicts which differences a test shows, and `cheapest_design` finds the items and
epochs for the difference that matters, from the spread of measured differences and the mean
usage of answers. Multiplicity rules bound false passes over suites and proposals: Holm's test,
the alpha of repeated looks and of several candidates, and the risk summed over proposals.

A prediction never decides: `harness.gate.offline` judges the scores.
`harness.proposals.candidates` reads the past answers that a prediction needs.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import fmean
from typing import Final

from harness.gate.arrays import special
from harness.gate.offline.design import REJECT_LOG_E, interim_items, interim_power
from harness.gate.offline.intervals import VARIANCE_GUARD
from harness.gate.offline.item_tests import (
    MOST_NOISE,
    asked_anew,
    share_left,
)
from harness.gate.offline.sequential import BET_GRID
from harness.gate.suite_plan import Claim, Looks, SuitePlan, SuiteRole

# Share of items on which two models within five points differ: .13 to .21 on real suites.
DISAGREEMENT = 0.20

POWER = 0.8

SLICE_POWER = 0.95

EFFECT = 0.05


def sd_pass_fail(disagree: float, delta: float = 0.0) -> float:
    """Computes the deviation of a pass/fail difference from the share of items that differ.

    Args:
        disagree: share of items on which only one model passes.
        delta: mean difference, a share of 1.
    """
    return math.sqrt(max(disagree - delta * delta, 0.0))


def slice_effect(
    sd: float,
    n: int,
    level: float,
) -> float:
    """Computes the smallest loss of a slice that one look at n units finds with power .8.

    Args:
        level: the error of that look (statistics.md §1.13).

    Uses SLICE_POWER, because a much worse candidate differs on more items than earlier
    candidates did.
    """
    reach = float(special.stdtrit(n - 1.0, 1.0 - level) + special.ndtri(SLICE_POWER))
    unseen = 1.0 / (1.0 + n * sd * sd / 4.0)
    return (reach * math.sqrt(sd * sd * n + 0.25 + unseen * unseen) + unseen) / n


def items_to_reject(
    loss: float,
    sd: float,
    theta0: float,
    log_e_bad: float = 0.0,
) -> int:
    """Estimates the items after which the evidence of a loss rejects with 80 % power.

    Bets the best stake for this loss on each item (statistics.md §1.19).

    Args:
        loss: the distance of the true mean difference below theta0, above 0.
        log_e_bad: the evidence so far.
    """
    scale = 1.0 - theta0
    mean = loss / scale
    deviation = sd / scale
    square = deviation * deviation + mean * mean
    stake = min(BET_GRID[-1], mean / square)
    growth = stake * mean - stake * stake * square / 2.0
    noise = float(special.ndtri(POWER)) * stake * deviation
    gap = max(0.0, REJECT_LOG_E - log_e_bad)
    root = (noise + math.sqrt(noise * noise + 4.0 * growth * gap)) / (2.0 * growth)
    return max(1, math.ceil(root * root))


def smallest_rejected(
    sd: float,
    theta0: float,
    items: int,
) -> float | None:
    """Returns the smallest true loss that `items` items show as FAILED with 80 % power, a share
    of 1; None if they are too few for any loss.
    """
    losses = range(1, round((1.0 + theta0) * _LOSS_STEPS) + 1)
    at = bisect_left(
        losses,
        -items,
        key=lambda step: -items_to_reject(step / _LOSS_STEPS, sd, theta0),
    )
    return None if at == len(losses) else losses[at] / _LOSS_STEPS - theta0


_LOSS_STEPS: Final = 1_000  # losses in tenths of a point

MAX_EPOCHS: Final = 5

# Fewer pairs give no useful spread; the default spread is cautious.
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
        """The cost of an answer with its judging; None if either is unknown."""
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
        """The standard deviation of an item's mean difference over `epochs` answers."""
        return math.sqrt(self.between + self.within / epochs)


@dataclass(frozen=True, slots=True)
class DesignOption:
    """A number of items and epochs, with its maximum cost; None for an unknown price."""

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
    items: int,
    epochs: int,
    sides: Sequence[MeanUsage | None],
) -> float | None:
    """Returns the maximum cost, including judging; None if a price is unknown."""
    return _sum_costs(items * epochs, [side.total_usd if side else None for side in sides])


def judging_cost_usd(
    items: int,
    epochs: int,
    sides: Sequence[MeanUsage | None],
) -> float | None:
    """Returns the judge's part of `comparison_cost_usd`; None if unknown."""
    return _sum_costs(items * epochs, [side.judge_usd if side else None for side in sides])


def _sum_costs(answers: int, costs: Sequence[float | None]) -> float | None:
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
    durations_s = [side.duration_s for side in sides if side is not None]
    if len(durations_s) < len(sides) or not durations_s:
        return None
    return items * max(durations_s) * epochs / connections


def _variance(values: Sequence[float]) -> float:
    if len(values) < 2:
        return 0.0
    mean = fmean(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


_MOST_DRIFT: Final = 8.0  # standard errors; larger effects are always shown

_BISECTIONS: Final = 14

_MOST_ITEMS: Final = 10**7

# The part of the spread that wins and losses have in common: .33 to .46 on graded suites.
_SHARED: Final = 0.4


@dataclass(frozen=True, slots=True)
class PlannedTest:
    """Predicts the test at planned analyses for a suite.

    Effects are distances of the true mean difference from the null, in shares of 1; sd is the
    standard deviation of one unit's difference. A unit is an item, or a cluster.
    """

    alpha: float
    suite_items: int  # units of the suite
    planned: int  # units of the planned analyses
    about_these: bool = False
    # Share of the differences' variance that comes from asking the same items again.
    anew: float = 1.0
    graded: bool = False  # not every difference is -1, 0 or 1
    margin: float = 0.0  # allowed loss; 0 for a claim without one
    looks: Looks = Looks.PLANNED

    def with_epochs(self, spread: DifferenceSpread, epochs: int) -> "PlannedTest":
        """Returns the test for this number of answers to each item.

        Only a claim about the suite's own items uses the noise, and only measured noise.
        """
        test = replace(self, graded=spread.graded or epochs > 1)
        if not self.about_these or not spread.within:
            return test
        # For each model, add one item with the maximum noise.
        noise = spread.within / epochs + 2.0 * MOST_NOISE / self.planned
        return replace(test, anew=float(asked_anew(noise, spread.sd(epochs) ** 2)))

    def smallest_effect(self, sd: float, items: int) -> float:
        """Computes the smallest true distance from the null that the test shows with power
        .8."""
        return self._reach * self._error(sd, items) + self._unseen_loss(sd, items) / items

    def power(
        self,
        sd: float,
        effect: float,
        items: int,
    ) -> float:
        """Returns the probability that the test shows this effect with `items` units."""
        standard_effect = (effect - self._unseen_loss(sd, items) / items) / self._error(
            sd, items
        )
        drift = max(-_MOST_DRIFT, min(standard_effect, _MOST_DRIFT))
        return interim_power(self._analyses(items), self.alpha, drift)

    def items_needed(self, sd: float, effect: float) -> int:
        """Computes how many items show a distance above 0 with power .8."""
        enough = range(1, _MOST_ITEMS)
        return enough.start + bisect_left(
            enough,
            -effect,
            key=lambda items: -self.smallest_effect(sd, items),
        )

    @property
    def _reach(self) -> float:
        return _reach(self._analyses(self.planned), self.alpha)

    def _analyses(self, items: int) -> tuple[int, ...]:
        return (items,) if self.looks is Looks.WHOLE else interim_items(items)

    def _error(self, sd: float, items: int) -> float:
        left = float(share_left(min(1.0, items / self.suite_items), self.anew))
        guards = VARIANCE_GUARD + self._unseen_loss(sd, items) ** 2
        variance = sd * sd + guards / items
        if self.margin and not self.graded:
            variance = max(variance, self._null_variance(sd * sd))
        return math.sqrt(left * variance / items)

    def _null_variance(self, disagree: float) -> float:
        """Computes the score test's variance for equal models."""
        square = self.margin * self.margin
        root = disagree * disagree + 4.0 * square * max(0.0, 1.0 - disagree)
        return (disagree + math.sqrt(root)) / 2.0 - square

    def _unseen_loss(self, sd: float, items: int) -> float:
        """The unseen loss of graded items (statistics.md §1.17)."""
        return 1.0 / (1.0 + _SHARED * items * sd * sd / 2.0) if self.graded else 0.0


def planned_test(
    plan: SuitePlan,
    suite_items: int,
    spread: DifferenceSpread,
) -> PlannedTest:
    """Builds the prediction for a registered plan.

    Args:
        suite_items: the suite's units.
    """
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

    Args:
        effect: true distance from the null, above 0.

    If prices are unknown, counts answers.
    """
    options = []
    for epochs in range(2 if test.about_these else 1, MAX_EPOCHS + 1):
        items = test.with_epochs(spread, epochs).items_needed(spread.sd(epochs), effect)
        if items <= test.suite_items:
            cost = comparison_cost_usd(items, epochs, sides)
            options.append(DesignOption(items, epochs, 2 * items * epochs, cost))
    return min(
        options,
        key=lambda option: (option.answers, option.epochs),
        default=None,
    )


@lru_cache(maxsize=64)
def _reach(items: tuple[int, ...], alpha: float) -> float:
    """Returns the distance, in standard errors of the last test, shown with power .8."""
    low = 0.0
    high = _MOST_DRIFT
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2.0
        shown = interim_power(items, alpha, middle) >= POWER
        low, high = (low, middle) if shown else (middle, high)
    return high


# The rule's name: the first look gets the whole alpha, all looks together get 1.5 alpha.
FIRST_FULL: Final = "first_full"

ALL_LOOKS: Final = 1.5

# A candidate with a lower chance to pass stops, which leaves the budget to other candidates.
FUTILITY: Final = 0.05

MIN_ALPHA: Final = 1e-6  # no suite can reach a smaller alpha


def false_pass_risk(plans: Iterable[SuitePlan]) -> float:
    """Returns the maximum probability that an unworthy candidate passes all of these plans. A
    guard suite cannot pass a candidate, so its alpha does not count. Source:
    intersection-union, Berger 1982.
    """
    return max(
        (p.alpha for p in plans if p.role is not SuiteRole.GUARD),
        default=0.0,
    )


def total_risk(risks: Iterable[float]) -> float:
    """Returns the maximum probability that at least one passes by luck, for any dependence."""
    return min(1.0, math.fsum(risks))


def ration_alpha(
    alpha: float,
    spent: float,
    budget: float | None,
) -> float:
    """Returns alpha, but at most half of the remaining budget, so that the budget lasts."""
    return alpha if budget is None else min(alpha, max(0.0, budget - spent) / 2)


def share_alpha(plan: SuitePlan, candidates: int) -> SuitePlan:
    """Returns the plan with its part of alpha, if several candidates are proposed together.
    Uses Bonferroni's inequality, which holds for any dependence (statistics.md §1.16).
    """
    if candidates == 1:
        return plan
    alone = plan.combine is None and plan.role is not SuiteRole.GUARD
    return replace(
        plan,
        alpha=plan.alpha / candidates,
        candidates=candidates,
        # Guards do not stop, because they may still find harm; nor do suites that are judged
        # together.
        futility=FUTILITY if alone else 0.0,
    )


def holm_test(p_values: Sequence[float], alpha: float) -> tuple[bool, ...]:
    """Decides by Holm's rule which hypotheses are shown, in the order of `p_values`. Source:
    Holm 1979.
    """
    shown = [False] * len(p_values)
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    for rank, index in enumerate(order):
        if p_values[index] > alpha / (len(p_values) - rank):
            break
        shown[index] = True
    return tuple(shown)


def slice_level(alpha: float, slices: int, passed: int) -> float:
    """Computes the level of each remaining slice by Holm's rule (statistics.md §1.24).

    Args:
        slices: the number of declared slices.
        passed: how many of them have passed.
    """
    if not 0 <= passed < slices:
        raise ValueError(f"{passed} of {slices} slices cannot leave a slice to test")
    return alpha / (slices - passed)


def spend_alpha(alpha: float, look: int) -> float:
    """Computes the alpha of the `look`-th proposal, counted from 1 (statistics.md §1.8)."""
    if look < 1:
        raise ValueError(f"looks are counted from 1, not {look}")
    return alpha if look == 1 else alpha / (look * (look + 1))


def next_alpha(alpha: float, look: int) -> float:
    """Computes the alpha of the look after the `look`-th, which had `alpha`."""
    first = alpha if look == 1 else alpha * look * (look + 1)
    return spend_alpha(first, look + 1)
