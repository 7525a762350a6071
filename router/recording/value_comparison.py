"""Compares the arms' values of one guardrail in a block: by ranks, and by bets on the capped
mean if the rollout has a cap.

Costs and times are compared as if both arms had equal use of the prompt cache. The formulas are
in `harness.gate.online.guardrails`, `capped_sums` and `prompt_cache`. Pure.
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
from router.recording.scored_exposures import CACHED_TIMES, LedgerExposure

# Values that are lower bounds without a provider's count.
_OF_TOKENS: Final = frozenset({Guardrail.OUTPUT_TOKENS, Guardrail.COST_PER_SUCCESS})
_CACHED: Final = CACHED_TIMES | {Guardrail.COST_PER_SUCCESS}


class ComparedValues(NamedTuple):
    """One guardrail's ranks and bets in a block, with figures for texts."""

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
        MeasuredExposure(exposure.canary, *_values(exposure, guardrail, cached_share))
        for exposure in exposures
    ]
    found = rank_block(
        measured,
        guardrail=guardrail,
        tolerated=tolerated,
        block=block,
    )
    level = found.level
    if level is not None:
        level = replace(level, cache=_cache_levels(exposures, measured, guardrail))
    bounded = [exposure.canary for exposure in measured if exposure.bounded]
    bounds = ArmSplit(len(bounded), sum(bounded))
    if cap is None:
        return ComparedValues(found.u, level, bounds)
    usual = cap / CAP_TIMES
    sums = [
        CappedExposure(
            exposure.canary, usual if _failed(exposure, guardrail) else _capped(value.value)
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
    return ComparedValues(found.u, level, bounds, bets, CappedTotals.from_exposures(sums, cap))


def _failed(exposure: LedgerExposure, guardrail: Guardrail) -> bool:
    """Tells whether a request failed, so that it has no value for the mean.

    It counts with the incumbent's usual mean in both arms: the guardrail of errors compares
    failures, also with the incumbent's usual rate, and a few failures with the cap would decide
    the mean alone.
    """
    return not exposure.lost and exposure.reading(guardrail) is Reading.BAD


def _capped(value: float | None) -> float:
    return math.inf if value is None else value


def _values(
    exposure: LedgerExposure,
    guardrail: Guardrail,
    cached_share: float,
) -> tuple[float | None, float | None, bool]:
    """Returns the value to compare, the measured value, and whether it is a lower bound.

    None for the compared value means worse than any value. A value that the end cut short is a
    lower bound: it counts for the canary, and for the incumbent it is worse than any value, so
    that neither is evidence against the canary.
    """
    reading = exposure.reading(guardrail)
    if exposure.values is None or reading is Reading.BAD:
        # A missing value is not evidence against the canary.
        return 0.0 if exposure.lost and exposure.canary else None, None, False
    bounded = reading is Reading.CENSORED or (
        exposure.values.bounded and guardrail in _OF_TOKENS
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


def _cache_levels(
    exposures: Sequence[LedgerExposure],
    measured: Sequence[MeasuredExposure],
    guardrail: Guardrail,
) -> CacheLevels | None:
    if guardrail not in _CACHED:
        return None
    use = ArmCacheUse()
    use.add(cache_uses(exposures))
    compared = mean_levels(exposure[:2] for exposure in measured if not exposure.bounded)
    canary = _opened_share(exposures, guardrail, canary=True)
    control = _opened_share(exposures, guardrail, canary=False)
    if compared is None or not (use.larger or canary or control):
        return None
    shares = use.share(canary=True), use.share(canary=False)
    return CacheLevels(*shares, compared.canary, compared.control, canary, control)


def _opened_share(
    exposures: Sequence[LedgerExposure],
    guardrail: Guardrail,
    *,
    canary: bool,
) -> float:
    own = [
        exposure.values
        for exposure in exposures
        if exposure.canary is canary and exposure.values is not None
    ]
    if guardrail not in CACHED_TIMES or not own:
        return 0.0
    return sum(values.opening_s > 0.0 for values in own) / len(own)
