"""Checks a block of observations before it is stored: its counts must not contradict one
another.

A faulty or attacked router must not add evidence that no real traffic could cause.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Final

from harness.frame.errors import InputError
from harness.gate.online.capped_sums import SUM_LEAST
from harness.gate.online.guardrails import (
    NO_SPLIT,
    ArmSplit,
    FailureTally,
    Guardrail,
)
from harness.gate.online.observation import NeverSeen, ObservationBlock
from harness.gate.online.one_key import MAX_BLOCK_KEYS
from harness.gate.online.outcome import MISSING, split_key
from harness.gate.online.prompt_cache import CacheLevels

# The most names of `ObservationBlock.served`.
MAX_BLOCK_NAMES: Final = 9


def check_block(block: ObservationBlock) -> None:
    """Checks that a block's counts do not contradict one another. Raises InputError."""
    error_tally = FailureTally(
        block.units,
        block.canary_units,
        block.failures,
        block.canary_failures,
    )
    fits = (
        0 <= block.weight_bps <= 10_000
        and error_tally.fits
        and 0 <= block.missing <= block.units
        and block.period >= 1
        and all(map(partial(_is_part, block), block.counts.values()))
        and _is_whole(error_tally, block.counts.get(Guardrail.ERRORS))
        and all(0.0 <= rank <= 1.0 for ranks in block.ranks.values() for rank in ranks)
        and all(
            0.0 < value < math.inf
            for level in block.levels.values()
            for value in (level.canary, level.control)
        )
        and all(_fits_cache(level.cache) for level in block.levels.values())
        and _is_part_of_block(block, block.never_seen)
        and _has_fitting_outcomes(block)
        and _are_bets(block.bets.values())
        and _are_keys_part(block, block.by_key)
        and _fits_late(block)
        and all(0.0 < rate < 1.0 for rate in block.usual_rates.values())
        and all(totals.fits for totals in block.capped.values())
    )
    if not fits:
        raise InputError(
            f"block {block.sequence} of worker {block.worker}, rollout {block.rollout}: "
            f"its counts contradict one another ({block})"
        )


def _fits_cache(cache: CacheLevels | None) -> bool:
    """Tells whether shares are within 0 and 1, and levels above 0 and finite."""
    return cache is None or (
        all(
            0.0 <= share <= 1.0
            for share in (
                cache.canary_share,
                cache.control_share,
                cache.canary_opened,
                cache.control_opened,
            )
        )
        and 0.0 < cache.canary < math.inf
        and 0.0 < cache.control < math.inf
    )


def _is_part_of_block(block: ObservationBlock, new: NeverSeen | None) -> bool:
    """Tells whether the counts of never-seen keys are a possible part of the block's counts."""
    if new is None:
        return True
    part = FailureTally(new.units, new.canary_units, new.failures, new.canary_failures)
    block_counts = block.counted
    rest = FailureTally(
        block_counts.failures - new.units,
        block_counts.canary - new.canary_units,
        block.failures - new.failures,
        block.canary_failures - new.canary_failures,
    )
    return (
        part.fits
        and rest.fits
        and all(
            tally.fits
            and tally.canary <= new.canary_units
            and tally.units - tally.canary <= new.units - new.canary_units
            for tally in (new.counts or {}).values()
        )
        and all(0.0 <= u <= 1.0 for ranks in (new.ranks or {}).values() for u in ranks)
        and _are_bets((new.bets or {}).values())
        and _are_keys_part(block, new.by_key or {})
    )


def _has_fitting_outcomes(block: ObservationBlock) -> bool:
    """Tells whether the outcomes sum up to the block's exposures, and the served names to at
    most as many.

    A block without outcomes has no sum to check.
    """
    missing_outcomes = block.outcomes.get(MISSING.key, NO_SPLIT).failures
    exposures = ArmSplit(block.units, block.canary_units)
    served = _add_splits(block.served.values())
    return (
        all(map(_is_outcome, block.outcomes))
        and all(split.is_part_of(exposures) for split in block.outcomes.values())
        and (
            not block.outcomes
            or (
                _add_splits(block.outcomes.values()) == exposures
                and missing_outcomes == block.missing
            )
        )
        and all(0 <= split.canary <= split.failures for split in block.uncounted.values())
        and all(split.is_part_of(exposures) for split in block.served.values())
        and served.is_part_of(exposures)
        and len(block.served) <= MAX_BLOCK_NAMES
        and all(0.0 < limit_s < math.inf for limit_s in block.waits.values())
        and all(0 <= split.canary <= split.failures for split in block.bounds.values())
    )


def _is_outcome(key: str) -> bool:
    """Tells whether a block may count exposures under this key."""
    try:
        split_key(key)
    except ValueError:
        return False
    return True


def _add_splits(splits: Iterable[ArmSplit]) -> ArmSplit:
    listed = list(splits)
    return ArmSplit(
        sum(split.failures for split in listed), sum(split.canary for split in listed)
    )


def _are_bets(bets: Iterable[tuple[float, ...]]) -> bool:
    """Tells whether all bets are in the range of `sums_path`."""
    return all(-SUM_LEAST <= bet <= 1.0 for values in bets for bet in values)


def _are_keys_part(
    block: ObservationBlock,
    by_key: Mapping[str, Mapping[Guardrail, FailureTally]],
) -> bool:
    """Tells whether the counts by client key fit into the block's arms."""
    tallies = (tally for key_tallies in by_key.values() for tally in key_tallies.values())
    return len(by_key) <= MAX_BLOCK_KEYS and all(_is_part(block, tally) for tally in tallies)


def _is_whole(errors: FailureTally, tally: FailureTally | None) -> bool:
    """Tells whether the errors' tally has the same counts as the block."""
    return tally is None or asdict(errors).items() <= asdict(tally).items()


def _is_part(block: ObservationBlock, tally: FailureTally) -> bool:
    """Tells whether a guardrail's tally fits into the block's arms."""
    return tally.fits and ArmSplit(tally.units, tally.canary).is_part_of(block.counted)


def _fits_late(block: ObservationBlock) -> bool:
    """Tells whether the block's late counts fit. A block of late outcomes has no exposures of
    its own, and refers to an earlier block.
    """
    if not block.late_of:
        return (
            block.late_units == block.late_canary_units == 0
            and 0.0 <= block.windows_known_s < math.inf
        )
    return (
        0 < block.late_of < block.sequence
        and block.units == 0
        and 0 <= block.late_canary_units <= block.late_units
        and block.windows_known_s == 0.0
        and block.counts.keys() <= _LATE_GUARDRAILS
    )


_LATE_GUARDRAILS: Final = frozenset({Guardrail.CALLER_ERRORS, Guardrail.FEEDBACK})
