"""Compares the arms' values of one guardrail in a block.

It compares by ranks, and if the rollout has a cap, by bets on the capped mean. It compares
costs and times as if both arms had equal use of the prompt cache. The formulas are in
`harness.gate.online.guardrails`, `capped_sums` and `prompt_cache`. Pure.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from harness.gate.online.capped_sums import (
    CAP_TIMES,
    CappedExposure,
    CappedTotals,
    bet_on_sums,
)
from harness.gate.online.guardrails import (
    ArmLevels,
    ArmSplit,
    ExposureRule,
    Guardrail,
    MeasuredExposure,
    mean_levels,
    rank_block,
)
from harness.gate.online.outcome import Reading
from harness.gate.online.prompt_cache import (
    ArmCacheUse,
    CacheLevels,
    CacheUse,
)
from harness.gate.online.reading.scored_exposures import CACHED_TIMES, LedgerExposure

# Values that are lower bounds without a provider's count.
_TOKEN_GUARDRAILS: Final = frozenset({Guardrail.OUTPUT_TOKENS, Guardrail.COST_PER_SUCCESS})
_CACHED_GUARDRAILS: Final = CACHED_TIMES | {Guardrail.COST_PER_SUCCESS}


class ComparedValues(NamedTuple):
    """One guardrail's ranks and bets in a block, with figures for people."""

    ranks: tuple[float, ...]
    level: ArmLevels | None
    bounds: ArmSplit
    bets: tuple[float, ...] = ()
    capped: CappedTotals | None = None


def compare_values(
    exposures: Sequence[LedgerExposure],
    guardrail: Guardrail,
    rule: ExposureRule,
    block: tuple[str, str, int],
    cached_share: float,
) -> ComparedValues:
    """Compares one guardrail's values by ranks, and by bets on the capped mean with a cap."""
    tolerated = rule.guardrails[guardrail]
    cap = rule.caps.get(guardrail)
    measured = [
        MeasuredExposure(exposure.canary, *_find_values(exposure, guardrail, cached_share))
        for exposure in exposures
    ]
    ranking = rank_block(
        measured,
        guardrail=guardrail,
        tolerated=tolerated,
        block=block,
    )
    level = ranking.level
    if level is not None:
        level = replace(level, cache=_compute_cache_levels(exposures, measured, guardrail))
    bounded = [exposure.canary for exposure in measured if exposure.bounded]
    bounds = ArmSplit(len(bounded), sum(bounded))
    if cap is None:
        return ComparedValues(ranking.u, level, bounds)
    usual_mean = cap / CAP_TIMES
    sums = [
        CappedExposure(
            exposure.canary,
            usual_mean if _has_failed(exposure, guardrail) else _fill_missing(value.value),
        )
        for exposure, value in zip(exposures, measured, strict=True)
    ]
    bets = bet_on_sums(
        sums,
        guardrail=guardrail,
        tolerated=tolerated,
        cap=cap,
        block=block,
    )
    return ComparedValues(
        ranking.u, level, bounds, bets, CappedTotals.from_exposures(sums, cap)
    )


def _has_failed(exposure: LedgerExposure, guardrail: Guardrail) -> bool:
    """Returns whether a request failed, so that it has no value for the mean.

    In both arms, it then counts with the incumbent's usual mean. If it counted with the cap, a
    few failures alone would decide the mean. The guardrail on errors compares failures.
    """
    return not exposure.lost and exposure.reading(guardrail) is Reading.BAD


def _fill_missing(value: float | None) -> float:
    return math.inf if value is None else value


def _find_values(
    exposure: LedgerExposure,
    guardrail: Guardrail,
    cached_share: float,
) -> tuple[float | None, float | None, bool]:
    """Returns the value to compare, the measured value, and whether it is a lower bound.

    A compared value of None is worse than any value. If the request ended early, its value is a
    lower bound. It counts for the canary as it is, and for the incumbent as worse than any
    value. So it is never evidence against the canary.
    """
    reading = exposure.reading(guardrail)
    if exposure.values is None or reading is Reading.BAD:
        # A missing value is not evidence against the canary.
        return 0.0 if exposure.lost and exposure.canary else None, None, False
    bounded = reading is Reading.CENSORED or (
        exposure.values.bounded and guardrail in _TOKEN_GUARDRAILS
    )
    if bounded and not exposure.canary:
        return None, None, True
    compared = exposure.values.compared_value(guardrail, cached_share)
    return compared, exposure.values.value_for(guardrail), bounded


def cache_uses(exposures: Iterable[LedgerExposure]) -> Iterator[tuple[bool, CacheUse]]:
    return (
        (exposure.canary, exposure.values.cache)
        for exposure in exposures
        if exposure.values is not None
    )


def _compute_cache_levels(
    exposures: Sequence[LedgerExposure],
    measured_exposures: Sequence[MeasuredExposure],
    guardrail: Guardrail,
) -> CacheLevels | None:
    if guardrail not in _CACHED_GUARDRAILS:
        return None
    use = ArmCacheUse()
    use.add(cache_uses(exposures))
    levels = mean_levels(
        exposure[:2] for exposure in measured_exposures if not exposure.bounded
    )
    canary = _compute_opened_share(exposures, guardrail, canary=True)
    control = _compute_opened_share(exposures, guardrail, canary=False)
    if levels is None or not (use.larger or canary or control):
        return None
    shares = use.share(canary=True), use.share(canary=False)
    return CacheLevels(*shares, levels.canary, levels.control, canary, control)


def _compute_opened_share(
    exposures: Sequence[LedgerExposure],
    guardrail: Guardrail,
    *,
    canary: bool,
) -> float:
    arm_values = [
        exposure.values
        for exposure in exposures
        if exposure.canary is canary and exposure.values is not None
    ]
    if guardrail not in CACHED_TIMES or not arm_values:
        return 0.0
    return sum(values.opening_s > 0.0 for values in arm_values) / len(arm_values)
