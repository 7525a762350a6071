"""Orders a rollout's exposures by admission, and finds the one that counts for each caller.

Several processes may admit one caller in one period. The earliest exposure counts, and the
others are later turns of the caller. An exposure that arrives after its block was sealed is
late. If a caller's earliest exposure is late, none of the caller's exposures counts.
"""

from bisect import insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice

from harness.gate.online.exposures import BUCKETS, Exposure, kept_bps
from harness.gate.online.reading.seals import Position


def position_of(exposure: Exposure) -> Position:
    return Position(exposure.admitted_at, exposure.worker, exposure.ticket)


@dataclass(frozen=True, slots=True)
class FormedBlock:
    """The exposures of one block at one share in one period, in the order of admission.

    late: exposures that became late before the block was formed, with its share and period.
    ends_at: the block is full, or its time is over, or a next step or period began.
    bound: all its exposures are before this position.
    ends_step: a higher share ended the block.
    fewest_bps: the least `kept_bps` of other shares before the block's end. A caller whose
    sample is not below may have been seen and have no row.
    """

    number: int
    exposures: Sequence[Exposure]
    ends_at: datetime
    bound: Position
    ends_step: bool = False
    fewest_bps: int = BUCKETS
    late: Sequence[Exposure] = ()

    @property
    def first(self) -> Position:
        return position_of(self.exposures[0])

    @property
    def last(self) -> Position:
        return position_of(self.exposures[-1])

    @property
    def part(self) -> tuple[int, int]:
        """The block's period and share in bps."""
        return part_of(self.exposures[0])


def part_of(exposure: Exposure) -> tuple[int, int]:
    return exposure.period, exposure.weight_bps


@dataclass(slots=True)
class _Caller:
    """A caller in one period. settled: an exposure of the caller counts, or is late."""

    exposures: list[Exposure] = field(default_factory=list)  # in the order of admission
    is_settled: bool = False


class CallerOrder:
    """The exposures that have arrived, and the bounds of the blocks that were sealed."""

    def __init__(self) -> None:
        self._waiting: list[Exposure] = []  # in the order of admission
        self._start = 0  # earlier exposures of `_waiting` no longer wait
        self._callers: dict[tuple[int, int], _Caller] = {}  # by period and caller
        self._first_periods: dict[int, int] = {}  # by caller
        self._first_of_period: dict[int, Position] = {}
        self._first_of_weight: dict[int, Position] = {}
        self._bounds: dict[tuple[int, int], Position] = {}  # of sealed blocks, by part
        self._newest_first: Position | None = None  # of the newest sealed block
        self._new_late: list[Exposure] = []
        self._late: dict[tuple[int, int], list[Exposure]] = {}  # not in a block yet, by part

    def add(self, exposures: Iterable[Exposure]) -> None:
        """Adds exposures that arrived after all blocks sealed so far."""
        del self._waiting[: self._start]
        self._start = 0
        for exposure in exposures:
            position = position_of(exposure)
            caller = self._callers.setdefault((exposure.period, exposure.caller), _Caller())
            insort(caller.exposures, exposure, key=position_of)
            first_period = self._first_periods.get(exposure.caller, exposure.period)
            self._first_periods[exposure.caller] = min(first_period, exposure.period)
            _keep_least(self._first_of_period, exposure.period, position)
            _keep_least(self._first_of_weight, exposure.weight_bps, position)
            if self._is_late(exposure, position):
                self._new_late.append(exposure)
            else:
                self._waiting.append(exposure)
        self._waiting.sort(key=position_of)

    def _is_late(self, exposure: Exposure, position: Position) -> bool:
        if self._newest_first is not None and position < self._newest_first:
            return True
        bound = self._bounds.get(part_of(exposure))
        return bound is not None and position < bound

    def iter_waiting(self) -> Iterator[Exposure]:
        """Yields the exposures that count and are in no block yet, in the order of
        admission.
        """
        waiting = islice(self._waiting, self._start, None)
        return (exposure for exposure in waiting if self._is_first(exposure))

    def _is_first(self, exposure: Exposure) -> bool:
        caller = self._callers[exposure.period, exposure.caller]
        return not caller.is_settled and caller.exposures[0] is exposure

    def seal(self, block: FormedBlock) -> FormedBlock:
        """Enters a block that is now fixed. Returns it with the late exposures of its part."""
        for exposure in block.exposures:
            self._settle(exposure)
        for exposure in sorted(self._new_late, key=position_of):
            if self._is_first(exposure):
                self._settle(exposure)
                self._late.setdefault(part_of(exposure), []).append(exposure)
        self._new_late = []
        self._newest_first = block.first
        self._bounds[block.part] = block.bound
        while self._start < len(self._waiting) and not self._is_first(
            self._waiting[self._start]
        ):
            self._start += 1
        return replace(block, late=tuple(self._late.pop(block.part, ())))

    def _settle(self, exposure: Exposure) -> None:
        self._callers[exposure.period, exposure.caller].is_settled = True

    def list_of_caller(self, exposure: Exposure) -> Sequence[Exposure]:
        """Lists all exposures of the exposure's caller in its period."""
        return self._callers[exposure.period, exposure.caller].exposures

    def forget(self, exposure: Exposure) -> None:
        """Forgets the exposures of a caller that has counted, but not that it has counted."""
        self._callers[exposure.period, exposure.caller].exposures = []

    def has_earlier_period(self, exposure: Exposure) -> bool:
        """Tells whether the caller has a row of an earlier period."""
        return self._first_periods[exposure.caller] < exposure.period

    def find_period_change(self, position: Position) -> Position | None:
        """Finds the first exposure of the next period after a position."""
        return _find_rise(self._first_of_period, position)

    def find_step(self, position: Position) -> Position | None:
        """Finds the first exposure at the next higher share after a position."""
        return _find_rise(self._first_of_weight, position)

    def is_behind(self, exposure: Exposure) -> bool:
        """Tells whether a higher share was in use before the exposure."""
        position = position_of(exposure)
        return any(
            weight_bps > exposure.weight_bps and first < position
            for weight_bps, first in self._first_of_weight.items()
        )

    def find_fewest_bps(self, weight_bps: int, bound: Position) -> int:
        """Finds the least `kept_bps` of both arms at other shares before a position."""
        return min(
            (
                kept_bps(other, canary=canary)
                for other, first in self._first_of_weight.items()
                if other != weight_bps and first < bound
                for canary in (False, True)
            ),
            default=BUCKETS,
        )


def _keep_least(firsts: dict[int, Position], key: int, position: Position) -> None:
    firsts[key] = min(position, firsts.get(key, position))


def _find_rise(firsts: Mapping[int, Position], after: Position) -> Position | None:
    """Finds the first position after `after` whose key is above all earlier keys."""
    highest = max((key for key, first in firsts.items() if first <= after), default=0)
    return min(
        (first for key, first in firsts.items() if key > highest and first > after),
        default=None,
    )
