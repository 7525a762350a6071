"""Latency and cost of a canary, by rank among fresh values of the incumbent (2.4)."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from harness.domain.errors import InputError
from harness.gate.logspace import geometric, log_mean

STAKES = geometric(0.05, 0.95, 8)
MIN_CONTROLS = 9


def rank(value: float, controls: Sequence[float], tie_breaker: float) -> float:
    """The canary value's place among control values, in (0, 1); high is slow or dear.

    controls: from the same time window, each used once. tie_breaker: uniform on (0, 1), from
    the recorded seed. Uniform when canary and control are alike. A tolerated slow-down is
    tested by dividing `value` by it.
    """
    ordered = sorted(controls)
    below = bisect_left(ordered, value)
    equal = bisect_right(ordered, value) - below
    return (below + tie_breaker * (equal + 1)) / (len(ordered) + 1)


@dataclass(frozen=True, slots=True)
class Ranks:
    """Running evidence that the canary's values are the higher ones."""

    log_products: tuple[float, ...] = (0.0,) * len(STAKES)

    @property
    def log_e(self) -> float:
        return log_mean(self.log_products) + 0.0

    def after(self, u: float) -> "Ranks":
        """One more rank in [0, 1]. Raises InputError for another number."""
        if not 0.0 <= u <= 1.0:
            raise InputError(f"a rank is a number from 0 to 1, not {u}")
        lean = 2.0 * u - 1.0
        return Ranks(
            tuple(
                log + math.log1p(stake * lean)
                for log, stake in zip(self.log_products, STAKES, strict=True)
            )
        )
