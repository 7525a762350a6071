"""Interim analyses are the moments, fixed before the first score, at which a comparison about
these items may promote, and the level of the test at each (statistics.md §1.14).

The levels spend .9 of alpha, as the share of items that are in to the power 2.5. They are exact
for sums of independent normal increments; the rest of alpha is for what is not normal in few
items (measured, see docs/explanation/benchmarks.md).
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Final

from harness.gate.arrays import Floats, np, special

FIRST_ITEMS: Final = 60
FEWEST_BETWEEN: Final = 10
MOST_ANALYSES: Final = 20
_SPENDING_POWER: Final = 2.5
# Of alpha. Tests of few pass/fail items err a little more often than they say.
_SPENT_SHARE: Final = 0.9
_GRID: Final = 201
_REACH: Final = 8.0  # standard deviations; beyond lies less than 1e-15
# Figures that are stored must not depend on the last bits of a machine's libraries.
_DIGITS: Final = 6


def interim_items(n_max: int) -> tuple[int, ...]:
    """Plans after how many items a comparison is tested; the last is n_max."""
    between = max(FEWEST_BETWEEN, -(-n_max // MOST_ANALYSES))
    first = max(FIRST_ITEMS, 2 * between)
    return (*range(first, n_max - between // 2, between), n_max)


@lru_cache(maxsize=64)
def interim_levels(items: Sequence[int], alpha: float) -> tuple[float, ...]:
    """The level of the test at each analysis. Source: Lan & DeMets 1983; the recursion is
    Armitage, McPherson & Rowe's (1969).
    """
    shares = [n / items[-1] for n in items]
    spent = [0.0, *(_SPENT_SHARE * alpha * share**_SPENDING_POWER for share in shares)]
    levels: list[float] = []
    grid, density = np.zeros(1), np.ones(1)
    for (before, share), (paid, due) in zip(
        pairwise([0.0, *shares]), pairwise(spent), strict=True
    ):
        step = float(np.sqrt(share - before))
        limit = _limit(grid, density, step, due - paid)
        levels.append(_rounded(float(special.ndtr(-limit / np.sqrt(share)))))
        grid, density = _go_on(grid, density, step, limit, float(np.sqrt(share)))
    return tuple(levels)


@lru_cache(maxsize=1024)
def interim_power(items: Sequence[int], alpha: float, drift: float) -> float:
    """How often a comparison is shown at any of its analyses, whose last test has the mean
    `drift`, in standard errors.
    """
    shares = [n / items[-1] for n in items]
    shown, grid, density = 0.0, np.zeros(1), np.ones(1)
    for (before, share), level in zip(
        pairwise([0.0, *shares]), interim_levels(items, alpha), strict=True
    ):
        step = float(np.sqrt(share - before))
        limit = -float(special.ndtri(level)) * float(np.sqrt(share))
        grid = grid + drift * (share - before)
        shown += float(np.sum(density * special.ndtr((grid - limit) / step)))
        grid, density = _go_on(grid, density, step, limit, float(np.sqrt(share)))
    return shown


def _limit(grid: Floats, density: Floats, step: float, level: float) -> float:
    """Where the sum ends up above with probability `level`, having crossed nothing before."""
    low, high = -_REACH, _REACH
    for _ in range(60):
        middle = (low + high) / 2.0
        above = float(np.sum(density * special.ndtr((grid - middle) / step)))
        low, high = (middle, high) if above > level else (low, middle)
    return (low + high) / 2.0


def _go_on(
    grid: Floats, density: Floats, step: float, limit: float, sd: float
) -> tuple[Floats, Floats]:
    """The distribution of the sum where the comparison goes on, as masses on a grid."""
    after = np.linspace(-_REACH * sd, limit, _GRID)
    width = np.full(_GRID, after[1] - after[0])
    width[[0, -1]] /= 2.0
    bell = np.exp(-((after[:, None] - grid[None, :]) ** 2) / (2.0 * step * step))
    return after, width * (bell @ density) / (np.sqrt(2.0 * np.pi) * step)


def _rounded(level: float) -> float:
    return float(f"{level:.{_DIGITS}g}")
