"""A certificate proves that a canary is not harmful (statistics.md §2.7); a step may require
one.

It adds up blocks (`add_block`) and is the mean of two e-values (`log_certificate`). Harmful
means both: an odds ratio of at least rho_ni, and a failure rate of at least p0. A route that
hardly ever fails is certified by the second, a busy and failing one by the first.
"""

import math
from dataclasses import dataclass

from harness.gate.logspace import log_mean, normalize_zeros
from harness.gate.online.fisher import log_factors

HEALTHY_GRID = (0.25, 0.5, 0.7, 0.85, 1.0)


@dataclass(frozen=True, slots=True)
class Certificate:
    """Running evidence that a canary is not harmful."""

    # Against "odds ratio >= rho_ni".
    log_products: tuple[float, ...] = (0.0,) * len(HEALTHY_GRID)
    canary: int = 0  # canary, canary_failures: sums of units
    canary_failures: int = 0


def add_block(
    so_far: Certificate, block: tuple[int, int, int, int], rho_ni: float
) -> Certificate:
    """One more block: units, canary units, failures, canary failures.

    Valid for every odds ratio of at least rho_ni (monotone likelihood ratio).
    """
    units, canary, failures, canary_failures = block
    factors = log_factors(
        units, canary, failures, canary_failures, odds=(rho_ni, *HEALTHY_GRID)
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
    """Computes the log of the mean of the two e-values, and both of them."""
    odds, rate = log_odds_e(certificate), log_rate_e(certificate, p0)
    return log_mean([odds, rate]), odds, rate


def _log_power(base: float, exponent: int) -> float:
    if exponent == 0:
        return 0.0
    return exponent * math.log(base) if base > 0.0 else -math.inf
