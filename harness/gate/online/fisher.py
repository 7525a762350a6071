"""Fisher's noncentral hypergeometric distribution gives the likelihood of one block's failures
at each odds ratio.

`log_factors` returns a block's factors of an e-value, for evidence of harm and for the
certificate. `check_counts` refuses impossible counts.

A certificate proves that a canary is not harmful (statistics.md §2.7); a step may require a
certificate. It adds up blocks (`add_block`) and is the mean of two e-values
(`log_certificate`). A canary is harmful if its odds ratio is at least rho_ni and its failure
rate is at least p0. The second e-value certifies a route that hardly ever fails; the first
certifies a busy route with failures.

The sample-ratio check tests whether the planned share of exposures reaches the canary
(statistics.md §2.6). A sticky key keeps its arm, so only its first count is evidence. Each
period and weight has separate counts. The j-th count has alpha/(j(j+1)). All together raise a
false alarm in at most one rollout of 1,000, even if periods share keys (union bound).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from harness.frame.errors import InputError
from harness.gate.arrays import (
    Floats,
    log_mean,
    normalize_zeros,
    np,
    special,
)
from harness.gate.online.observation import ObservationBlock

# A larger block's table of outcomes does not fit in memory.
MAX_EXPOSURES = 1_000_000


@lru_cache(maxsize=65_536)
def log_factors(
    exposures: int,
    canary: int,
    failures: int,
    canary_failures: int,
    *,
    odds: tuple[float, ...],
) -> tuple[float, ...]:
    """Computes the log of f_odds[k](y) / f_odds[0](y) for k = 1, 2 …, with f Fisher's
    noncentral hypergeometric distribution.

    odds[0] is the null's odds ratio. Given the block's failures, y of them in the canary,
    exposures are interchangeable under the null. A block without information (no canary, only
    canary, no failure, only failures) gives exactly 0. Raises InputError for impossible counts.
    """
    check_counts(exposures, canary, failures, canary_failures)
    low = max(0, failures - exposures + canary)
    high = min(canary, failures)
    if low == high:
        return (0.0,) * (len(odds) - 1)
    log_likelihoods = _log_likelihoods(
        exposures,
        canary,
        failures,
        canary_failures,
        log_odds=[math.log(ratio) for ratio in odds],
    )
    null = log_likelihoods[0]
    return tuple(value - null for value in log_likelihoods[1:])


def check_counts(
    exposures: int,
    canary: int,
    failures: int,
    canary_failures: int,
) -> None:
    """Checks the counts of a block. Raises InputError that names the impossible count."""
    if not 0 <= exposures <= MAX_EXPOSURES:
        raise InputError(f"{exposures} requests: a block has 0 to {MAX_EXPOSURES:,}")
    if not 0 <= canary <= exposures:
        raise InputError(f"impossible block: {canary} canary requests of {exposures} requests")
    if not 0 <= failures <= exposures:
        raise InputError(f"impossible block: {failures} failures of {exposures} requests")
    if not 0 <= canary_failures <= min(failures, canary):
        raise InputError(
            f"impossible block: {canary_failures} canary failures, but {failures} failures in "
            "all "
            f"and {canary} canary requests"
        )
    if failures - canary_failures > exposures - canary:
        raise InputError(
            f"impossible block: {failures - canary_failures} failures outside the canary, but "
            f"{exposures - canary} requests there"
        )


def _log_likelihoods(
    exposures: int,
    canary: int,
    failures: int,
    canary_failures: int,
    *,
    log_odds: Sequence[float],
) -> list[float]:
    y = np.arange(
        max(0, failures - exposures + canary),
        min(canary, failures) + 1,
        dtype=float,
    )
    ways = _log_choose(canary, y) + _log_choose(exposures - canary, failures - y)
    at = canary_failures - int(y[0])
    result = []
    for log_ratio in log_odds:
        weights = ways + y * log_ratio
        result.append(float(weights[at] - special.logsumexp(weights)))
    return result


def _log_choose(n: int, k: Floats) -> Floats:
    logs = special.gammaln(n + 1.0) - special.gammaln(k + 1.0) - special.gammaln(n - k + 1.0)
    return np.asarray(logs)


HEALTHY_GRID = (0.25, 0.5, 0.7, 0.85, 1.0)


@dataclass(frozen=True, slots=True)
class Certificate:
    """Running evidence that a canary is not harmful.

    Logs are natural logarithms of products over blocks, one for each odds ratio of
    HEALTHY_GRID.
    """

    # Against "odds ratio >= rho_ni".
    log_products: tuple[float, ...] = (0.0,) * len(HEALTHY_GRID)
    canary: int = 0  # canary, canary_failures: sums over blocks
    canary_failures: int = 0


def add_block(
    so_far: Certificate,
    block: tuple[int, int, int, int],
    rho_ni: float,
) -> Certificate:
    """Adds a block of (exposures, canary exposures, failures, canary failures).

    Valid for every odds ratio of at least rho_ni (monotone likelihood ratio).
    """
    exposures, canary, failures, canary_failures = block
    factors = log_factors(
        exposures,
        canary,
        failures,
        canary_failures,
        odds=(rho_ni, *HEALTHY_GRID),
    )
    return Certificate(
        normalize_zeros(a + b for a, b in zip(so_far.log_products, factors, strict=True)),
        so_far.canary + canary,
        so_far.canary_failures + canary_failures,
    )


def log_odds_e(certificate: Certificate) -> float:
    """Computes the log e-value against "the odds ratio is at least rho_ni"."""
    return log_mean(certificate.log_products) + 0.0


def log_rate_e(certificate: Certificate, p0: float) -> float:
    """Computes the log e-value against "the canary fails at a rate of at least p0"."""
    clean = certificate.canary - certificate.canary_failures
    return log_mean(
        [
            _log_power(p1 / p0, certificate.canary_failures)
            + _log_power((1.0 - p1) / (1.0 - p0), clean)
            for p1 in (0.0, p0 / 4.0, p0 / 2.0)
        ]
    )


def log_certificate(certificate: Certificate, p0: float) -> tuple[float, float, float]:
    """Returns the log of the mean of the two e-values, then the logs of both."""
    odds = log_odds_e(certificate)
    rate = log_rate_e(certificate, p0)
    return log_mean([odds, rate]), odds, rate


def _log_power(base: float, exponent: int) -> float:
    if exponent == 0:
        return 0.0
    return exponent * math.log(base) if base > 0.0 else -math.inf


PRIOR_STRENGTH = 2000.0
ALARM_LOG_E = math.log(1000.0)


def log_srm(
    canary: int,
    exposures: int,
    share: float,
    strength: float = PRIOR_STRENGTH,
) -> float:
    """Computes the log e-value against "each exposure goes to the canary with probability
    `share`".

    The counts are assignments, not served requests. Source: Lindon & Malek 2022.
    """
    a = strength * share
    b = strength * (1.0 - share)
    others = exposures - canary
    mixture = special.betaln(a + canary, b + others) - special.betaln(a, b)
    return float(mixture - canary * math.log(share) - others * math.log1p(-share))


def worst_log_srm(
    blocks: Iterable[ObservationBlock],
    since: datetime | None = None,
) -> float:
    """Returns the largest log e-value after any block, less the cost of its part of alpha.

    Args:
        blocks: in the order of number.
        since: ignores blocks that opened before this time, when a person last resumed the
            rollout or the step began; None for all blocks.
    """
    counts: dict[tuple[int, int, bool], tuple[int, int]] = {}
    costs: dict[tuple[int, int, bool], float] = {}
    worst = 0.0
    for block in blocks:
        if not 0 < block.weight_bps < 10_000:
            continue
        is_read = since is None or block.opened_at >= since
        part = (block.period, block.weight_bps, is_read)
        j = len(costs) + 1
        cost = costs.setdefault(part, math.log(j * (j + 1)))
        if is_read:
            canary, exposures = counts.get(part, (0, 0))
            canary, exposures = counts[part] = (
                canary + block.canary_units,
                exposures + block.units,
            )
            worst = max(
                worst,
                log_srm(canary, exposures, block.kept_share) - cost,
            )
    return worst
