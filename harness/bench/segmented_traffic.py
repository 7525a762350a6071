"""Simulates canaries whose harm is confined to a segment of the traffic, for CanaryBench: every
request has its segments, one of each kind, and a caller's arm is a coin.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np

from harness.domain.canary.guardrails import Guardrail, SegmentCount, SegmentedErrors
from harness.domain.canary.observation import ObservationBlock
from harness.domain.canary.segments import SEGMENTS, Segment
from harness.domain.proposals.policy import CanaryPolicy
from harness.gate.online.rollout_evidence import collect_evidence

SIZE: Final = 100
START: Final = datetime(2026, 1, 1, tzinfo=UTC)
# Shares of the segments of each kind, in the order of SEGMENTS.
SHARES: Final = (
    (0.5, 0.5),
    (0.1, 0.9),
    (0.6, 0.3, 0.1),
    (0.4, 0.2, 0.12, 0.1, 0.08, 0.05, 0.03, 0.02),
    (0.6, 0.1, 0.08, 0.06, 0.05, 0.03, 0.03, 0.02, 0.01, 0.01, 0.005, 0.005),
)


@dataclass(frozen=True)
class SegmentTruth:
    """How often units fail. segment: in it alone the canary fails at its own rate."""

    segment: Segment | None = None  # None: in all of them
    canary: float = 0.01
    control: float = 0.01
    # Of both arms, where it is another one.
    hard: Mapping[Segment, float] | None = None


def simulate_segments(
    truth: SegmentTruth, *, blocks: int, rng: np.random.Generator, share: float = 0.01
) -> list[ObservationBlock]:
    """Simulates the blocks of one rollout. share: of the canary."""
    shape = (blocks, SIZE)
    canary = rng.random(shape) < share
    drawn, first = [], 0
    for shares in SHARES:
        drawn.append(first + rng.choice(len(shares), size=shape, p=shares))
        first += len(shares)
    chance = np.full(shape, truth.control)
    for segment, rate in (truth.hard or {}).items():
        chance[_in(drawn, segment)] = rate
    harmed = canary if truth.segment is None else canary & _in(drawn, truth.segment)
    failed = rng.random(shape) < np.where(harmed, truth.canary, chance)
    counts = np.zeros((blocks, len(SEGMENTS), 4), dtype=np.int64)
    rows = np.broadcast_to(np.arange(blocks)[:, None], shape)
    for places in drawn:
        for at, units in enumerate((np.ones_like(canary), canary, failed, failed & canary)):
            np.add.at(counts[:, :, at], (rows, places), units)
    return [
        ObservationBlock(
            rollout="r", worker="w", sequence=n, weight_bps=round(10_000 * share), units=SIZE,
            canary_units=int(canary[n].sum()), failures=int(failed[n].sum()),
            canary_failures=int((failed[n] & canary[n]).sum()), missing=0,
            opened_at=START, closed_at=START, number=n + 1,
            counts={Guardrail.ERRORS: _errors(canary[n], failed[n], counts[n])},
        )
        for n in range(blocks)
    ]  # fmt: skip


def segment_exposures(
    truth: SegmentTruth, policy: CanaryPolicy, *, cap: int, seed: Sequence[int]
) -> float:
    """Counts the canary's units in the harmed segment until the policy rolls it back; inf for
    never within `cap` of all its units.
    """
    blocks = simulate_segments(truth, blocks=cap, rng=np.random.default_rng(seed))
    evidence = collect_evidence(blocks, policy)
    if evidence.block is None:
        return math.inf
    if truth.segment is None:
        return float(evidence.exposures)
    return float(
        sum(
            errors.segments[truth.segment].canary
            for block in blocks[: evidence.block + 1]
            if isinstance(errors := block.counts[Guardrail.ERRORS], SegmentedErrors)
            and truth.segment in errors.segments
        )
    )


def _in(drawn: Sequence[np.ndarray], segment: Segment) -> np.ndarray:
    number = SEGMENTS.index(segment)
    return np.logical_or.reduce([places == number for places in drawn])


def _errors(canary: np.ndarray, failed: np.ndarray, counts: np.ndarray) -> SegmentedErrors:
    return SegmentedErrors(
        SIZE,
        int(canary.sum()),
        int(failed.sum()),
        int((failed & canary).sum()),
        segments={
            SEGMENTS[n].value: SegmentCount(*map(int, counts[n]))
            for n in np.flatnonzero(counts[:, 0])
        },
    )
