"""Simulated blocks of traffic with a known failure rate in each arm."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.domain.canary.guardrails import FailureTally

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Truth:
    """Failure rates of both arms. size, canary: units of a block, and how many are canary."""

    control: float = 0.01
    canary: float = 0.01
    size: int = 100
    canaries: int = 1


@dataclass(frozen=True)
class SimulatedTraffic:
    """One rollout, block by block: failures of both arms separately."""

    truth: Truth
    canary_failures: Ints
    control_failures: Ints

    @property
    def controls(self) -> int:
        return self.truth.size - self.truth.canaries

    def counts(self) -> list[FailureTally]:
        size, canaries = self.truth.size, self.truth.canaries
        return [
            FailureTally(size, canaries, int(ours + theirs), int(theirs))
            for ours, theirs in zip(self.control_failures, self.canary_failures, strict=True)
        ]


def simulate_traffic(
    truth: Truth, blocks: int, rng: np.random.Generator, incident: Sequence[int] = ()
) -> SimulatedTraffic:
    """incident: indices of blocks in which both arms fail 30 % of their units."""
    canary = np.full(blocks, truth.canary)
    control = np.full(blocks, truth.control)
    if len(incident):
        canary[list(incident)] = control[list(incident)] = 0.30
    return SimulatedTraffic(
        truth,
        rng.binomial(truth.canaries, canary).astype(np.int64),
        rng.binomial(truth.size - truth.canaries, control).astype(np.int64),
    )
