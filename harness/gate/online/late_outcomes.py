"""Late outcomes: a caller's window and feedback become known after the caller's block.

A router sends them in a block of their own, `ObservationBlock.late_of` (statistics.md §2.19).
If the router's process ends before, the windows of its callers are lost. `enter_lost_windows`
counts them as missing, and never leaves them out. `compare_requests` tells whether the callers
of one arm send more requests in their windows.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import accumulate
from struct import Struct
from typing import Final, NamedTuple

from harness.frame.formatting import add_seconds, format_number, format_span
from harness.gate.online.guardrails import ArmSplit, Guardrail, WindowTally
from harness.gate.online.observation import ObservationBlock
from harness.gate.policy import CanaryPolicy

# A difference of the requests per caller is beyond chance from this many standard errors on.
BEYOND_CHANCE: Final = 4.0
# How long a router may need to report windows that are known, in seconds.
REPORT_S: Final = 60.0
# The fewest callers of an arm whose requests are compared.
_FEWEST_CALLERS: Final = 20


def find_windows(block: ObservationBlock) -> WindowTally | None:
    """Returns the windows that a block counts; None if it counts none."""
    tally = block.counts.get(Guardrail.CALLER_ERRORS)
    return tally if isinstance(tally, WindowTally) else None


def enter_lost_windows(
    blocks: Iterable[ObservationBlock], policy: CanaryPolicy
) -> list[ObservationBlock]:
    """Returns the blocks, with the windows that never arrived added as missing.

    Args:
        blocks: of the whole rollout, in the order of number.

    Windows are lost if they have not arrived `missing_s` and REPORT_S after they should have
    been known. The next block of callers that closes after this time counts them as missing,
    and their own block no longer promises windows. Windows that arrive later do not count.
    """
    # By router and sequence: when the windows are lost, and their block's place.
    due: dict[tuple[str, int], tuple[datetime, int]] = {}
    entered: list[ObservationBlock] = []
    for block in blocks:
        changed = block
        if block.late_of:
            place = (block.worker, block.late_of)
            if find_windows(block) and due.pop(place, None) is None:
                changed = replace(block, counts={}, by_key={}, never_seen=None)
        else:
            lost = [place for place, (at, _) in due.items() if at < block.closed_at]
            promised = [due.pop(place)[1] for place in lost]
            changed = _add_lost_windows(block, [entered[number] for number in promised])
            for number in promised:
                entered[number] = replace(entered[number], windows_known_s=0.0)
            if block.windows_known_s:
                known_s = block.windows_known_s + policy.missing_s + REPORT_S
                due[block.worker, block.sequence] = (
                    add_seconds(block.closed_at, known_s),
                    len(entered),
                )
        entered.append(changed)
    return entered


class WindowWait(NamedTuple):
    """How many callers with a known window a step lacks, and how long the missing windows take.

    left_s: in seconds from now; 0 if the routers are late.
    """

    callers: int = 0
    left_s: float = 0.0

    @property
    def text(self) -> str:
        """Describes the wait; empty without one."""
        if not self.callers:
            return ""
        left = "the routers report them next"
        if self.left_s > 0.0:
            left = f"{format_span(math.ceil(self.left_s))} are left"
        return f"The step waits until the windows of its callers are known: {left}"


NO_WAIT: Final = WindowWait()


def await_windows(
    blocks: Iterable[ObservationBlock],
    weight_bps: int,
    wanted: int,
    known: int,
    now: datetime,
) -> WindowWait:
    """Returns the wait for the windows of `wanted` canary callers at a share.

    Args:
        known: how many of them are known.
        blocks: of the whole rollout, with enough callers.
    """
    ends = sorted(
        (add_seconds(block.closed_at, block.windows_known_s), block.canary_units)
        for block in blocks
        if block.weight_bps == weight_bps and not block.late_of
    )
    callers = accumulate(exposures for _, exposures in ends)
    due = [at for (at, _), number in zip(ends, callers, strict=True) if number >= wanted]
    left_s = (due[0] - now).total_seconds() if due else 0.0
    return WindowWait(wanted - max(0, known), max(0.0, left_s))


def _add_lost_windows(
    block: ObservationBlock, promised: Sequence[ObservationBlock]
) -> ObservationBlock:
    """Adds the windows of the promised blocks to a block, all of them missing."""
    if not promised:
        return block
    lost = ArmSplit(
        sum(other.units for other in promised),
        sum(other.canary_units for other in promised),
    )
    tally = WindowTally(*lost, *lost, missing=lost)
    counts = {Guardrail.CALLER_ERRORS: tally}
    new = block.never_seen
    if new is not None and new.counts is not None:
        new = replace(new, counts={**new.counts, **counts})
    return replace(block, counts={**block.counts, **counts}, never_seen=new)


@dataclass(frozen=True, slots=True)
class WindowRequests:
    """Counts the callers with a known window, and their requests in it, by arm.

    deviation: the difference of the arms' means in standard errors; 0 for too few callers.
    """

    canary: int = 0
    control: int = 0
    canary_requests: int = 0
    control_requests: int = 0
    deviation: float = 0.0

    @property
    def is_beyond_chance(self) -> bool:
        return abs(self.deviation) >= BEYOND_CHANCE

    @property
    def text(self) -> str:
        """Describes the means, and a difference beyond chance; empty without callers."""
        if not (self.canary and self.control):
            return ""
        canary = format_number(self.canary_requests / self.canary, 3)
        control = format_number(self.control_requests / self.control, 3)
        means = f"requests per caller in the window: candidate {canary}, incumbent {control}"
        if not self.is_beyond_chance:
            return means
        more = "more" if self.deviation > 0.0 else "fewer"
        return (
            f"{means}. The candidate's callers send {more} requests, beyond chance, so they "
            f"have {more} chances of an error"
        )


def compare_requests(blocks: Iterable[ObservationBlock]) -> WindowRequests | None:
    """Compares how many requests the callers of both arms send in their windows; None without
    windows.

    The deviation is Welch's statistic of the two means, from the sums of squares.
    """
    tallies = [tally for block in blocks if (tally := find_windows(block)) is not None]
    if not tallies:
        return None
    callers = _sum_splits(
        ArmSplit(tally.units - tally.missing.failures, tally.canary - tally.missing.canary)
        for tally in tallies
    )
    requests = _sum_splits(tally.requests for tally in tallies)
    squares = _sum_splits(tally.squares for tally in tallies)
    arms = (
        (callers.canary, requests.canary, squares.canary),
        (
            callers.failures - callers.canary,
            requests.failures - requests.canary,
            squares.failures - squares.canary,
        ),
    )
    deviation = 0.0
    if all(number >= _FEWEST_CALLERS for number, _, _ in arms):
        (canary, canary_variance), (control, control_variance) = (
            _mean_and_variance(*arm) for arm in arms
        )
        error = math.sqrt(canary_variance + control_variance)
        deviation = (canary - control) / error if error else 0.0
    return WindowRequests(arms[0][0], arms[1][0], arms[0][1], arms[1][1], deviation)


def _mean_and_variance(number: int, total: int, squares: int) -> tuple[float, float]:
    """Returns a mean, and the variance of this mean."""
    mean = total / number
    return mean, max(0.0, squares / number - mean * mean) / (number - 1)


def _sum_splits(splits: Iterable[ArmSplit]) -> ArmSplit:
    found = list(splits)
    return ArmSplit(sum(s.failures for s in found), sum(s.canary for s in found))


class FailedTurn(NamedTuple):
    """A failed request of a caller. at: when it arrived, in seconds since 1970."""

    fingerprint: int
    at: float
    canary: bool


class FailedTurns(NamedTuple):
    """Failures that routers wrote. cursor: the number of the last ones."""

    cursor: int
    turns: Sequence[FailedTurn] = ()


_TURN_FORMAT: Final = Struct(">Qd?")


def pack_turns(turns: Iterable[FailedTurn]) -> bytes:
    """Writes failures as bytes, which `unpack_turns` reads."""
    return b"".join(_TURN_FORMAT.pack(*turn) for turn in turns)


def unpack_turns(packed: bytes) -> list[FailedTurn]:
    """Reads failures; ignores an incomplete one at the end."""
    whole = len(packed) - len(packed) % _TURN_FORMAT.size
    return [FailedTurn(*turn) for turn in _TURN_FORMAT.iter_unpack(packed[:whole])]
