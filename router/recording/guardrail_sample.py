"""A guardrail sample says how one request went: measured values and faults. `summarize_block`
makes counts and ranks for each guardrail of a block's samples. Samples are small, as they go
between processes.

Whether a guardrail applies to a unit is known before its first answer (`RequestTraits`); what
was wrong with an answer, once it was sent (`AnswerFault`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from enum import IntFlag
from typing import Final, NamedTuple, Protocol, Self

from harness.domain.canary.guardrails import (
    ArmLevels,
    FailureTally,
    Guardrail,
    GuardrailKind,
    SegmentCount,
    guardrail_kind,
)
from harness.domain.canary.observation import SEGMENTS
from harness.domain.canary.prompt_cache import NO_CACHE_USE, ArmCacheUse, CacheLevels, CacheUse
from harness.domain.canary.ranking import MIN_CONTROLS, MeasuredUnit, mean_levels, rank_block


class RequestTraits(IntFlag):
    """What a request's answer can be judged by, as is known from the request alone."""

    WORDS = 1  # it is to be answered in words: no embedding
    STREAMS = 2
    JSON = 4
    TOOLS = 8
    PRICED = 16  # both arms' targets have a price
    JUDGED = 32  # drawn for the judge


# A unit's segments stand above its traits: a bit for each of `SEGMENTS`.
SEGMENTS_FROM: Final = 8


class AnswerFault(IntFlag):
    """What was wrong with an answer that came."""

    TRUNCATED = 1
    REFUSED = 2
    JSON = 4
    TOOLS = 8
    FEEDBACK = 16
    JUDGED = 32  # found bad by the judge, or without a verdict


# As plain numbers: the flags' own arithmetic would cost more than all the rest.
NEEDS: Final[Mapping[Guardrail, int]] = {
    Guardrail.LATENCY: 0,
    Guardrail.TIME_TO_FIRST_TOKEN: RequestTraits.STREAMS.value,
    Guardrail.INTER_TOKEN_LATENCY: RequestTraits.STREAMS.value,
    Guardrail.OUTPUT_TOKENS: RequestTraits.WORDS.value,
    Guardrail.TRUNCATION: RequestTraits.WORDS.value,
    Guardrail.REFUSALS: RequestTraits.WORDS.value,
    Guardrail.JSON_VALIDITY: RequestTraits.JSON.value,
    Guardrail.TOOL_VALIDITY: RequestTraits.TOOLS.value,
    Guardrail.COST_PER_SUCCESS: RequestTraits.PRICED.value,
    Guardrail.FEEDBACK: 0,
    Guardrail.JUDGE: RequestTraits.JUDGED.value,
}
FAULTS: Final[Mapping[Guardrail, int]] = {
    Guardrail.TRUNCATION: AnswerFault.TRUNCATED.value,
    Guardrail.REFUSALS: AnswerFault.REFUSED.value,
    Guardrail.JSON_VALIDITY: AnswerFault.JSON.value,
    Guardrail.TOOL_VALIDITY: AnswerFault.TOOLS.value,
    Guardrail.FEEDBACK: AnswerFault.FEEDBACK.value,
    Guardrail.JUDGE: AnswerFault.JUDGED.value,
}


_CACHED_TIMES: Final = frozenset({Guardrail.LATENCY, Guardrail.TIME_TO_FIRST_TOKEN})
_CACHED: Final = _CACHED_TIMES | {Guardrail.COST_PER_SUCCESS}


class SampleValues(NamedTuple):
    """Holds one request's values in seconds, tokens and US dollars. None: it failed."""

    latency: float | None = None
    time_to_first_token: float | None = None
    inter_token_latency: float | None = None
    output_tokens: float | None = None
    cost_per_success: float | None = None
    cache: CacheUse = NO_CACHE_USE
    opening_s: float = 0.0  # of the times, what the provider's connection took to open

    def value_for(self, guardrail: Guardrail) -> float | None:
        value: float | None = getattr(self, guardrail.value)
        return value

    def compared_value(self, guardrail: Guardrail, cached_share: float) -> float | None:
        """Returns the value that is compared with the other arm's: the cost as if that share of
        the input had come from the prompt cache, the times as if none had, over a connection
        that stood.
        """
        value = self.value_for(guardrail)
        if value is None:
            return None
        if guardrail is Guardrail.COST_PER_SUCCESS:
            return self.cache.cost_at(cached_share, value)
        if guardrail not in _CACHED_TIMES:
            return value
        return max(0.0, value + self.cache.saved_s - self.opening_s)


class GuardrailSample(NamedTuple):
    """Says how one request went, for the guardrails."""

    values: SampleValues
    bad: int = 0  # of `AnswerFault`; 0 for a request that failed

    @property
    def plain(self) -> tuple[float | int | None, ...]:
        *values, cache, opening_s = self.values
        return (*values, *cache, opening_s, self.bad)

    @classmethod
    def from_plain(cls, plain: Sequence[float | None]) -> Self:
        total, first, between, tokens, cost, *numbers = plain
        given, cached, worth_usd, saved_s, opening_s, bad = (number or 0 for number in numbers)
        cache = CacheUse(int(given), int(cached), worth_usd, saved_s)
        values = SampleValues(total, first, between, tokens, cost, cache, opening_s)
        return cls(values, int(bad))


class CompletedUnit(Protocol):
    """A unit whose block is complete. lost: no outcome came."""

    canary: bool
    failed: bool
    traits: int
    bad: int
    values: SampleValues | None

    @property
    def lost(self) -> bool: ...


class BlockFindings(NamedTuple):
    counts: Mapping[Guardrail, FailureTally]
    ranks: Mapping[Guardrail, tuple[float, ...]]
    levels: Mapping[Guardrail, ArmLevels]


NO_FINDINGS: Final = BlockFindings({}, {}, {})


# An expected value of the smaller arm with the controls that it needs.
_RANKED_TOGETHER: Final = MIN_CONTROLS + 1


class RankedUnits(NamedTuple):
    """Holds units that are ranked together. cached_share: of the input tokens, at which their
    costs are compared.
    """

    units: Sequence[CompletedUnit] = ()
    cached_share: float = 0.0


class RankPool:
    """Keeps the units of small blocks until there are enough to rank together.

    Their costs are compared at the larger of both arms' shares of cached tokens so far: known
    from the units before them, so that a unit has no part in how it is compared.

    How many are enough is known from the share alone, so that no arm and no value decides who
    is compared with whom. most: units that are always enough, of a block.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._part: object = None
        self._kept: list[CompletedUnit] = []
        self._cache = ArmCacheUse()

    def take(self, units: Sequence[CompletedUnit], part: object, share: float) -> RankedUnits:
        """Adds a block's units and returns those to be ranked now; none while they are too few.

        part: what is compared within itself alone: a period at one weight. share: the canary's.
        """
        if part != self._part:
            self._part, self._kept = part, []
        self._kept += units
        smaller = min(share, 1.0 - share)
        if len(self._kept) < min(self._most, _RANKED_TOGETHER / max(smaller, 1e-9)):
            return RankedUnits()
        together, self._kept = self._kept, []
        larger = self._cache.larger
        self._cache.add(_cache_uses(together))
        # The first ones are compared at the share of all of them.
        return RankedUnits(together, self._cache.pooled if larger is None else larger)

    def forget(self) -> None:
        """Forgets the units that were kept: they are ranked with no others any more."""
        self._kept = []


def summarize_block(
    units: Sequence[CompletedUnit],
    tolerated: Mapping[Guardrail, float],
    block: tuple[str, str, int],
    ranked: RankedUnits,
) -> BlockFindings:
    """Computes what each guardrail counted or measured in a complete block.

    units: all of it, in the order of admission. tolerated: of the guardrails that are on.
    block: its rollout, worker and sequence. ranked: units whose values are ranked now, of this
    block and of those before it.
    """
    counts: dict[Guardrail, FailureTally] = {}
    ranks: dict[Guardrail, tuple[float, ...]] = {}
    levels: dict[Guardrail, ArmLevels] = {}
    for guardrail, ratio in tolerated.items():
        needs = NEEDS[guardrail]
        counted = guardrail_kind(guardrail) is GuardrailKind.COUNTS
        completed_units = [
            unit
            for unit in (units if counted else ranked.units)
            if unit.traits & needs == needs
        ]
        if not completed_units:
            continue
        if counted:
            counts[guardrail] = _tally(completed_units, FAULTS[guardrail])
            continue
        measured = [
            MeasuredUnit(unit.canary, *_values(unit, guardrail, ranked.cached_share))
            for unit in completed_units
        ]
        found = rank_block(measured, guardrail=guardrail, tolerated=ratio, block=block)
        if found.u:
            ranks[guardrail] = found.u
        if found.level is not None:
            cache = _cache_levels(completed_units, measured, guardrail)
            levels[guardrail] = replace(found.level, cache=cache)
    return BlockFindings(counts, ranks, levels)


def count_segments(units: Iterable[CompletedUnit]) -> dict[str, SegmentCount]:
    """Counts a complete block's units and errors by segment; empty where none were noted."""
    sums: dict[int, list[int]] = {}
    for unit in units:
        failed, bits = unit.failed or unit.lost, unit.traits >> SEGMENTS_FROM
        while bits:
            bit = bits & -bits
            bits -= bit
            count = sums.setdefault(bit.bit_length() - 1, [0, 0, 0, 0])
            count[0] += 1
            count[1] += unit.canary
            count[2] += failed
            count[3] += failed and unit.canary
    return {SEGMENTS[n].value: SegmentCount(*sums[n]) for n in sorted(sums)}


def _values(
    unit: CompletedUnit, guardrail: Guardrail, cached_share: float
) -> tuple[float | None, float | None]:
    """Returns the value that is compared, and the one that was observed."""
    if unit.values is None:
        # What never came speaks against no canary.
        return 0.0 if unit.lost and unit.canary else None, None
    compared = unit.values.compared_value(guardrail, cached_share)
    return compared, unit.values.value_for(guardrail)


def _cache_uses(units: Iterable[CompletedUnit]) -> Iterator[tuple[bool, CacheUse]]:
    return ((unit.canary, unit.values.cache) for unit in units if unit.values is not None)


def _cache_levels(
    units: Sequence[CompletedUnit], measured: Sequence[MeasuredUnit], guardrail: Guardrail
) -> CacheLevels | None:
    """Computes what the prompt cache and the opening of connections did to a guardrail's
    values; None where they did nothing.
    """
    if guardrail not in _CACHED:
        return None
    use = ArmCacheUse()
    use.add(_cache_uses(units))
    compared = mean_levels(unit[:2] for unit in measured)
    canary, control = (_opened_share(units, guardrail, canary=arm) for arm in (True, False))
    if compared is None or not (use.larger or canary or control):
        return None
    shares = use.share(canary=True), use.share(canary=False)
    return CacheLevels(*shares, compared.canary, compared.control, canary, control)


def _opened_share(
    units: Sequence[CompletedUnit], guardrail: Guardrail, *, canary: bool
) -> float:
    """Computes for which share of an arm's answers a connection was opened."""
    own = [unit.values for unit in units if unit.canary is canary and unit.values is not None]
    if guardrail not in _CACHED_TIMES or not own:
        return 0.0
    return sum(values.opening_s > 0.0 for values in own) / len(own)


def _tally(units: Iterable[CompletedUnit], bad: int) -> FailureTally:
    """A unit that no outcome came of is among the failures, in both arms alike."""
    units_, canary, failures, canary_failures = 0, 0, 0, 0
    for unit in units:
        failed = unit.lost or bool(unit.bad & bad)
        units_ += 1
        canary += unit.canary
        failures += failed
        canary_failures += failed and unit.canary
    return FailureTally(units_, canary, failures, canary_failures)
