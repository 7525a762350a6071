"""The test at n_max: p-values from sums alone, for one comparison or for arrays of them."""

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from harness.domain.evals.run import Claim
from harness.gate.logspace import Floats
from harness.gate.offline.design import Design
from harness.gate.offline.intervals import squared_deviations, tango_p

VARIANCE_GUARD = 0.25
# Below this, a suite may simply not have met the rare disaster yet.
SMALL_SUITE_ITEMS = 200


def guarded_t(n: ArrayLike, total: ArrayLike, squares: ArrayLike, theta0: float) -> Floats:
    """Student's t with 0.25 added to the sum of squares, so that it is always defined."""
    count, sums = np.asarray(n, dtype=np.float64), np.asarray(total, dtype=np.float64)
    noise = np.sqrt(squared_deviations(count, sums, squares) + VARIANCE_GUARD)
    return np.asarray((sums / count - theta0) * count / noise, dtype=np.float64)


def t_tail(n: ArrayLike, t: ArrayLike) -> Floats:
    """Upper tail of Student's t with n - 1 degrees of freedom, n >= 2."""
    df = np.asarray(n, dtype=np.float64) - 1.0
    return np.asarray(special.stdtr(df, -np.asarray(t, dtype=np.float64)), dtype=np.float64)


def final_p(
    n: ArrayLike,
    total: ArrayLike,
    squares: ArrayLike,
    signs: tuple[ArrayLike, ArrayLike],
    whole: ArrayLike,
    design: Design,
) -> Floats:
    """p_final of statistics.md §1.5; n >= 2.

    signs: wins and losses. whole: every difference is -1, 0 or 1. Otherwise one pseudo-item of
    -1 stands for unseen rare disasters (always in non_inferior, in superior below 200 items).
    """
    theta0 = design.theta0
    plain = t_tail(n, guarded_t(n, total, squares, theta0))
    scored = np.maximum(plain, tango_p(*signs, n, theta0))
    graded = plain
    if design.claim is Claim.NON_INFERIOR or design.n_max < SMALL_SUITE_ITEMS:
        more = np.asarray(n) + 1
        sums, sums_sq = np.asarray(total) - 1.0, np.asarray(squares) + 1.0
        graded = t_tail(more, guarded_t(more, sums, sums_sq, theta0))
    return np.asarray(np.where(whole, scored, graded), dtype=np.float64)
