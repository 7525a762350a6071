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
    CappedTotals,
    CappedUnit,
    bet_on_sums,
)
from harness.gate.online.guardrails import (
    ArmLevels,
    ArmSplit,
    Guardrail,
    MeasuredUnit,
    UnitRule,
    mean_levels,
    rank_block,
)
from harness.gate.online.outcome import Reading
from harness.gate.online.prompt_cache import (
    ArmCacheUse,
    CacheLevels,
    CacheUse,
)
from router.recording.scored_units import CACHED_TIMES, LedgerUnit

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
    units: Sequence[LedgerUnit],
    guardrail: Guardrail,
    rule: UnitRule,
    block: tuple[str, str, int],
    cached_share: float,
) -> ComparedValues:
    """Compares one guardrail's values by ranks, and by bets on the capped mean with a cap."""
    tolerated = rule.guardrails[guardrail]
    cap = rule.caps.get(guardrail)
    measured = [
        MeasuredUnit(unit.canary, *_values(unit, guardrail, cached_share)) for unit in units
    ]
    found = rank_block(
        measured,
        guardrail=guardrail,
        tolerated=tolerated,
        block=block,
    )
    level = found.level
    if level is not None:
        level = replace(level, cache=_cache_levels(units, measured, guardrail))
    bounded = [unit.canary for unit in measured if unit.bounded]
    bounds = ArmSplit(len(bounded), sum(bounded))
    if cap is None:
        return ComparedValues(found.u, level, bounds)
    usual = cap / CAP_TIMES
    sums = [
        CappedUnit(unit.canary, usual if _failed(unit, guardrail) else _capped(value.value))
        for unit, value in zip(units, measured, strict=True)
    ]
    bets = bet_on_sums(
        sums,
        guardrail=guardrail,
        tolerated=tolerated,
        cap=cap,
        block=block,
    )
    return ComparedValues(found.u, level, bounds, bets, CappedTotals.from_units(sums, cap))


def _failed(unit: LedgerUnit, guardrail: Guardrail) -> bool:
    """Tells whether a request failed, so that it has no value for the mean.

    It counts with the incumbent's usual mean in both arms: the guardrail of errors compares
    failures, also with the incumbent's usual rate, and a few failures with the cap would decide
    the mean alone.
    """
    return not unit.lost and unit.reading(guardrail) is Reading.BAD


def _capped(value: float | None) -> float:
    return math.inf if value is None else value


def _values(
    unit: LedgerUnit,
    guardrail: Guardrail,
    cached_share: float,
) -> tuple[float | None, float | None, bool]:
    """Returns the value to compare, the measured value, and whether it is a lower bound.

    None for the compared value means worse than any value. A value that the end cut short is a
    lower bound: it counts for the canary, and for the incumbent it is worse than any value, so
    that neither is evidence against the canary.
    """
    reading = unit.reading(guardrail)
    if unit.values is None or reading is Reading.BAD:
        # A missing value is not evidence against the canary.
        return 0.0 if unit.lost and unit.canary else None, None, False
    bounded = reading is Reading.CENSORED or (unit.values.bounded and guardrail in _OF_TOKENS)
    if bounded and not unit.canary:
        return None, None, True
    compared = unit.values.compared_value(guardrail, cached_share)
    return compared, unit.values.value_for(guardrail), bounded


def cache_uses(units: Iterable[LedgerUnit]) -> Iterator[tuple[bool, CacheUse]]:
    return ((unit.canary, unit.values.cache) for unit in units if unit.values is not None)


def _cache_levels(
    units: Sequence[LedgerUnit],
    measured: Sequence[MeasuredUnit],
    guardrail: Guardrail,
) -> CacheLevels | None:
    if guardrail not in _CACHED:
        return None
    use = ArmCacheUse()
    use.add(cache_uses(units))
    compared = mean_levels(unit[:2] for unit in measured if not unit.bounded)
    canary = _opened_share(units, guardrail, canary=True)
    control = _opened_share(units, guardrail, canary=False)
    if compared is None or not (use.larger or canary or control):
        return None
    shares = use.share(canary=True), use.share(canary=False)
    return CacheLevels(*shares, compared.canary, compared.control, canary, control)


def _opened_share(
    units: Sequence[LedgerUnit],
    guardrail: Guardrail,
    *,
    canary: bool,
) -> float:
    own = [unit.values for unit in units if unit.canary is canary and unit.values is not None]
    if guardrail not in CACHED_TIMES or not own:
        return 0.0
    return sum(values.opening_s > 0.0 for values in own) / len(own)
