"""The test of one analysis (statistics.md §1.5): how well differences fit the null mean. Graded
scores use Student's t, corrected for skewness; pass/fail scores use the exact probability of
their wins and losses.

All sums add in order, so that their rounding does not depend on the items that follow.
`harness.gate.offline.design` fixes the analyses at which a comparison may test, and
`harness.gate.offline.sequential` decides by the p-value.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from harness.gate.arrays import (
    ArrayLike,
    Floats,
    Ints,
    np,
    ordered_sum,
    special,
)
from harness.gate.incumbent_days import DaySpread
from harness.gate.offline.design import with_unseen_loss
from harness.gate.offline.intervals import (
    VARIANCE_GUARD,
    squared_deviations,
    tango_p,
)

MOST_NOISE: Final = 0.25  # variance of the mean of two scores

# If all items of the suite are measured, at least this share of the differences' variance
# counts. It counts even if repeated answers hardly vary.
_LEAST_SHARE_LEFT: Final = 0.5

_LEAST_VARIANCE: Final = 1e-12


@dataclass(frozen=True, slots=True)
class AnswerNoise:
    """The variance of each item's mean score between runs, in the registered order."""

    incumbent: Floats  # (…, items)
    candidate: Floats

    def first(self, n: int) -> tuple[Floats, Floats]:
        """Returns the mean variance of the first n items, for each arm."""
        return _mean_noise(self.incumbent[..., :n]), _mean_noise(self.candidate[..., :n])


def _mean_noise(variances: Floats) -> Floats:
    """Adds one item with the maximum noise, because equal answers do not prove zero noise."""
    total = ordered_sum(variances)
    return np.asarray((total + MOST_NOISE) / (variances.shape[-1] + 1))


def asked_anew(noise: ArrayLike, variance: ArrayLike) -> Floats:
    """Returns the share of variance due to asking items again; 1 if a figure is NaN."""
    found = np.asarray(noise, dtype=np.float64) / np.maximum(variance, _LEAST_VARIANCE)
    return np.where(np.isnan(found), 1.0, np.clip(found, _LEAST_SHARE_LEFT, 1.0))


def share_left(share: ArrayLike, anew: ArrayLike) -> Floats:
    """Returns the share of the mean difference's variance that counts for these items.

    Args:
        share: the measured share of the suite's items.
        anew: result of `asked_anew`.

    Measured items vary only by their noise; the remaining items add the sampling error of a
    finite population.
    """
    return 1.0 - np.asarray(share, dtype=np.float64) * (1.0 - np.asarray(anew))


def p_about_these(p: ArrayLike, left: ArrayLike) -> Floats:
    """Converts the p-value of a claim about the population of items into the p-value of the
    claim about the suite's own items.
    """
    anew = special.ndtr(special.ndtri(p) / np.sqrt(left))
    return np.asarray(np.where(np.equal(left, 1.0), p, anew), dtype=np.float64)


def p_over_days(
    p: ArrayLike,
    n: int,
    variance: ArrayLike,
    days: DaySpread,
) -> Floats:
    """Converts the p-value of one day's answers into the p-value of all days.

    Args:
        variance: of the differences of n items.

    The variance of days is added to the variance of the mean. Its degrees of freedom are
    Satterthwaite's (1946, Biometrics Bulletin 2:110).
    """
    of_items = np.asarray(variance, dtype=np.float64) / n
    whole = of_items + days.variance
    z = special.ndtri(p) * np.sqrt(of_items / whole)
    return np.asarray(special.stdtr(_freedom(of_items, n, days), z), dtype=np.float64)


def _freedom(of_items: Floats, n: int, days: DaySpread) -> Floats:
    parts = of_items**2 / (n - 1.0) + days.variance**2 / days.freedom
    return np.asarray((of_items + days.variance) ** 2 / parts, dtype=np.float64)


def days_interval(
    n: int,
    mean: float,
    variance: float,
    days: DaySpread,
) -> tuple[float, float]:
    """Computes the 95 % interval of the mean difference over all days, n >= 2.

    Args:
        variance: of the items' differences.
    """
    of_items = np.asarray(variance / n)
    error = float(np.sqrt(of_items + days.variance))
    reach = float(special.stdtrit(_freedom(of_items, n, days), 0.975)) * error
    return mean - reach, mean + reach


def final_p(
    differences: ArrayLike,
    theta0: float,
    most: float = 1.0,
) -> Floats:
    """Computes p_final of statistics.md §1.5 for (…, n) differences of items or clusters.

    n is at least 2. The null hypothesis is a mean of theta0 or less. Above `most` the value is
    approximate.

    If every difference is -1, 0 or 1, the exact test of wins and losses replaces t. The exact
    test needs no unseen loss.
    """
    d = np.asarray(differences, dtype=np.float64)
    n = d.shape[-1]
    whole = (d == np.round(d)).all(axis=-1)
    graded = _graded_p(with_unseen_loss(d), theta0)
    if not whole.any():
        return graded
    won = (d > 0.0).sum(axis=-1)
    lost = (d < 0.0).sum(axis=-1)
    counted = _exact_p_where_small(won, lost, n, theta0, most)
    return np.asarray(np.where(whole, counted, graded), dtype=np.float64)


def _exact_p_where_small(
    won: Ints,
    lost: Ints,
    n: int,
    theta0: float,
    most: float,
) -> Floats:
    p = np.array(_p_of_wins_and_losses(won, lost, n, theta0))
    for at in np.argwhere(tango_p(won, lost, n, theta0) <= _ALWAYS_EXACT_BELOW + 2.0 * most):
        where = tuple(at)
        p[where] = _exact_p(int(won[where]), int(lost[where]), n, theta0)
    return p


def guarded_t(differences: ArrayLike, theta0: float) -> Floats:
    """Student's t with a guard added to the sum of squares, so that it is always defined."""
    d = np.asarray(differences, dtype=np.float64)
    return _t_of_sums(d.shape[-1], ordered_sum(d), ordered_sum(d * d), theta0)


def t_tail(n: int, t: ArrayLike) -> Floats:
    """Computes the upper tail of Student's t with n - 1 degrees of freedom, n >= 2."""
    return np.asarray(special.stdtr(n - 1.0, -np.asarray(t)), dtype=np.float64)


_TIE_DIGITS: Final = 9

SMALLEST_P: Final = 1e-300

_ALWAYS_EXACT_BELOW: Final = (
    0.02  # above it, the score test's p is at most twice the exact probability
)

_GRID_POINTS: Final = 16  # grid points over the plausible shares of differing items

_MISSED_PROBABILITY: Final = (
    1e-5  # probability that the true share is outside the grid; added to p
)

_FAR_DEVIATIONS: Final = (
    8.0  # standard deviations of the losses; the probability beyond is below 1e-14
)


@lru_cache(maxsize=65_536)
def _exact_p(
    won: int,
    lost: int,
    n: int,
    theta0: float,
) -> float:
    """Returns the probability, under the null, of a result as extreme as the observed one.

    `_p_of_wins_and_losses` orders the results. The probability is the maximum over the shares
    of differing items that fit the data.

    Source: Barnard 1947, Biometrika 34:123; Berger & Boos 1994, JASA 89:1012.
    """
    limit = np.log(max(float(_p_of_wins_and_losses(won, lost, n, theta0)), SMALLEST_P)).round(
        _TIE_DIGITS
    )
    shares = _plausible_shares(won + lost, n, abs(theta0))
    losing = np.maximum(shares - theta0, 0.0) / 2.0
    winning = np.maximum(shares + theta0, 0.0) / 2.0
    far = _FAR_DEVIATIONS * np.sqrt(n * losing * (1.0 - losing)) + 1.0
    least = max(0, int((n * losing - far).min()))
    losses = np.arange(least, min(n, int((n * losing + far).max())) + 1)[:, None]
    others = n - losses
    wins = _fewest_wins(losses, n, theta0, limit)
    chance = np.minimum(winning / np.maximum(1.0 - losing, SMALLEST_P), 1.0)
    enough = special.betainc(
        np.clip(wins, 1, others + 1),
        np.maximum(others - wins, 0) + 1.0,
        chance,
    )
    enough = np.where(wins > others, 0.0, np.where(wins > 0, enough, 1.0))
    ways = (
        special.gammaln(n + 1.0) - special.gammaln(losses + 1.0) - special.gammaln(others + 1.0)
    )
    logs = np.log(np.maximum([losing, 1.0 - losing], SMALLEST_P))
    likely = np.exp(ways + losses * logs[0] + others * logs[1])
    return min(1.0, float((likely * enough).sum(axis=0).max()) + _MISSED_PROBABILITY)


def _plausible_shares(
    differ: int,
    n: int,
    least: float,
) -> Floats:
    """Returns a grid of shares of differing items over the interval that fits `differ` of n."""
    tail = _MISSED_PROBABILITY / 2.0
    low = special.betaincinv(differ, n - differ + 1, tail) if differ else 0.0
    high = special.betaincinv(differ + 1, n - differ, 1.0 - tail) if differ < n else 1.0
    begin, end = (float(np.arcsin(np.sqrt(max(share, least)))) for share in (low, high))
    return np.asarray(np.sin(np.linspace(begin, end, _GRID_POINTS)) ** 2)


def _fewest_wins(
    losses: Ints,
    n: int,
    theta0: float,
    limit: float,
) -> Ints:
    """Returns the fewest wins whose log p-value is within the limit, else the most wins plus 1.

    The p-value is `_p_of_wins_and_losses`.
    """
    low = np.zeros_like(losses)
    high = n - losses + 1
    while (low < high).any():
        middle = (low + high) // 2
        p = _p_of_wins_and_losses(np.minimum(middle, n - losses), losses, n, theta0)
        small = np.log(np.maximum(p, SMALLEST_P)).round(_TIE_DIGITS) <= limit
        high = np.where(small, middle, high)
        low = np.where(small, low, np.minimum(middle + 1, high))
    return high


def _p_of_wins_and_losses(
    won: ArrayLike,
    lost: ArrayLike,
    n: int,
    theta0: float,
) -> Floats:
    """Returns the larger p-value of Student's t and of the score test, from wins and losses."""
    won = np.asarray(won, dtype=np.float64)
    lost = np.asarray(lost, dtype=np.float64)
    total = won - lost
    squares = won + lost
    if theta0 < 0.0:
        plain = t_tail(n, _t_of_sums(n, total, squares, theta0))
    else:
        mean = total / n
        cubes = total - 3.0 * mean * squares + 2.0 * n * mean * mean * mean
        plain = _skew_corrected_p(n, total, squares, cubes, theta0)
    return np.asarray(np.maximum(plain, tango_p(won, lost, n, theta0)), dtype=np.float64)


def _graded_p(d: Floats, theta0: float) -> Floats:
    n = d.shape[-1]
    total = ordered_sum(d)
    gaps = d - total[..., None] / n
    return _skew_corrected_p(
        n, total, ordered_sum(d * d), ordered_sum(gaps * gaps * gaps), theta0
    )


def _skew_corrected_p(
    n: int,
    total: Floats,
    squares: Floats,
    cubes: Floats,
    theta0: float,
) -> Floats:
    """Computes the p-value of t, corrected for skewness. Rare losses among common wins give a
    high mean and a small spread, so that t alone is too large.

    Args:
        cubes: the sum of the cubed deviations from the mean.

    Source: Johnson's correction (1978, JASA 73:536), in Hall's form (1992, J. R. Stat. Soc. B
    54:221), which always rises with t.
    """
    t = _t_of_sums(n, total, squares, theta0)
    variance = (squared_deviations(n, total, squares) + VARIANCE_GUARD) / n
    skew = np.minimum(cubes / n / (variance * np.sqrt(variance)), 0.0)
    a = skew / (3.0 * np.sqrt(n))
    return t_tail(n, t + a / 2.0 + a * t * t + a * a * t * t * t / 3.0)


def _t_of_sums(
    n: int,
    total: Floats,
    squares: Floats,
    theta0: float,
) -> Floats:
    noise = np.sqrt(squared_deviations(n, total, squares) + VARIANCE_GUARD)
    return np.asarray((total / n - theta0) * n / noise, dtype=np.float64)
