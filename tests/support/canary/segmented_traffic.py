"""Simulates canaries whose harm is confined to a segment of the traffic."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np

from harness.gate.online.guardrails import (
    ErrorTally,
    Guardrail,
    SegmentCount,
)
from harness.gate.online.observation import (
    SEGMENTS,
    ObservationBlock,
    Segment,
)

SIZE: Final = 100
START: Final = datetime(2026, 1, 1, tzinfo=UTC)
# Shares of the segments of each kind, in the order of SEGMENTS.
SHARES: Final = (
    (0.5, 0.5),
    (0.1, 0.9),
    (0.6, 0.1, 0.2, 0.1),
)


@dataclass(frozen=True)
class SegmentTruth:
    """How often units fail. segment: in it alone the canary fails at its own rate."""

    segment: Segment | None = None  # None: in all of them
    canary: float = 0.01
    control: float = 0.01


def simulate_segments(
    truth: SegmentTruth,
    *,
    blocks: int,
    rng: np.random.Generator,
    share: float = 0.01,
) -> list[ObservationBlock]:
    """Simulates the blocks of one rollout.

    Args:
        share: of the canary.
    """
    shape = (blocks, SIZE)
    canary = rng.random(shape) < share
    drawn = draw_segments(shape, rng)
    harmed = canary if truth.segment is None else canary & _in(drawn, truth.segment)
    failed = rng.random(shape) < np.where(harmed, truth.canary, truth.control)
    errors = count_errors(drawn, canary, failed)
    return [
        ObservationBlock(
            rollout="r",
            worker="w",
            sequence=n,
            weight_bps=round(10_000 * share),
            units=SIZE,
            canary_units=tally.canary,
            failures=tally.failures,
            canary_failures=tally.canary_failures,
            missing=0,
            opened_at=START,
            closed_at=START,
            number=n + 1,
            counts={Guardrail.ERRORS: tally},
        )
        for n, tally in enumerate(errors)
    ]


def draw_segments(shape: tuple[int, int], rng: np.random.Generator) -> list[np.ndarray]:
    """Draws a segment of each kind for every unit, as a place in SEGMENTS."""
    drawn = []
    first = 0
    for shares in SHARES:
        drawn.append(first + rng.choice(len(shares), size=shape, p=shares))
        first += len(shares)
    return drawn


def count_errors(
    drawn: Sequence[np.ndarray],
    canary: np.ndarray,
    failed: np.ndarray,
) -> list[ErrorTally]:
    """Counts each block's errors by segment, as a router does."""
    kinds = np.ones_like(canary), canary, failed, canary & failed
    wholes = np.stack([units.sum(axis=1) for units in kinds], axis=1)
    number = len(canary)
    places = np.arange(len(canary))[:, None] * len(SEGMENTS)
    counts = np.stack(
        [
            sum(
                np.bincount((places + at)[units], minlength=number * len(SEGMENTS))
                for at in drawn
            )
            for units in kinds
        ],
        axis=-1,
    ).reshape(number, len(SEGMENTS), len(kinds))
    return [_tally(whole, count) for whole, count in zip(wholes, counts, strict=True)]


def _tally(whole: np.ndarray, counts: np.ndarray) -> ErrorTally:
    units, canary, failures, canary_failures = map(int, whole)
    segments = {
        SEGMENTS[n].value: SegmentCount(*map(int, counts[n]))
        for n in np.flatnonzero(counts[:, 0])
    }
    return ErrorTally(units, canary, failures, canary_failures, segments=segments)


def _in(drawn: Sequence[np.ndarray], segment: Segment) -> np.ndarray:
    number = SEGMENTS.index(segment)
    return np.asarray(np.logical_or.reduce([places == number for places in drawn]))
