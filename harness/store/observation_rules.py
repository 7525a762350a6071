"""Checks what routers report before it is stored: blocks of observations, traffic, spend,
failovers, captured requests and tallies of shadows.
"""

import math
from dataclasses import asdict
from functools import partial
from typing import Final

from harness.domain.canary.guardrails import FailureTally, Guardrail
from harness.domain.canary.observation import NeverSeen, ObservationBlock, TrafficMinute
from harness.domain.canary.prompt_cache import CacheLevels
from harness.domain.content_hash import canonical_json
from harness.domain.errors import InputError
from harness.domain.privacy.capture import CapturedRequest
from harness.domain.reliability.failover import Failover
from harness.domain.reliability.spend import KeySpend
from harness.domain.routing.table import BUCKETS
from harness.domain.shadow import ShadowTally
from harness.store.schema.traffic_sums import COUNTS

TRAFFIC_KEY: Final = ("route", "minute", "worker", "arm", "target", "revision")
TRAFFIC_SUMS: Final = (*COUNTS, "cost_usd")
TOTAL_KEY: Final = ("route", "arm", "target")
SPEND_SUMS: Final = ("requests", "tokens", "cost_usd", "unpriced")


def check_block(block: ObservationBlock) -> None:
    """Checks that the counts of a block do not contradict one another. Raises InputError."""
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
    """Never-seen units are some of the block's, with some of its failures."""
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
    """Tells whether the tally covers all of these errors."""
    return tally is None or asdict(errors).items() <= asdict(tally).items()


def _is_part(block: ObservationBlock, tally: FailureTally) -> bool:
    """A guardrail applies to some of the block's units."""
    control = block.units - block.canary_units
    return (
        tally.fits
        and tally.canary <= block.canary_units
        and tally.units - tally.canary <= control
    )


def check_traffic(traffic: TrafficMinute) -> None:
    """Checks the figures of a minute of traffic. Raises InputError for a negative or infinite
    one.
    """
    check_amounts(
        f"traffic of route {traffic.route!r} at {traffic.minute.isoformat()}",
        **{name: getattr(traffic, name) for name in TRAFFIC_SUMS},
    )


def check_spend(spend: KeySpend) -> None:
    """Checks the figures of what a key spent. Raises InputError for a negative or infinite
    one.
    """
    check_amounts(
        f"what key {spend.key} spent on {spend.day.isoformat()}",
        **{name: getattr(spend, name) for name in SPEND_SUMS},
    )


def check_shadow_tally(tally: ShadowTally) -> None:
    """Checks the figures of a shadow's tally. Raises InputError for a negative or infinite
    figure.
    """
    check_amounts(
        f"shadow {tally.shadow} of worker {tally.worker}", **tally.counts, **tally.sums
    )


def check_failover(row: Failover) -> None:
    """Checks the figures of a failover. Raises InputError for one out of its range."""
    names = ("attempts", "latency_ms", "body_bytes", "messages", "tools")
    figures = {name: getattr(row, name) for name in names}
    check_amounts(f"failover {row.number} of worker {row.worker}", **figures)


def check_amounts(where: str, **figures: float | None) -> None:
    """Checks that every figure is finite and not negative; else raises InputError."""
    for name, figure in figures.items():
        if figure is not None and not (figure >= 0 and math.isfinite(figure)):
            raise InputError(f"{where}: {name} is {figure}; it must be finite and not negative")


def check_captured(new: CapturedRequest) -> None:
    """Checks a captured request before it is stored. Raises InputError for what the database
    refuses, and for content that is no JSON.
    """
    if not (1 <= new.share_bps <= BUCKETS and new.expires_at > new.at and len(new.rules) == 64):
        raise InputError(f"{new.id}: a captured request has a share, an end and its rules")
    try:
        canonical_json(new.content)
    except (ValueError, TypeError):
        raise InputError(f"{new.id}: its content is no JSON") from None
