"""A design fixes a comparison before the first score is known: claim, allowed loss, items,
alpha, and the planned analyses at which it may promote (statistics.md §1.3 and §1.14).

The test of a graded suite adds one unseen item that the candidate loses (statistics.md §1.17).
This loss is smaller if wins and losses spread alike.

The levels together spend .9 of alpha, and a smaller part of a small alpha. They spend it in
proportion to the square of the share of measured items. The levels are exact for sums of
independent normal increments. The rest of alpha covers few items that are not normal (measured
in docs/explanation/benchmarks.md).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from itertools import pairwise
from typing import Final

from harness.frame.errors import InputError
from harness.gate.arrays import ArrayLike, Floats, np, ordered_sum, special
from harness.gate.incumbent_days import DaySpread
from harness.gate.offline.intervals import VARIANCE_GUARD, squared_deviations
from harness.gate.suite_plan import (
    QUALITY_CLAIMS,
    Claim,
    Looks,
    PrimaryCombination,
    SuitePlan,
    SuiteRole,
)

# A rejection has an error of 5 % of its own, because it cannot cause a false promotion.
REJECT_LOG_E = math.log(20.0)


class LostMargin(StrEnum):
    """What a comparison does once its margin is out of reach."""

    STOPS_UNLESS_WORSE = "stops_unless_worse"  # continues while the loss may exceed the margin
    STOPS = "stops"
    GOES_ON = "goes_on"


@dataclass(frozen=True, slots=True)
class Design:
    """Fixes the claim of one comparison and its planned analyses (statistics.md §1.2).

    Raises InputError for a margin or alpha outside (0, 1) and for n_max below 1.
    """

    claim: Claim  # about the scores, superior or non_inferior
    margin: float  # allowed loss, a share of 1
    n_max: int  # items
    alpha: float = 0.05
    # Whether the comparison may show the claim before n_max (statistics.md §1.7).
    early: bool = True
    unit: str = "item"  # the unit that n_max counts
    # The suite's number of items, for a claim about these items (statistics.md §1.15).
    suite_items: int | None = None
    # The comparison stops if its chance of passing at n_max falls below this; 0: never stops.
    futility: float = 0.0
    looks: Looks = Looks.PLANNED
    look: int = 1  # the number of the look that uses alpha
    lost_margin: LostMargin = LostMargin.STOPS_UNLESS_WORSE
    # The spread of days, if scheduled runs are the incumbent's evidence (statistics.md §1.20).
    days: DaySpread | None = None

    def __post_init__(self) -> None:
        if self.claim not in QUALITY_CLAIMS:
            raise InputError(
                f"{self.claim.value} is not a claim about scores alone; use superior or "
                "non_inferior"
            )
        if not 0.0 < self.margin < 1.0:
            raise InputError(f"the margin is between 0 and 1, not {self.margin:g}")
        if not 0.0 < self.alpha < 1.0:
            raise InputError(f"alpha is between 0 and 1, not {self.alpha:g}")
        if self.n_max < 1:
            raise InputError(f"a comparison needs at least 1 item, not {self.n_max}")

    @property
    def theta0(self) -> float:
        """The null hypothesis: the mean difference is at most this value."""
        return 0.0 if self.claim is Claim.SUPERIOR else -self.margin

    @property
    def rejected_below(self) -> float:
        """The mean difference that a rejection refutes: theta0 less the days' allowance."""
        return self.theta0 - (self.days.allowance if self.days else 0.0)

    @property
    def day_variance(self) -> float:
        """The part of the mean difference's variance that no number of items reduces."""
        return self.days.variance if self.days else 0.0

    @property
    def levels(self) -> Mapping[int, float]:
        """Maps the number of items of each planned analysis to the level of its test."""
        if self.looks is not Looks.PLANNED:
            return self.levels_of(self.n_max)
        items = interim_items(self.n_max) if self.early else (self.n_max,)
        return dict(zip(items, interim_levels(items, self.alpha), strict=True))

    def levels_of(self, items: int) -> Mapping[int, float]:
        """Maps the number of items of each analysis within the first `items` items to its
        level.

        Without planned looks there is one analysis, of all these items.
        """
        match self.looks:
            case Looks.PLANNED:
                return {n: level for n, level in self.levels.items() if n <= items}
            case Looks.WHOLE:
                return {items: spent_alpha(self.alpha)}
            case Looks.GROWING:
                return {items: growing_level(items / self.n_max, self.alpha)}


def design_from_plan(plan: SuitePlan, days: DaySpread | None = None) -> Design:
    """Returns the test of a plan's scores. With Holm's rule it may pass at `n_max` only.

    Guards and suites that are judged together continue when the margin is out of reach, because
    they may find harm.
    """
    alone = plan.combine is None and plan.role is not SuiteRole.GUARD
    return Design(
        claim=plan.claim.quality,
        margin=plan.margin,
        n_max=plan.n_max,
        alpha=plan.alpha,
        early=plan.combine is not PrimaryCombination.ANY,
        unit=plan.unit,
        suite_items=plan.suite_items if plan.about_these else None,
        futility=plan.futility,
        looks=plan.looks,
        look=plan.look,
        lost_margin=LostMargin.STOPS_UNLESS_WORSE if alone else LostMargin.GOES_ON,
        days=days,
    )


def with_unseen_loss(differences: ArrayLike) -> Floats:
    """Appends the difference of an unseen item to (…, items): a whole loss, or a smaller loss
    if wins spread as much as losses.

    The test's own error then covers a rare loss. Equal wins do not predict losses.
    """
    d = np.asarray(differences, dtype=np.float64)
    gaps = d - ordered_sum(d)[..., None] / d.shape[-1]
    above = np.maximum(gaps, 0.0)
    below = np.minimum(gaps, 0.0)
    shared = np.minimum(ordered_sum(above * above), ordered_sum(below * below))[..., None]
    return np.concatenate([d, -1.0 / (1.0 + shared / 2.0)], axis=-1)


FUTILE: Final = "futile"  # the value of `how` for a comparison that stopped for futility
EARLY_ENDS: Final = ("early", FUTILE)
# The share of n_max from which a comparison may stop for futility; earlier scores are mostly
# luck.
FUTILE_FROM_SHARE: Final = 0.25
# Futility assumes that the remaining items score at the upper end of the measured interval.
OPTIMISM_SE: Final = 2.0


def chance_of_passing(
    n: ArrayLike,
    total: Floats,
    squares: Floats,
    design: Design,
) -> Floats:
    """Computes the chance that the test at `n_max` passes, given the sum of n items and the sum
    of their squares; 0 at n_max. Source: conditional power, Lan, Simon & Halperin 1982.
    """
    done = np.asarray(n, dtype=np.float64)
    left = np.maximum(design.n_max - done, 0.0)
    sd = np.sqrt((squared_deviations(done, total, squares) + VARIANCE_GUARD) / done)
    drift = total / done + OPTIMISM_SE * sd / np.sqrt(done)
    z = -special.ndtri(design.levels[design.n_max])
    spread = sd * np.sqrt(design.n_max)
    if design.days is not None:
        spread = np.hypot(spread, design.n_max * math.sqrt(design.day_variance))
    limit = z * spread + design.theta0 * design.n_max
    reach = (total + left * drift - limit) / (sd * np.sqrt(np.maximum(left, 1.0)))
    return np.asarray(np.where(left > 0.0, special.ndtr(reach), 0.0), dtype=np.float64)


FIRST_ITEMS: Final = 60
FEWEST_BETWEEN: Final = 10
MOST_ANALYSES: Final = 20
_SPENDING_POWER: Final = 2.0
# The share of alpha that the levels spend. If scores have only a few, distant values, the test
# errs slightly more often than its level. This excess grows as alpha falls: with several
# candidates, and at each further look.
_SPENT_SHARE: Final = 0.9
_USUAL_ALPHA: Final = 0.05
_SMALLER_ALPHA: Final = 0.1  # the share falls with this power of alpha
_GRID: Final = 201
_REACH: Final = 8.0  # standard deviations; the probability beyond is less than 1e-15
# Rounds stored figures, because the last bits differ between machines' libraries.
_DIGITS: Final = 6


def interim_items(n_max: int) -> tuple[int, ...]:
    """Plans the item counts of the analyses; the last is n_max."""
    between = max(FEWEST_BETWEEN, -(-n_max // MOST_ANALYSES))
    first = max(FIRST_ITEMS, 2 * between)
    return (*range(first, n_max - between // 2, between), n_max)


def spent_alpha(alpha: float) -> float:
    """Computes the part of alpha that all analyses together spend."""
    return _SPENT_SHARE * alpha * math.pow(min(1.0, alpha / _USUAL_ALPHA), _SMALLER_ALPHA)


def growing_level(share: float, alpha: float) -> float:
    """Computes the level of a look at this share of the planned items, above 0.

    Looks after every item together spend `spent_alpha`: the limit of the sum is constant, and
    a Brownian motion exceeds it with twice the probability that it ends above it. Source:
    O'Brien & Fleming 1979.
    """
    limit = -float(special.ndtri(spent_alpha(alpha) / 2.0))
    return _round_level(float(special.ndtr(-limit / math.sqrt(min(share, 1.0)))))


@lru_cache(maxsize=64)
def interim_levels(items: Sequence[int], alpha: float) -> tuple[float, ...]:
    """Computes the level of the test at each analysis. Sources: Lan & DeMets 1983; the
    recursion is Armitage, McPherson & Rowe's (1969).
    """
    shares = [n / items[-1] for n in items]
    spent = [
        0.0,
        *(spent_alpha(alpha) * share**_SPENDING_POWER for share in shares),
    ]
    levels: list[float] = []
    grid = np.zeros(1)
    density = np.ones(1)
    for (before, share), (paid, due) in zip(
        pairwise([0.0, *shares]), pairwise(spent), strict=True
    ):
        step = float(np.sqrt(share - before))
        limit = _find_limit(grid, density, step, due - paid)
        levels.append(_round_level(float(special.ndtr(-limit / np.sqrt(share)))))
        grid, density = _continue_below_limit(
            grid,
            density,
            step,
            limit,
            float(np.sqrt(share)),
        )
    return tuple(levels)


@lru_cache(maxsize=1024)
def interim_power(
    items: Sequence[int],
    alpha: float,
    drift: float,
) -> float:
    """Returns the chance that any analysis shows the claim.

    Args:
        drift: in standard errors.
    """
    shares = [n / items[-1] for n in items]
    shown = 0.0
    grid = np.zeros(1)
    density = np.ones(1)
    for (before, share), level in zip(
        pairwise([0.0, *shares]), interim_levels(items, alpha), strict=True
    ):
        step = float(np.sqrt(share - before))
        limit = -float(special.ndtri(level)) * float(np.sqrt(share))
        grid = grid + drift * (share - before)
        shown += float(np.sum(density * special.ndtr((grid - limit) / step)))
        grid, density = _continue_below_limit(
            grid,
            density,
            step,
            limit,
            float(np.sqrt(share)),
        )
    return shown


def _find_limit(
    grid: Floats,
    density: Floats,
    step: float,
    level: float,
) -> float:
    """Returns the limit that a sum exceeds now with probability `level`, if it exceeded no
    limit before.
    """
    low = -_REACH
    high = _REACH
    for _ in range(60):
        middle = (low + high) / 2.0
        above = float(np.sum(density * special.ndtr((grid - middle) / step)))
        low, high = (middle, high) if above > level else (low, middle)
    return (low + high) / 2.0


def _continue_below_limit(
    grid: Floats,
    density: Floats,
    step: float,
    limit: float,
    sd: float,
) -> tuple[Floats, Floats]:
    """Returns the distribution of sums that stay below the limit, as masses on a grid."""
    after = np.linspace(-_REACH * sd, limit, _GRID)
    width = np.full(_GRID, after[1] - after[0])
    width[[0, -1]] /= 2.0
    bell = np.exp(-((after[:, None] - grid[None, :]) ** 2) / (2.0 * step * step))
    return after, width * (bell @ density) / (np.sqrt(2.0 * np.pi) * step)


def _round_level(level: float) -> float:
    return float(f"{level:.{_DIGITS}g}")
