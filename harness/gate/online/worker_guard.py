"""The worker guard lets one router worker stop a canary that fails grossly. Pure; needs no
database.

A key's arm is a coin with a known probability, the canary's share. So if the candidate fails no
more often than the incumbent, whoever fails is in the canary with at most that probability,
whatever happens to both arms at once: each failing unit is a bet on its arm. This is
statistics.md §2.2 with one canary in a block, and the planned share for the block's.

It holds for units that count once, in the order of their assignment. A unit whose outcome is
late is taken for the worst against the canary's guilt: a canary's for good, an incumbent's for
failed. That only lowers e.

A long healthy time must not hide a later break: evidence may begin at any failure
(statistics.md §2.3). The first has the weight w = FIRST_WEIGHT, failure t after it
(1 - w)/((t - 1)t); together they are 1. `abort_log_e` is the limit at which a worker aborts, so
that all workers together spend alpha at most.
"""

import math
from dataclasses import dataclass
from typing import Final

HARM_GRID: Final = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0)
FIRST_WEIGHT: Final = 0.95


@dataclass(frozen=True, slots=True)
class WorkerGuard:
    """The evidence that the canary's units fail more than rho times as often as the others."""

    # Tolerated ratio; below 1 as 1, since a ratio of odds bounds one of rates only above it.
    rho: float = 1.0
    failures: int = 0  # units that failed, in both arms
    canary_failures: int = 0
    # For each ratio of the grid the weighted sum, over the failures at which evidence may have
    # begun, of the product since.
    log_sums: tuple[float, ...] = (-math.inf,) * len(HARM_GRID)

    @property
    def log_e(self) -> float:
        started = sum(math.exp(min(log_sum, 600.0)) for log_sum in self.log_sums) / len(
            HARM_GRID
        )
        return math.log(started + self._later)

    @property
    def _later(self) -> float:
        """Weight of what has not begun: worth 1 each."""
        return (1.0 - FIRST_WEIGHT) / self.failures if self.failures else 1.0

    def after(self, *, canary: bool, share: float) -> "WorkerGuard":
        """A unit failed, of an arm that it was in with probability `share` of the canary."""
        if not 0.0 < share < 1.0:
            return self
        number = self.failures + 1
        weight = FIRST_WEIGHT if number == 1 else (1.0 - FIRST_WEIGHT) / (number * (number - 1))
        null = max(1.0, self.rho)
        return WorkerGuard(
            self.rho,
            number,
            self.canary_failures + canary,
            tuple(
                _log_add(log, math.log(weight))
                + arm_log_factor(null * harm, null, share, canary=canary)
                for log, harm in zip(self.log_sums, HARM_GRID, strict=True)
            ),
        )


def abort_log_e(alpha: float, *, workers: int, turn: int) -> float:
    """Computes the log e at which a worker aborts, so that all of a router's together spend
    alpha at most.

    turn: how many worker processes have watched this rollout before this one, from 0. The first
    `workers` share FIRST_WEIGHT of alpha, those that come after them (a worker was killed, the
    router was restarted) the rest: the i-th has 1/(i(i + 1)) of it.
    """
    late = turn - workers + 1
    share = FIRST_WEIGHT / workers if late < 1 else (1.0 - FIRST_WEIGHT) / (late * (late + 1))
    return -math.log(alpha * share)


def arm_log_factor(ratio: float, null: float, share: float, *, canary: bool) -> float:
    def among_failures(times: float) -> float:
        return times * share + 1.0 - share

    arms = math.log(ratio / null) if canary else 0.0
    return arms - math.log(among_failures(ratio) / among_failures(null))


def _log_add(a: float, b: float) -> float:
    high, low = max(a, b), min(a, b)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))
