"""Evidence of harm accumulates block by block: counts (statistics.md §2.2, §2.3) and ranks
(§2.4).

Each state is a handful of logs, so it can be stored and taken up again; `evidence_paths` gives
the same for a whole rollout at once. Also here: several guardrails' evidence as one, and how
near it is to a rollback.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.domain.canary.guardrails import FailureTally
from harness.domain.canary.worker_guard import HARM_GRID
from harness.domain.errors import InputError
from harness.gate.arrays import geometric_grid, log_mean, normalize_zeros
from harness.gate.online.fisher import log_factors

RANK_STAKES = geometric_grid(0.05, 0.95, 8)


@dataclass(frozen=True, slots=True)
class RankEvidence:
    """Running evidence that the canary's values are the higher ones."""

    log_products: tuple[float, ...] = (0.0,) * len(RANK_STAKES)

    @property
    def log_e(self) -> float:
        return log_mean(self.log_products) + 0.0

    def after(self, u: float) -> "RankEvidence":
        """Returns the evidence with one more rank in [0, 1]. Raises InputError for another
        number.
        """
        if not 0.0 <= u <= 1.0:
            raise InputError(f"a rank is a number from 0 to 1, not {u}")
        lean = 2.0 * u - 1.0
        return RankEvidence(
            tuple(
                log + math.log1p(stake * lean)
                for log, stake in zip(self.log_products, RANK_STAKES, strict=True)
            )
        )


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

    def as_json(self) -> dict[str, object]:
        return {"rho": self.rho, "log_products": list(self.log_products)}


def harm_from_json(stored: Mapping[str, object]) -> HarmEvidence:
    """Restores what HarmEvidence.as_json wrote."""
    rho, products = stored["rho"], stored["log_products"]
    if not isinstance(rho, float | int) or not isinstance(products, Sequence):
        raise InputError("a stored state of harm has rho and log_products: watch again")
    return HarmEvidence(float(rho), tuple(float(log) for log in products))


@dataclass(frozen=True, slots=True)
class RestartingHarmEvidence:
    """HarmEvidence with a new instance every `every` canary exposures, the j-th at 1/(j(j+1)).

    For canaries that stay for days: a long healthy time does not hide a later break.
    Source: Shin, Ramdas & Rinaldo 2024 (e-detectors).
    """

    every: int
    exposures: int = 0
    instances: tuple[HarmEvidence, ...] = (HarmEvidence(),)

    @property
    def log_e(self) -> float:
        started = [harm.log_e for harm in self.instances]
        weights = [-math.log(j * (j + 1)) for j in range(1, len(started) + 1)]
        # Instances that have not started are worth 1 each: together 1/(J+1).
        return log_mean([*started, 0.0], [*weights, -math.log(len(started) + 1)])

    def after(self, block: FailureTally) -> "RestartingHarmEvidence":
        due = self.exposures // self.every + 1
        fresh = HarmEvidence(self.instances[0].rho)
        instances = self.instances + (fresh,) * (due - len(self.instances))
        return RestartingHarmEvidence(
            self.every,
            self.exposures + block.canary,
            tuple(harm.after(block) for harm in instances),
        )


def combine_log_e(log_e: Sequence[float], weights: Sequence[float] | None = None) -> float:
    """Several streams of one rollout as one e-value: the mean, for they are dependent.

    weights: registered before, summing to 1; equal when none are given.
    """
    if weights is None:
        return log_mean(log_e)
    if len(weights) != len(log_e) or not math.isclose(sum(weights), 1.0, abs_tol=1e-9):
        raise InputError("the streams' weights sum to 1, one for each stream")
    return log_mean(log_e, [math.log(weight) if weight else -math.inf for weight in weights])


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
