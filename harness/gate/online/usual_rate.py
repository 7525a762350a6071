"""The usual rate is an upper bound of the incumbent's failure rate on the days before a
rollout.

The comparison of both arms at the same time (statistics.md §2.2) rolls back an equal candidate
whose failures fall into other minutes than the incumbent's. So a rollback by errors also needs
evidence that the candidate fails more than usual, and the lesser of both e-values counts
(statistics.md §2.20). `evidence_paths` and `worker_guard` apply these formulas. Pure.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate, combinations_with_replacement
from typing import Final, NamedTuple

# The bound needs this much history; with less, only the comparison at the same time counts.
MIN_DAYS: Final = 3
MIN_FAILURES: Final = 20
# The length of a caller's window in the history, as in the default policy. A canary with
# windows of another length has no usual rate of windows.
USUAL_WINDOW_S: Final = 600.0
# The most days of history.
USUAL_DAYS: Final = 7
# The bound is this quantile of the rate over all resamples of the days.
_QUANTILE: Final = 0.90
# Once the incumbent has MIN_FAILURES failures in the rollout, the bound is at most this many
# times its rate there.
MAX_TIMES: Final = 3.0


class DayCount(NamedTuple):
    """Counts the first requests or windows of one day, and the failed ones."""

    units: int
    failures: int


class UsualBet(NamedTuple):
    """The natural logarithms of the factors of an e-value for one exposure of the canary."""

    failed: float
    fine: float


def bound_usual_rate(days: Sequence[DayCount]) -> float:
    """Computes the upper 90 % bound of the failure rate, in (0, 1); 0 if the history is too
    short.

    Args:
        days: the last ones before the rollout.

    The bound is exact over all resamples of the days (bootstrap, Efron 1979): a multiset of
    days has its multinomial probability.
    """
    known = [day for day in days if day.units > 0][:USUAL_DAYS]
    failures = sum(day.failures for day in known)
    if len(known) < MIN_DAYS or failures < MIN_FAILURES:
        return 0.0
    resamples = sorted(_resample(known))
    wanted = _QUANTILE * len(known) ** len(known)
    reached = accumulate(number for _, number in resamples)
    rate = next(
        rate for (rate, _), number in zip(resamples, reached, strict=True) if number >= wanted
    )
    return min(rate, 1.0 - 1.0 / sum(day.units for day in known))


def _resample(days: Sequence[DayCount]) -> Iterator[tuple[float, int]]:
    """Yields the failure rate of each multiset of days, and the number of its orders."""
    orders = math.factorial(len(days))
    for places in combinations_with_replacement(range(len(days)), len(days)):
        exposures = sum(days[place].units for place in places)
        failures = sum(days[place].failures for place in places)
        repeats = math.prod(map(math.factorial, Counter(places).values()))
        yield failures / exposures, orders // repeats


def limit_usual_rate(rate: float, exposures: int, failures: int) -> float:
    """Limits the usual rate by the incumbent's rate in the rollout, once that is known.

    Args:
        exposures: of the incumbent before the exposures to which the rate applies.
        failures: of these exposures.
    """
    if failures < MIN_FAILURES:
        return rate
    return min(rate, MAX_TIMES * failures / exposures)


@lru_cache(maxsize=1_024)
def usual_bets(
    rate: float,
    tolerated: float,
    ratios: tuple[float, ...],
) -> tuple[UsualBet, ...]:
    """Computes the bets against "the candidate fails at the usual rate at most".

    Args:
        tolerated: an odds ratio that raises the usual rate.
        ratios: the odds ratios of harm.

    Each factor is the likelihood ratio of one exposure (Wald 1945).
    """
    null = _raise_odds(rate, tolerated)
    rates = [_raise_odds(null, ratio) for ratio in ratios]
    return tuple(
        UsualBet(math.log(harm / null), math.log1p(-harm) - math.log1p(-null)) for harm in rates
    )


def _raise_odds(rate: float, ratio: float) -> float:
    return ratio * rate / (1.0 - rate + ratio * rate)
