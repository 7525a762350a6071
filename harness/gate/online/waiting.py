"""How long callers wait for output, and when a caller who leaves counts as harm: after a wait
that is longer than 99 % of the incumbent's waits (statistics.md §2.15).

The router observes the whole length of a wait that output ended. If the caller leaves, the
router only observes that the output takes longer: the wait is censored. Kaplan and Meier's
estimate (1958) uses both, so that the callers' patience does not shorten the incumbent's waits.

`WaitCounts` counts waits in bins of equal ratio. `count_waits` enters one request's waits,
`merge_waits` adds up counts, and `find_limits` computes the limits.
"""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import partial
from typing import Final, NamedTuple

from harness.gate.online.outcome import WaitLimits


class WaitKind(StrEnum):
    """What a caller waits for. The values are stored, and name `WaitLimits`' fields."""

    FIRST = "first"  # a plain request: the answer
    STREAM_FIRST = "stream_first"  # a stream: its first output
    GAP = "gap"  # a stream: its next output


# By `WaitKind` for waits that output ended, and with LEFT for waits that the caller ended: the
# number of waits by bin.
WaitCounts = Mapping[str, Mapping[int, int]]
LEFT: Final = "_left"
NO_WAITS: Final[WaitCounts] = {}
# The waits in bin k are longer than SHORTEST_S · RATIO^(k - 1), and at most SHORTEST_S ·
# RATIO^k.
SHORTEST_S: Final = 0.01
LONGEST_S: Final = 86_400.0
RATIO: Final = 1.02
_BINS: Final = math.ceil(math.log(LONGEST_S / SHORTEST_S, RATIO))
# The upper ends of all bins but the last. Despite rounding, a wait at an end is in this bin.
_ENDS: Final = tuple(SHORTEST_S * RATIO ** (number + 1e-9) for number in range(_BINS))
# The share of the incumbent's waits that is longer than the limit.
LONGER_SHARE: Final = 0.01
# A 99 % quantile needs at least 100 answers.
MIN_ANSWERS: Final = 100
# The limit with fewer than MIN_ANSWERS answers, unless the route's own limit for the first
# output is shorter.
UNKNOWN_S: Final = 10.0


class RequestWaits(NamedTuple):
    """One request's waits in seconds.

    first_s: until the first output, or until a plain request's answer; None if there was no
    output. gap_s: the longest wait between two outputs. left_s: the wait that the caller ended
    by leaving; 0 if the caller did not leave.
    """

    streamed: bool
    first_s: float | None
    gap_s: float = 0.0
    left_s: float = 0.0


def wait_bin(seconds: float) -> int:
    """Returns the bin of a wait."""
    return bisect_left(_ENDS, seconds)


def longest_in_bin(number: int) -> float:
    """Returns the upper end of a bin in seconds."""
    return float(SHORTEST_S * RATIO**number)


def count_bins(waits_s: Iterable[float]) -> Mapping[int, int]:
    """Counts waits in seconds by bin."""
    # Without a Python call for each wait: a router counts all requests.
    return dict(Counter(map(partial(bisect_left, _ENDS), waits_s)))


def count_waits(requests: Iterable[RequestWaits]) -> WaitCounts:
    """Counts the waits of requests.

    A stream has one wait between outputs: the longest that ended, or the wait that the caller
    ended if this one was longer.
    """
    waits_s: dict[str, list[float]] = {}
    for streamed, first_s, gap_s, left_s in requests:
        first = WaitKind.STREAM_FIRST if streamed else WaitKind.FIRST
        if first_s is None:
            if left_s > 0.0:
                waits_s.setdefault(first.value + LEFT, []).append(left_s)
            continue
        waits_s.setdefault(first.value, []).append(first_s)
        if left_s > gap_s:
            waits_s.setdefault(WaitKind.GAP.value + LEFT, []).append(left_s)
        elif gap_s > 0.0:
            waits_s.setdefault(WaitKind.GAP.value, []).append(gap_s)
    return {key: count_bins(values) for key, values in waits_s.items()}


def merge_waits(counts: Iterable[WaitCounts]) -> WaitCounts:
    """Adds up counts."""
    merged: dict[str, dict[int, int]] = {}
    for one in counts:
        for key, bins in one.items():
            sums = merged.setdefault(key, {})
            for number, waits in bins.items():
                sums[number] = sums.get(number, 0) + waits
    return merged


def read_waits(stored: Mapping[str, Mapping[str, int]] | None) -> WaitCounts:
    """Reads counts back from JSON; a row without counts has None."""
    return {
        key: {int(number): waits for number, waits in bins.items()}
        for key, bins in (stored or {}).items()
    }


def find_limits(counts: WaitCounts, unknown: WaitLimits) -> WaitLimits:
    """Computes the limits from the incumbent's waits.

    Args:
        unknown: the limits for kinds with fewer than MIN_ANSWERS answers.
    """
    return WaitLimits(
        find_limit(counts, WaitKind.FIRST) or unknown.first_s,
        find_limit(counts, WaitKind.STREAM_FIRST) or unknown.stream_first_s,
        find_limit(counts, WaitKind.GAP) or unknown.gap_s,
    )


def find_limit(counts: WaitCounts, kind: WaitKind) -> float | None:
    """Computes the 99th percentile of a kind's waits, in seconds.

    Source: Kaplan and Meier 1958. A wait that the caller ended counts as longer than waits in
    the same bin that output ended. If the estimated share of longer waits never falls to
    LONGER_SHARE, returns the longest wait that output ended. Returns None for fewer than
    MIN_ANSWERS of these.
    """
    ended = counts.get(kind.value, {})
    left = counts.get(kind.value + LEFT, {})
    if sum(ended.values()) < MIN_ANSWERS:
        return None
    at_risk = sum(ended.values()) + sum(left.values())
    longer = 1.0
    for number in sorted(ended.keys() | left.keys()):
        longer *= 1.0 - ended.get(number, 0) / at_risk
        if longer <= LONGER_SHARE + 1e-12:
            return longest_in_bin(number)
        at_risk -= ended.get(number, 0) + left.get(number, 0)
    return longest_in_bin(max(ended))


def leaving_share(
    counts: WaitCounts,
    kind: WaitKind,
    limit_s: float,
) -> float | None:
    """Estimates the share of callers who leave during a wait of limit_s, if no output comes.

    This is Kaplan and Meier's estimate of the callers' patience, for which output censors the
    wait. Returns None for fewer than MIN_ANSWERS answers.
    """
    ended = counts.get(kind.value, {})
    left = counts.get(kind.value + LEFT, {})
    if sum(ended.values()) < MIN_ANSWERS:
        return None
    at_risk = sum(ended.values()) + sum(left.values())
    patient = 1.0
    for number in sorted(ended.keys() | left.keys()):
        if longest_in_bin(number) > limit_s or at_risk <= 0:
            break
        # Output that comes in the same bin comes first.
        at_risk -= ended.get(number, 0)
        if left.get(number, 0):
            patient *= 1.0 - left[number] / at_risk
        at_risk -= left.get(number, 0)
    return 1.0 - patient


def limits_before(
    counts: WaitCounts,
    *,
    first_byte_s: float | None,
    first_token_s: float | None,
) -> WaitLimits:
    """Computes the limits before a rollout's first block.

    Args:
        counts: the incumbent's waits in the 24 hours before the rollout.
        first_byte_s: the route's limit for a plain answer; None without a limit.
        first_token_s: the route's limit for a stream's first output; None without a limit.
    """
    stream_s = min(first_token_s or UNKNOWN_S, UNKNOWN_S)
    unknown = WaitLimits(min(first_byte_s or UNKNOWN_S, UNKNOWN_S), stream_s, stream_s)
    return find_limits(counts, unknown)
