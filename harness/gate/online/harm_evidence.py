"""Evidence of harm accumulates block by block: counts (statistics.md §2.2, §2.3) and ranks
(§2.4).

Each state is a handful of logs, so it can be stored and taken up again; `evidence_paths` gives
the same for a whole rollout at once. Also here: several guardrails' evidence as one, and how
near it is to a rollback.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.domain.canary.guardrails import FailureTally
from harness.domain.canary.worker_guard import HARM_GRID
from harness.domain.errors import InputError
from harness.gate.arrays import geometric_grid, log_mean, normalize_zeros
from harness.gate.online.fisher import log_factors

RANK_STAKES = geometric_grid(0.05, 0.95, 8)


def odds_grid(rho: float) -> tuple[float, ...]:
    """Lists the null's odds ratio, then the harmful ones. Raises InputError unless rho is above
    0 and finite.
    """
    if not 0.0 < rho < math.inf or math.isinf(rho * HARM_GRID[-1]):
        raise InputError(f"rho is an odds ratio above 0, not {rho:g}")
    return (rho, *(rho * harm for harm in HARM_GRID))


@dataclass(frozen=True, slots=True)
class HarmEvidence:
    """Holds running evidence that the canary's odds of failure exceed rho times the
    incumbent's.
    """

    rho: float = 1.0
    # One running product per odds ratio of the grid. The e-value is their mean.
    log_products: tuple[float, ...] = (0.0,) * len(HARM_GRID)

    @property
    def log_e(self) -> float:
        return log_mean(self.log_products) + 0.0

    def after(self, block: FailureTally) -> "HarmEvidence":
        factors = _factors(block, self.rho)
        if not any(factors):
            return self
        return HarmEvidence(self.rho, _times(self.log_products, factors))


def distance_to_trip(log_e: float, alpha: float) -> float:
    """Returns how near the evidence is to a rollback: 0 for none, 1 for the rollback."""
    return min(1.0, max(0.0, log_e / math.log(1.0 / alpha)))


def find_trip(
    blocks: Iterable[FailureTally], alpha: float, rho: float = 1.0
) -> tuple[tuple[float, ...], int | None]:
    """Computes log e after each block up to the one that reaches 1/alpha, and that one's
    index.
    """
    odds_grid(rho)
    harm, limit = HarmEvidence(rho), math.log(1.0 / alpha)
    path: list[float] = []
    for block in blocks:
        harm = harm.after(block)
        path.append(harm.log_e)
        if path[-1] >= limit:
            return tuple(path), len(path) - 1
    return tuple(path), None


def _factors(block: FailureTally, rho: float) -> tuple[float, ...]:
    return log_factors(
        block.units,
        block.canary,
        block.failures,
        block.canary_failures,
        odds=odds_grid(rho),
    )


def _times(logs: Sequence[float], factors: Sequence[float]) -> tuple[float, ...]:
    return normalize_zeros(a + b for a, b in zip(logs, factors, strict=True))
