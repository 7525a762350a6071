"""A canary's timeline for charts: its share, the evidence of harm and both arms' failures after
each block. No decision uses it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import NormalDist
from typing import Final

from harness.gate.online.observation import ObservationBlock
from harness.gate.online.rollout import Rollout
from harness.gate.online.rollout_evidence import distance_path

# The maximum of a chart; the timeline of a long canary is thinned out evenly.
MOST_POINTS: Final = 160
_CONFIDENCE: Final = 0.95


@dataclass(frozen=True, slots=True)
class FailureShare:
    """Counts one arm's units and failures so far."""

    failures: int
    units: int

    @property
    def share(self) -> float | None:
        return self.failures / self.units if self.units else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Returns the 95 % interval of the share, None without units.

        The interval is valid only at this moment; only the evidence allows repeated looks.
        Source: Wilson 1927 (score interval).
        """
        if not self.units:
            return None
        z, n = NormalDist().inv_cdf((1.0 + _CONFIDENCE) / 2.0), self.units
        p = self.failures / n
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True, slots=True)
class TimelinePoint:
    """Describes a canary at the moment when a block closed."""

    at: datetime
    weight_bps: int
    distance: float  # evidence as a share of the rollback level; 1 trips
    candidate: FailureShare
    incumbent: FailureShare


def build_timeline(
    rollout: Rollout, blocks: Sequence[ObservationBlock]
) -> tuple[TimelinePoint, ...]:
    """Returns a point for each block in order of number, up to the block that tripped; at most
    about MOST_POINTS.
    """
    ordered = sorted(blocks, key=lambda block: block.number)
    distances = distance_path(ordered, rollout.policy)
    points = []
    at = rollout.started_at
    candidate = incumbent = FailureShare(0, 0)
    for block, distance in zip(ordered, distances, strict=False):
        # Two routers' clocks may differ, but time must not go back in a chart.
        at = max(at, block.closed_at)
        candidate = _plus(candidate, block.canary_failures, block.canary_units)
        incumbent = _plus(
            incumbent,
            block.failures - block.canary_failures,
            block.units - block.canary_units,
        )
        points.append(TimelinePoint(at, block.weight_bps, distance, candidate, incumbent))
    return _thinned(points)


def _plus(share: FailureShare, failures: int, units: int) -> FailureShare:
    return FailureShare(share.failures + failures, share.units + units)


def _thinned(points: Sequence[TimelinePoint]) -> tuple[TimelinePoint, ...]:
    """Keeps the last point and the first point of every step."""
    if len(points) <= MOST_POINTS:
        return tuple(points)
    every = math.ceil(len(points) / MOST_POINTS)
    last = len(points) - 1
    return tuple(
        point
        for place, point in enumerate(points)
        if (last - place) % every == 0
        or (place and points[place - 1].weight_bps != point.weight_bps)
    )
