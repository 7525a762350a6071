"""Simulates errors whose rates change from block to block, in each arm by itself. Counts the
blocks until errors roll back.
"""

import math
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from harness.gate.arrays import Floats
from harness.gate.online.evidence_paths import ERRORS_WEIGHT, errors_path
from harness.gate.online.guardrails import FailureTally
from harness.gate.online.rollout_evidence import CARRIED_SHARE
from harness.gate.online.usual_rate import DayCount, bound_usual_rate
from harness.gate.policy import CanaryPolicy

SIZE: Final = 100
# log e of the rollback by errors alone.
LEVEL: Final = -math.log(CanaryPolicy().alpha * CARRIED_SHARE * ERRORS_WEIGHT)
RATE: Final = 0.01
# 10,000 first requests a day. About 1 % of them fail: evenly, or in minutes of 100 callers that
# all fail.
STEADY: Final = bound_usual_rate(
    [DayCount(10_000, n) for n in (100, 90, 110, 105, 95, 100, 102)]
)
BURSTS: Final = bound_usual_rate([DayCount(10_000, n) for n in (100, 0, 200, 100, 100, 200, 0)])
Rates = Callable[[np.random.Generator, int], Floats]


def evenly(rate: float) -> Rates:
    return lambda _, blocks: np.full(blocks, rate)


def in_bursts(height: float) -> Rates:
    """Fails RATE of all requests, in blocks in which the share `height` fails."""
    return lambda rng, blocks: np.where(rng.random(blocks) < RATE / height, height, 0.0)


def simulate(
    share: float,
    canary: Floats,
    control: Floats,
    rng: np.random.Generator,
) -> list[FailureTally]:
    """Simulates blocks of SIZE callers.

    Args:
        canary: its failure rates, block by block.
        control: its failure rates, block by block.
    """
    canaries = max(1, round(SIZE * share))
    of_canary = rng.binomial(canaries, canary)
    of_control = rng.binomial(SIZE - canaries, control)
    return [
        FailureTally(SIZE, canaries, int(theirs + ours), int(theirs))
        for theirs, ours in zip(of_canary, of_control, strict=True)
    ]


def blocks_to_rollback(
    tallies: Sequence[FailureTally],
    share: float,
    usual_rate: float,
) -> float:
    """Counts blocks until errors roll back; inf for never.

    Args:
        usual_rate: 0 if unknown.
    """
    number = len(tallies)
    path = errors_path(
        tallies,
        [share] * number,
        [False] * number,
        [usual_rate] * number,
        1.0,
    )
    return first_over(path)


def first_over(path: Floats) -> float:
    over = np.flatnonzero(path >= LEVEL)
    return float(over[0] + 1) if len(over) else math.inf


def equal_beside_bursts(
    share: float,
    height: float,
    usual_rate: float,
    seed: Sequence[int],
    *,
    incident: int = 0,
) -> float:
    """Counts blocks until an equal candidate is rolled back that fails evenly, beside an
    incumbent that fails in bursts; inf for never.

    Args:
        incident: blocks before, in which 95 % of both arms fail.
    """
    rng = np.random.default_rng(seed)
    blocks = max(400, round(20 / share))
    during = np.full(incident, 0.95)
    control = np.concatenate([during, in_bursts(height)(rng, blocks)])
    canary = np.concatenate([during, evenly(RATE)(rng, blocks)])
    tallies = simulate(share, canary, control, rng)
    return blocks_to_rollback(tallies, share, usual_rate)


def harm_after_incident(
    share: float,
    incident: int,
    seed: Sequence[int],
) -> float:
    """Counts exposures after an incident of both arms until a candidate that then fails 5 % is
    rolled back; inf for never.

    Args:
        incident: its length in blocks.
    """
    rng = np.random.default_rng(seed)
    later = round(6 / share)
    during = np.full(incident, 0.95)
    canary = np.concatenate([during, np.full(later, 0.05)])
    control = np.concatenate([during, np.full(later, RATE)])
    found = blocks_to_rollback(simulate(share, canary, control, rng), share, STEADY)
    return (found - incident) * SIZE * share


def burst_of_candidate(share: float, seed: Sequence[int]) -> float:
    """Counts blocks until a candidate is rolled back that fails for 35 s; inf for never.

    230 callers a minute. All other requests fail at RATE.
    """
    rng = np.random.default_rng(seed)
    callers = 4_000
    arm = rng.random(callers) < share
    failed = rng.random(callers) < RATE
    during = slice(2_000, 2_000 + 230 * 35 // 60)
    failed[during] |= arm[during]
    rows = (
        (SIZE, int(a.sum()), int(f.sum()), int((a & f).sum()))
        for a, f in zip(arm.reshape(-1, SIZE), failed.reshape(-1, SIZE), strict=True)
    )
    return blocks_to_rollback([FailureTally(*row) for row in rows], share, STEADY)
