"""Puts the counts of requests without a row into blocks, by minute (`ExposureCount`).

A minute's counts at one share belong to the first block of that share that ends at the minute's
end or later. The last block of a step also gets the minute in which the step ended, because no
later block has this share.

The counts of callers' first requests do not become part of a block. Each process counts a
caller once, so several processes count it several times. The rows count a caller once.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from harness.gate.online.exposures import KEPT, LOST, THINNED, ExposureCount
from harness.gate.online.guardrails import ArmSplit
from harness.gate.online.reading.caller_order import FormedBlock

MINUTE: Final = timedelta(minutes=1)
_FIRST_REQUESTS: Final = frozenset({KEPT, THINNED, LOST})


@dataclass(frozen=True, slots=True)
class CountedMinutes:
    """The requests without a row of some minutes at one share; both arms, canary.

    lost: callers' first requests whose rows the router could not write. uncounted: requests
    that became no exposure, by reason.
    """

    lost: ArmSplit
    uncounted: Mapping[str, ArmSplit]


def find_counted_end(block: FormedBlock) -> datetime:
    """Finds until when a block counts minutes."""
    ends_at = block.ends_at
    if not block.ends_step:
        return ends_at
    return ends_at.replace(second=0, microsecond=0) + MINUTE


class MinuteCounts:
    """The counts of a rollout that no block has taken yet."""

    def __init__(self) -> None:
        self._counts: dict[int, list[ExposureCount]] = {}  # by share
        self._taken_until: dict[int, datetime] = {}  # by share

    def set(self, counts: Iterable[ExposureCount]) -> None:
        """Replaces the counts by all counts that have arrived."""
        by_share: dict[int, list[ExposureCount]] = defaultdict(list)
        for count in counts:
            taken_until = self._taken_until.get(count.weight_bps)
            if taken_until is None or count.minute + MINUTE > taken_until:
                by_share[count.weight_bps].append(count)
        self._counts = by_share

    def take(self, block: FormedBlock) -> CountedMinutes:
        """Takes the minutes that belong to a block."""
        _, weight_bps = block.part
        until = find_counted_end(block)
        self._taken_until[weight_bps] = max(until, self._taken_until.get(weight_bps, until))
        taken: list[ExposureCount] = []
        left: list[ExposureCount] = []
        for count in self._counts.get(weight_bps, ()):
            (taken if count.minute + MINUTE <= until else left).append(count)
        self._counts[weight_bps] = left
        reasons = sorted({count.reason for count in taken} - _FIRST_REQUESTS)
        return CountedMinutes(
            _sum_counts(count for count in taken if count.reason == LOST),
            {
                reason: _sum_counts(count for count in taken if count.reason == reason)
                for reason in reasons
            },
        )


def _sum_counts(counts: Iterable[ExposureCount]) -> ArmSplit:
    both = 0
    canary = 0
    for count in counts:
        both += count.requests
        canary += count.requests * count.canary
    return ArmSplit(both, canary)
