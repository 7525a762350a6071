"""Checks blocks of observations that routers report, if no CHECK of the database can."""

import math
from dataclasses import asdict
from functools import partial
from typing import Final

from harness.frame.errors import InputError
from harness.gate.online.guardrails import FailureTally, Guardrail
from harness.gate.online.observation import NeverSeen, ObservationBlock
from harness.gate.online.prompt_cache import CacheLevels
from harness.routing.records.traffic_sums import COUNTS

TRAFFIC_KEY: Final = ("route", "minute", "worker", "arm", "target", "revision")
TRAFFIC_SUMS: Final = (*COUNTS, "cost_usd")
TOTAL_KEY: Final = ("route", "arm", "target")
SPEND_SUMS: Final = ("requests", "tokens", "cost_usd", "unpriced")


def check_block(block: ObservationBlock) -> None:
    """Checks that a block's counts do not contradict one another. Raises InputError."""
    errors = FailureTally(
        block.units, block.canary_units, block.failures, block.canary_failures
    )
    fits = (
        0 <= block.weight_bps <= 10_000
        and errors.fits
        and 0 <= block.missing <= block.units
        and block.period >= 1
        and all(map(partial(_is_part, block), block.counts.values()))
        and _is_whole(errors, block.counts.get(Guardrail.ERRORS))
        and all(0.0 <= u <= 1.0 for ranks in block.ranks.values() for u in ranks)
        and all(
            0.0 < value < math.inf
            for level in block.levels.values()
            for value in (level.canary, level.control)
        )
        and all(_fits_cache(level.cache) for level in block.levels.values())
        and _is_part_of_block(block, block.never_seen)
    )
    if not fits:
        raise InputError(
            f"block {block.sequence} of worker {block.worker}, rollout {block.rollout}: "
            f"its counts contradict one another ({block})"
        )


def _fits_cache(cache: CacheLevels | None) -> bool:
    return cache is None or (
        all(
            0.0 <= share <= 1.0
            for share in (
                *(cache.canary_share, cache.control_share),
                *(cache.canary_opened, cache.control_opened),
            )
        )
        and 0.0 < cache.canary < math.inf
        and 0.0 < cache.control < math.inf
    )


def _is_part_of_block(block: ObservationBlock, new: NeverSeen | None) -> bool:
    if new is None:
        return True
    part = FailureTally(new.units, new.canary_units, new.failures, new.canary_failures)
    rest = FailureTally(
        block.units - new.units,
        block.canary_units - new.canary_units,
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
    )


def _is_whole(errors: FailureTally, tally: FailureTally | None) -> bool:
    return tally is None or asdict(errors).items() <= asdict(tally).items()


def _is_part(block: ObservationBlock, tally: FailureTally) -> bool:
    control = block.units - block.canary_units
    return (
        tally.fits
        and tally.canary <= block.canary_units
        and tally.units - tally.canary <= control
    )
