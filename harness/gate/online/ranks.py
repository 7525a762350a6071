"""Evidence from a canary's ranks among fresh values of the incumbent (statistics.md §2.4)."""

import math
from dataclasses import dataclass

from harness.domain.errors import InputError
from harness.gate.logspace import geometric_grid, log_mean

RANK_STAKES = geometric_grid(0.05, 0.95, 8)


@dataclass(frozen=True, slots=True)
class RankEvidence:
    """Running evidence that the canary's values are the higher ones."""

    log_products: tuple[float, ...] = (0.0,) * len(RANK_STAKES)

    @property
    def log_e(self) -> float:
        return log_mean(self.log_products) + 0.0

    def after(self, u: float) -> "RankEvidence":
        """One more rank in [0, 1]. Raises InputError for another number."""
        if not 0.0 <= u <= 1.0:
            raise InputError(f"a rank is a number from 0 to 1, not {u}")
        lean = 2.0 * u - 1.0
        return RankEvidence(
            tuple(
                log + math.log1p(stake * lean)
                for log, stake in zip(self.log_products, RANK_STAKES, strict=True)
            )
        )
