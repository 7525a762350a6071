"""Segment evidence looks for errors in each segment of a canary's traffic (statistics.md §2.13)
and weighs what it finds with the evidence of all units.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from harness.domain.canary.guardrails import FailureTally
from harness.domain.canary.observation import ObservationBlock
from harness.domain.canary.segments import SEGMENTS
from harness.domain.proposals.policy import CanaryPolicy
from harness.gate.arrays import Floats, np
from harness.gate.logspace import log_mean_rows
from harness.gate.online.evidence_paths import RULES, counts_path, pool_returned
from harness.gate.online.segment_harm import segmented_errors

# Each segment has this part of the segments' share; what is left over is for later ones, so
# that a new segment changes no other's weight.
SLOTS: Final = 32


class _Counted(NamedTuple):
    """A block's failures in one segment. share: planned, of the canary; 0 for Fisher's rule.

    back: some of the block's callers had come back.
    """

    place: int
    tally: FailureTally
    share: float
    back: bool


def mix_segments(
    general: Floats, blocks: Sequence[ObservationBlock], policy: CanaryPolicy
) -> Floats:
    """Computes log e of errors after each block: a weighted mean of the e-value of all units,
    `general`, and of those of the segments.
    """
    share = policy.segment_share
    if not share:
        return general
    counted = _count_failures(blocks, policy)
    part = math.log(share / SLOTS)
    rows = [general + math.log(1.0 - share)]
    rows += [
        _segment_path(counted[segment], len(blocks), policy) + part
        for segment in SEGMENTS
        if segment in counted
    ]
    # A segment in which nothing failed has an e-value of 1.
    rows.append(np.full(len(blocks), part + math.log(SLOTS - len(counted))))
    return log_mean_rows(rows) + math.log(len(rows))


def _count_failures(
    blocks: Sequence[ObservationBlock], policy: CanaryPolicy
) -> Mapping[str, list[_Counted]]:
    """Lists the blocks with failures in each segment. A returning caller's segment may depend
    on what its arm did to it before: there no planned share holds within a segment.
    """
    counted = defaultdict(list)
    pools = policy.unit.counts_keys and RULES[policy.evidence].pools_segments
    for place, block in enumerate(blocks):
        errors = segmented_errors(block)
        if errors is None:
            continue
        coins = policy.unit.counts_keys and block.is_never_seen
        share = block.weight_bps / 10_000 if coins or pools else 0.0
        for name, count in errors.segments.items():
            # A merged block needs its units without a failure too.
            if name in SEGMENTS and (count.failures or (pools and not coins)):
                tally = FailureTally(*count)
                counted[name].append(_Counted(place, tally, share, back=not coins))
    if not pools:
        return counted
    merged = {name: _merge(of_segment, policy) for name, of_segment in counted.items()}
    return {name: of_segment for name, of_segment in merged.items() if of_segment}


def _merge(of_segment: Sequence[_Counted], policy: CanaryPolicy) -> list[_Counted]:
    """Merges a segment's small blocks of callers who came back (statistics.md §2.11)."""
    tallies = pool_returned(
        [counted.tally for counted in of_segment],
        [counted.share for counted in of_segment],
        [counted.back for counted in of_segment],
        fewest=RULES[policy.evidence].fewest,
    )
    return [
        counted._replace(tally=tally)
        for counted, tally in zip(of_segment, tallies, strict=True)
        if tally is not None and tally.failures
    ]


def _segment_path(found: Sequence[_Counted], blocks: int, policy: CanaryPolicy) -> Floats:
    path = counts_path(
        [counted.tally for counted in found],
        policy.rho,
        rule=policy.evidence,
        shares=[counted.share for counted in found],
    )
    after_each = np.concatenate([[0.0], path])
    places = [counted.place for counted in found]
    return after_each[np.searchsorted(places, np.arange(blocks), side="right")]
