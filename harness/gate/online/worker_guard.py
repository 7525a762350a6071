"""The worker guard lets one router worker stop a canary that fails grossly. Pure; needs no
database.

The canary's share is the known probability that a key's arm is the canary. If the candidate
fails no more often than the incumbent, a failing exposure is in the canary with at most that
probability, even if something happens to both arms at once. So each failing exposure is a bet
on its arm. This is the test of statistics.md §2.2 with blocks of one canary exposure, and with
the planned share in place of the block's share.

A worker keeps two guards, each with half of alpha: one of first requests, and one of windows,
whose exposures failed if any of a caller's first requests failed.

The guard needs exposures that count once, in the order of their assignment. It waits for each
exposure's outcome. An exposure without an outcome is no failure, in either arm. An outcome that
is no evidence of errors, such as a limited request, counts for the canary: as a failure of the
incumbent, or as a success of the canary. Leaving it out would change the canary's probability.

A long healthy time must not hide later failures, so evidence may begin at any failure
(statistics.md §2.3). The first failure has the weight w = FIRST_WEIGHT, the t-th failure (1 -
w)/((t - 1)t); all weights sum to 1. `abort_log_e` is the level at which a worker aborts, so
that all workers together spend alpha at most.

If the incumbent's usual failure rate is known, the guard also needs evidence that the candidate
fails more than usual, and the lesser of both counts (`usual_rate`, statistics.md §2.20). That
evidence reads the canary's exposures alone: it begins with the first exposure, and again after
each failure of the canary. In an incident of the incumbent (`is_incident`), the guard makes no
bets. Otherwise an incident of both arms would be evidence against the usual rate for the rest
of the rollout.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from harness.frame.plain_data import from_plain
from harness.gate.online.usual_rate import UsualBet, usual_bets

HARM_GRID: Final = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0)
FIRST_WEIGHT: Final = 0.95
# The incumbent has an incident while more than half of this many latest exposures failed.
INCIDENT_EXPOSURES: Final = 20


@dataclass(frozen=True, slots=True)
class WorkerGuard:
    """The evidence that canary exposures fail more than rho times as often as incumbent
    exposures.
    """

    # Tolerated ratio. Values below 1 count as 1, because an odds ratio bounds a rate ratio only
    # above 1.
    rho: float = 1.0
    failures: int = 0  # exposures that failed, in both arms
    canary_failures: int = 0
    bets: int = 0  # failed exposures that were bets on their arm
    # For each ratio of the grid: the weighted sum, over all bets at which evidence may begin,
    # of the product since that bet.
    log_sums: tuple[float, ...] = (-math.inf,) * len(HARM_GRID)
    # The same against the usual rate; it begins with the canary's first exposure, and after
    # each of its failures. Empty while no usual rate is known.
    usual_sums: tuple[float, ...] = ()
    usual_failures: int = 0  # failures of the canary that were bets against the usual rate

    @property
    def log_e(self) -> float:
        log_e = _log_mean(self.log_sums, _later_weight(self.bets))
        if not self.usual_sums:
            return log_e
        return min(log_e, _log_mean(self.usual_sums, _later_weight(self.usual_failures + 1)))

    def after(
        self,
        *,
        canary: bool,
        share: float,
        usual_rate: float = 0.0,
        incident: bool = False,
    ) -> "WorkerGuard":
        """Adds a failed exposure.

        Args:
            share: the probability of the canary arm for this exposure.
            usual_rate: at this exposure; 0 if unknown.
            incident: see `is_incident`.
        """
        if not 0.0 < share < 1.0:
            return self
        canary_failures = self.canary_failures + canary
        usual_sums = self.usual_sums
        usual_failures = self.usual_failures
        if canary and usual_rate and not incident:
            usual_sums = self._with_usual(usual_rate, failed=True)
            usual_failures += 1
            log_start_weight = math.log(_start_weight(usual_failures + 1))
            usual_sums = tuple(_log_add(log, log_start_weight) for log in usual_sums)
        null = max(1.0, self.rho)
        number = self.bets + (not incident)
        log_sums = self.log_sums
        if not incident:
            log_start_weight = math.log(_start_weight(number))
            log_sums = tuple(
                _log_add(log, log_start_weight)
                + arm_log_factor(null * harm, null, share, canary=canary)
                for log, harm in zip(log_sums, HARM_GRID, strict=True)
            )
        return WorkerGuard(
            self.rho,
            self.failures + 1,
            canary_failures,
            number,
            log_sums,
            usual_sums,
            usual_failures,
        )

    def after_fine(self, usual_rate: float) -> "WorkerGuard":
        """Adds a canary's exposure that did not fail.

        Args:
            usual_rate: at this exposure, above 0.
        """
        return replace(self, usual_sums=self._with_usual(usual_rate, failed=False))

    def _with_usual(self, usual_rate: float, *, failed: bool) -> tuple[float, ...]:
        bets: tuple[UsualBet, ...] = usual_bets(usual_rate, max(1.0, self.rho), HARM_GRID)
        sums = self.usual_sums or (math.log(FIRST_WEIGHT),) * len(bets)
        return tuple(
            log + (bet.failed if failed else bet.fine)
            for log, bet in zip(sums, bets, strict=True)
        )


def is_incident(recent: int, exposures: int) -> bool:
    """Tells whether the incumbent has an incident, in which failures prove nothing.

    Args:
        recent: the latest INCIDENT_EXPOSURES outcomes of the incumbent as bits, 1 for a
            failure.
        exposures: of the incumbent so far.

    Only earlier exposures decide, so the evidence stays valid.
    """
    return exposures >= INCIDENT_EXPOSURES and 2 * recent.bit_count() > INCIDENT_EXPOSURES


def _start_weight(number: int) -> float:
    """Returns the weight of the evidence that begins at the start of this number, from 1."""
    return FIRST_WEIGHT if number == 1 else (1.0 - FIRST_WEIGHT) / (number * (number - 1))


def _later_weight(starts: int) -> float:
    """Returns the weight of all evidence that begins later, each with the value 1."""
    return (1.0 - FIRST_WEIGHT) / starts if starts else 1.0


def _log_mean(log_sums: tuple[float, ...], later: float) -> float:
    started = sum(math.exp(min(log_sum, 600.0)) for log_sum in log_sums) / len(HARM_GRID)
    return math.log(started + later)


@dataclass(frozen=True, slots=True)
class GuardError:
    """The most frequent known error of the candidate's callers. An open circuit is the
    consequence of other errors, so it counts only without them.

    failure: its class. status: the HTTP status of the reply; None if there was no reply.
    callers: the number of callers whose exposure failed with it.
    """

    failure: str
    status: int | None
    callers: int


@dataclass(frozen=True, slots=True)
class GuardCount:
    """Counts the exposures that a worker's guard read until it stopped a canary.

    log_e: its evidence of harm. log_limit: the log e at which it stops the canary. window_s:
    how long each caller's requests count, in seconds; 0 if only first requests count.
    """

    exposures: int  # of the canary
    canary_failures: int
    control_failures: int
    log_e: float
    log_limit: float
    canary_classes: Mapping[str, int] = field(default_factory=dict)  # failures by known class
    window_s: float = 0.0
    # Of the incumbent; None in alerts of older routers.
    control_exposures: int | None = None
    error: GuardError | None = None  # None if no failure's class is known

    @property
    def canary_share(self) -> float:
        return self.canary_failures / max(1, self.exposures)

    @property
    def distance(self) -> float:
        """The evidence as a share of the level at which the guard stops the canary, up to 1."""
        return min(1.0, self.log_e / self.log_limit)

    @property
    def e_value(self) -> float:
        return math.exp(min(self.log_e, 700.0))

    @property
    def e_limit(self) -> float:
        return math.exp(min(self.log_limit, 700.0))


def read_guard_count(details: Mapping[str, Any]) -> GuardCount | None:
    """Reads the counts in an alert's details; None if the alert has none, or malformed ones."""
    try:
        count: GuardCount = from_plain(GuardCount, details)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return count


def abort_log_e(
    alpha: float,
    *,
    workers: int,
    turn: int,
) -> float:
    """Computes the log e at which a worker aborts. All workers of a router together spend alpha
    at most.

    Args:
        turn: the number of worker processes that guarded this rollout earlier.

    The first `workers` processes share FIRST_WEIGHT of alpha. Later processes (after a killed
    worker or a restart) share the rest: the i-th has 1/(i(i + 1)) of it.
    """
    late = turn - workers + 1
    share = FIRST_WEIGHT / workers if late < 1 else (1.0 - FIRST_WEIGHT) / (late * (late + 1))
    return -math.log(alpha * share)


def arm_log_factor(
    ratio: float,
    null: float,
    share: float,
    *,
    canary: bool,
) -> float:
    def among_failures(times: float) -> float:
        return times * share + 1.0 - share

    arms = math.log(ratio / null) if canary else 0.0
    return arms - math.log(among_failures(ratio) / among_failures(null))


def _log_add(a: float, b: float) -> float:
    high = max(a, b)
    low = min(a, b)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))
