"""Fisher's noncentral hypergeometric gives the likelihood of one block's failures at each odds
ratio.

`log_factors` is what a block multiplies an e-value with, for evidence of harm and for the
certificate; `check_counts` refuses impossible counts.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

from harness.domain.errors import InputError
from harness.gate.arrays import Floats, np, special

# A block is a window of traffic; beyond this its table of outcomes no longer fits in memory.
MAX_UNITS = 1_000_000


@lru_cache(maxsize=65_536)
def log_factors(
    units: int, canary: int, failures: int, canary_failures: int, *, odds: tuple[float, ...]
) -> tuple[float, ...]:
    """Computes the log of f_odds[k](y) / f_odds[0](y) for k = 1, 2 …, f Fisher's noncentral
    hypergeometric.

    odds[0] is the null's odds ratio. Given the block's failures, y of them canary, one unit is
    as good as another under the null. A block without information (no canary, only canary, no
    failure, only failures) gives exactly 0.
    Raises InputError for counts that cannot be.
    """
    check_counts(units, canary, failures, canary_failures)
    low, high = max(0, failures - units + canary), min(canary, failures)
    if low == high:
        return (0.0,) * (len(odds) - 1)
    log_likelihoods = _log_likelihoods(
        units, canary, failures, canary_failures, log_odds=[math.log(ratio) for ratio in odds]
    )
    null = log_likelihoods[0]
    return tuple(value - null for value in log_likelihoods[1:])


def check_counts(units: int, canary: int, failures: int, canary_failures: int) -> None:
    """Checks the counts of a block. Raises InputError, saying which one is impossible."""
    if not 0 <= units <= MAX_UNITS:
        raise InputError(f"{units} requests: a block has from 0 to {MAX_UNITS:,}")
    if not 0 <= canary <= units:
        raise InputError(f"{canary} canary requests of {units} requests")
    if not 0 <= failures <= units:
        raise InputError(f"{failures} failures of {units} requests")
    if not 0 <= canary_failures <= min(failures, canary):
        raise InputError(
            f"{canary_failures} canary failures, with {failures} failures in all and "
            f"{canary} canary requests"
        )
    if failures - canary_failures > units - canary:
        raise InputError(
            f"{failures - canary_failures} failures outside the canary, with "
            f"{units - canary} requests there"
        )


def _log_likelihoods(
    units: int, canary: int, failures: int, canary_failures: int, *, log_odds: Sequence[float]
) -> list[float]:
    y = np.arange(max(0, failures - units + canary), min(canary, failures) + 1, dtype=float)
    ways = _log_choose(canary, y) + _log_choose(units - canary, failures - y)
    at = canary_failures - int(y[0])
    result = []
    for log_ratio in log_odds:
        weights = ways + y * log_ratio
        result.append(float(weights[at] - special.logsumexp(weights)))
    return result


def _log_choose(n: int, k: Floats) -> Floats:
    logs = special.gammaln(n + 1.0) - special.gammaln(k + 1.0) - special.gammaln(n - k + 1.0)
    return np.asarray(logs)
