"""Simulates conversations in a canary: each caller's first request and window, through the
product's evidence (statistics.md §2.19).

A caller asks `turns` times, and pauses for `pause_s` after each answer; without a pause it is a
closed loop. An answer takes 1 s in the median, 4 s at the 99th percentile. Each request fails
with its arm's rate. `simulate` returns blocks' tallies of both streams, `exposures` how many
canary callers were assigned, or had a known window, when the default policy rolled back.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np

from harness.gate.arrays import Floats
from harness.gate.online.evidence_paths import combined_path, counts_path
from harness.gate.online.guardrails import FailureTally, Guardrail
from harness.gate.online.rollout import count_window_requests
from harness.gate.online.rollout_evidence import CARRIED_SHARE
from harness.gate.policy import CanaryPolicy

DEFAULT: Final = CanaryPolicy()
SPREAD: Final = math.log(4.0) / 2.3263  # of the answers' times
SIZE: Final = 100
LIMIT: Final = math.log(1.0 / DEFAULT.alpha) - math.log(CARRIED_SHARE)


@dataclass(frozen=True)
class Conversations:
    """A candidate and the callers of its route.

    control, canary: failing shares of the arms' requests. from_turn, to_turn: the turns at
    which the candidate's share holds; at others, it is the incumbent's. reaching: share of
    callers who go on after the second turn. times: ratio of the candidate's times to the
    incumbent's. stops, retries: after a failure, the caller ends, or sends the request once
    more. steps_s: the share changes every so many seconds, which ends all windows.
    """

    control: float = 0.01
    canary: float = 0.01
    from_turn: int = 1
    to_turn: float = math.inf
    turns: int = 5
    reaching: float = 1.0
    pause_s: float = 20.0
    times: float = 1.0
    stops: bool = False
    retries: bool = False
    share_bps: int = 500
    steps_s: float = math.inf

    @cached_property
    def most(self) -> int:
        """The most requests of a window."""
        return count_window_requests(DEFAULT.window_s, max(1.0, self.times))


class SimulatedCallers(NamedTuple):
    """By caller in the order of arrival: arm, and failures of the first request and window."""

    canary: np.ndarray
    first: np.ndarray
    window: np.ndarray
    requests: np.ndarray
    reached: np.ndarray  # whether the window contains a third turn


def simulate(what: Conversations, callers: int, rng: np.random.Generator) -> SimulatedCallers:
    """Simulates callers, whose arms are coins."""
    canary = rng.random(callers) < what.share_bps / 10_000
    turns = np.where(rng.random(callers) < what.reaching, what.turns, 2)
    pace = np.where(canary, what.times, 1.0)
    ends_s = np.full(callers, DEFAULT.window_s)
    if math.isfinite(what.steps_s):
        ends_s = np.minimum(ends_s, rng.uniform(0.0, what.steps_s, callers))
    at_s = np.zeros(callers)
    turn = np.ones(callers, dtype=int)
    again = np.zeros(callers, dtype=bool)
    active = np.ones(callers, dtype=bool)
    failed = np.zeros(callers, dtype=bool)
    first = np.zeros(callers, dtype=bool)
    reached = np.zeros(callers, dtype=bool)
    requests = np.zeros(callers, dtype=int)
    for number in range(what.most):
        active &= (at_s < ends_s) & (turn <= turns)
        harmed = canary & (what.from_turn <= turn) & (turn <= what.to_turn)
        rate = np.where(harmed, what.canary, what.control)
        fails = active & (rng.random(callers) < rate)
        requests += active
        reached |= active & (turn >= 3)
        failed |= fails
        if number == 0:
            first = fails
        if what.stops:
            active &= ~fails
        at_s += rng.lognormal(0.0, SPREAD, callers) * pace + what.pause_s
        again = fails & ~again if what.retries else np.zeros(callers, dtype=bool)
        turn += ~again
    return SimulatedCallers(canary, first, failed, requests, reached)


def tallies(canary: np.ndarray, failed: np.ndarray) -> list[FailureTally]:
    """Counts blocks of SIZE callers."""
    arms = canary.reshape(-1, SIZE)
    bad = failed.reshape(-1, SIZE)
    return [
        FailureTally(SIZE, int(m), int(failures), int(of_canary))
        for m, failures, of_canary in zip(
            arms.sum(1), bad.sum(1), (bad & arms).sum(1), strict=True
        )
    ]


def streams(what: Conversations, callers: SimulatedCallers) -> tuple[Floats, Floats]:
    """Computes log e of first requests and of windows after each block."""
    shares = [what.share_bps / 10_000] * (len(callers.canary) // SIZE)
    first, window = (
        counts_path(tallies(callers.canary, failed), DEFAULT.rho, shares=shares)
        for failed in (callers.first, callers.window)
    )
    return first, window


def combine(first: Floats, window: Floats) -> Floats:
    """Combines both streams with guardrails that observe nothing."""
    nothing = np.zeros(len(first))
    paths = dict.fromkeys(DEFAULT.tolerated, nothing)
    return combined_path(paths | {Guardrail.ERRORS: first, Guardrail.CALLER_ERRORS: window})


def exposures(
    what: Conversations,
    *,
    most: int,
    seed: Sequence[int],
    late: int = 0,
    counted: str = "canary",
) -> float:
    """Returns the canary's callers until the rollback; inf for never.

    Args:
        most: canary callers of the simulation.
        late: how many blocks are assigned while a window is open.
        counted: `canary`, or `reached` for those who had a third turn.
    """
    rng = np.random.default_rng(seed)
    blocks = math.ceil(most * 10_000 / what.share_bps / SIZE)
    callers = simulate(what, blocks * SIZE, rng)
    first, window = streams(what, callers)
    delayed = np.concatenate([np.zeros(late), window])[: len(first)]
    over = np.flatnonzero(combine(first, delayed) >= LIMIT)
    if not len(over):
        return math.inf
    assigned = callers.canary & (callers.reached if counted == "reached" else True)
    return float(assigned[: (int(over[0]) + 1) * SIZE].sum())
