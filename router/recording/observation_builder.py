"""Builds observation blocks from full ledger blocks (statistics.md §2.1).

Pure but for the pools of units that wait to be ranked. Here a unit's values become counts
and ranks; keys and single values do not leave the process. Which units count is decided in
`ledger`, the formulas of ranks are in `harness.gate.online.guardrails`.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from harness.frame.failures import ArmFailure, keep_common_causes
from harness.gate.online.capped_sums import CappedTotals
from harness.gate.online.guardrails import (
    MIN_CONTROLS,
    NO_SPLIT,
    RANK_GUARDRAILS,
    ArmLevels,
    ArmSplit,
    ErrorTally,
    FailureTally,
    Guardrail,
    GuardrailKind,
    JudgeTally,
    SegmentCount,
    UnitRule,
    bets_block,
    guardrail_kind,
)
from harness.gate.online.observation import (
    SEGMENTS,
    KeyHistory,
    NeverSeen,
    ObservationBlock,
)
from harness.gate.online.one_key import (
    CALLER_DECIDED,
    MAX_BLOCK_KEYS,
    count_keys,
)
from harness.gate.online.outcome import (
    MISSING,
    OutcomeKind,
    Reading,
    WaitLimits,
)
from harness.gate.online.prompt_cache import (
    ArmCacheUse,
)
from harness.gate.online.waiting import (
    NO_WAITS,
    RequestWaits,
    WaitCounts,
    count_waits,
    find_limits,
    merge_waits,
)
from router.recording.repeated_texts import RepeatedTexts
from router.recording.scored_units import (
    FAULTS,
    NEEDS,
    SEGMENTS_FROM,
    LedgerUnit,
    OpenBlock,
)
from router.recording.value_comparison import (
    ComparedValues,
    cache_uses,
    compare_values,
)


class BlockFindings(NamedTuple):
    """What one block shows: counts of bad units, ranks of values, and levels for people.

    bounds: the ranked units whose value is a lower bound.
    """

    counts: Mapping[Guardrail, FailureTally]
    ranks: Mapping[Guardrail, tuple[float, ...]]
    levels: Mapping[Guardrail, ArmLevels]
    bounds: Mapping[Guardrail, ArmSplit]
    bets: Mapping[Guardrail, tuple[float, ...]]
    by_key: Mapping[str, Mapping[Guardrail, FailureTally]]
    capped: Mapping[Guardrail, CappedTotals]


NO_FINDINGS: Final = BlockFindings({}, {}, {}, {}, {}, {}, {})
# Enough units for one expected unit of the smaller arm, and the fewest controls.
_RANKED_TOGETHER: Final = MIN_CONTROLS + 1


class RankedUnits(NamedTuple):
    """Units to rank together. cached_share: of input tokens, for comparing costs."""

    units: Sequence[LedgerUnit] = ()
    cached_share: float = 0.0


class RankPool:
    """Keeps the units of small blocks until there are enough to rank together.

    Their costs are compared at the larger of both arms' shares of cached tokens so far.
    Earlier units determine this share, so that a unit does not influence its own comparison.

    The canary's share alone decides how many units are enough, so that no arm and no value
    decides which units are compared. most: this many units of a block are always enough.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._part: object = None
        self._kept: list[LedgerUnit] = []
        self._cache = ArmCacheUse()

    def take(
        self,
        units: Sequence[LedgerUnit],
        part: object,
        share: float,
    ) -> RankedUnits:
        """Returns the units to rank now.

        part: a period at one weight. share: the canary's share.
        """
        if part != self._part:
            self._part = part
            self._kept = []
        self._kept += units
        smaller = min(share, 1.0 - share)
        if len(self._kept) < min(self._most, _RANKED_TOGETHER / max(smaller, 1e-9)):
            return RankedUnits()
        together = self._kept
        self._kept = []
        larger = self._cache.larger
        self._cache.add(cache_uses(together))
        # The first batch is compared at its own pooled share.
        return RankedUnits(together, self._cache.pooled if larger is None else larger)

    @property
    def waits(self) -> bool:
        """Whether units wait to be ranked."""
        return bool(self._kept)

    def forget(self) -> None:
        """Drops the units that wait, because they may count again as new."""
        self._kept = []


def summarize_block(
    units: Sequence[LedgerUnit],
    rule: UnitRule,
    block: tuple[str, str, int],
    ranked: RankedUnits,
) -> BlockFindings:
    """Summarizes a complete block.

    units: in the order of admission. rule: with a tolerated ratio for each live guardrail.
    ranked: units whose values are ranked now.
    """
    counts: dict[Guardrail, FailureTally] = {}
    bets: dict[Guardrail, tuple[float, ...]] = {}
    compared: dict[Guardrail, ComparedValues] = {}
    for guardrail, ratio in rule.guardrails.items():
        needs = NEEDS[guardrail]
        kind = guardrail_kind(guardrail)
        counted = kind is GuardrailKind.COUNTS
        completed_units = [
            unit
            for unit in (units if counted else ranked.units)
            if unit.traits & needs == needs and counts_for(unit, guardrail)
        ]
        if not completed_units:
            continue
        if counted:
            counts[guardrail] = _tally(completed_units, guardrail)
        elif kind is GuardrailKind.SUMS:
            bets[guardrail] = _bets(completed_units, guardrail, ratio, block)
        else:
            found = compare_values(completed_units, guardrail, rule, block, ranked.cached_share)
            compared[guardrail] = found
            bets[guardrail] = found.bets
    capped = {name: CappedTotals.from_units((), cap) for name, cap in rule.caps.items()}
    return BlockFindings(
        counts,
        {name: one.ranks for name, one in compared.items() if one.ranks},
        {name: one.level for name, one in compared.items() if one.level is not None},
        {name: one.bounds for name, one in compared.items() if one.bounds.failures},
        {name: ys for name, ys in bets.items() if ys},
        count_clients(units, counts),
        capped | {name: one.capped for name, one in compared.items() if one.capped},
    )


def count_clients(
    units: Sequence[LedgerUnit], guardrails: Collection[Guardrail]
) -> dict[str, dict[Guardrail, FailureTally]]:
    """Counts units by client key, for the live guardrails that callers decide.

    A missing outcome counts for the canary, as in the evidence of harm.
    """
    found: dict[str, dict[Guardrail, FailureTally]] = {}
    for guardrail in CALLER_DECIDED:
        if guardrail not in guardrails:
            continue
        by_client: dict[str, list[LedgerUnit]] = {}
        for unit in units:
            if unit.client and counts_for(unit, guardrail):
                by_client.setdefault(unit.client, []).append(unit)
        for client, own in by_client.items():
            tally = _tally(own, guardrail)
            lost = sum(unit.lost and unit.canary for unit in own)
            found.setdefault(client, {})[guardrail] = tally.without(lost, canary=True)
    return count_keys(found, MAX_BLOCK_KEYS)


def _bets(
    units: Sequence[LedgerUnit],
    guardrail: Guardrail,
    margin: float,
    block: tuple[str, str, int],
) -> tuple[float, ...]:
    """Bets on the share of units whose outcome is bad for the guardrail.

    A missing outcome counts for the canary: as good in the canary, as bad in the control.
    """
    values = [(unit.canary, float(_is_bad_for_canary(unit, guardrail))) for unit in units]
    return bets_block(
        values,
        guardrail=guardrail,
        margin=margin,
        block=block,
    )


def _is_bad_for_canary(unit: LedgerUnit, guardrail: Guardrail) -> bool:
    bad = unit.reading(guardrail) is Reading.BAD
    return not unit.canary if unit.lost else bad


def counts_for(unit: LedgerUnit, guardrail: Guardrail) -> bool:
    """Returns whether the guardrail knows the unit's outcome, and its value if it ranks values.

    An answer without a value was not measured, and is no worst value.
    """
    reading = unit.reading(guardrail)
    if reading is Reading.UNKNOWN:
        return False
    if reading is Reading.BAD or guardrail not in RANK_GUARDRAILS:
        return True
    return unit.values is not None and unit.values.value_for(guardrail) is not None


def count_outcomes(units: Iterable[LedgerUnit]) -> dict[str, ArmSplit]:
    """Counts units by `ExposureOutcome.key`; the splits sum to the units."""
    return _count_arms(((unit.outcome or MISSING).key, unit.canary) for unit in units)


# The most names in `ObservationBlock.served`; rarer names are summed up.
MAX_SERVED: Final = 8
OTHER_SERVED: Final = "other"


def count_served(units: Iterable[LedgerUnit]) -> dict[str, ArmSplit]:
    """Counts units by the model that the answer names; a unit without a name is left out."""
    counted = _count_arms((unit.served, unit.canary) for unit in units if unit.served)
    ordered = sorted(counted.items(), key=lambda item: (-item[1].failures, item[0]))
    kept = dict(ordered[:MAX_SERVED])
    rare = [split for _, split in ordered[MAX_SERVED:]]
    if rare:
        known = kept.get(OTHER_SERVED, NO_SPLIT)
        rare.append(known)
        kept[OTHER_SERVED] = ArmSplit(
            sum(split.failures for split in rare),
            sum(split.canary for split in rare),
        )
    return kept


def _count_arms(named: Iterable[tuple[str, bool]]) -> dict[str, ArmSplit]:
    """Counts names in both arms and in the canary, in the order of the names."""
    pairs = list(named)
    both = Counter(name for name, _ in pairs)
    canary = Counter(name for name, in_canary in pairs if in_canary)
    return {name: ArmSplit(both[name], canary[name]) for name in sorted(both)}


def count_segments(units: Iterable[LedgerUnit]) -> dict[str, SegmentCount]:
    """Counts units and failures of both arms by segment, for reports."""
    sums: dict[int, list[int]] = {}
    for unit in units:
        failed = unit.failed or unit.lost
        bits = unit.traits >> SEGMENTS_FROM
        while bits:
            bit = bits & -bits
            bits -= bit
            count = sums.setdefault(bit.bit_length() - 1, [0, 0, 0, 0])
            count[0] += 1
            count[1] += unit.canary
            count[2] += failed
            count[3] += failed and unit.canary
    return {SEGMENTS[n].value: SegmentCount(*sums[n]) for n in sorted(sums)}


def _tally(units: Iterable[LedgerUnit], guardrail: Guardrail) -> FailureTally:
    """Counts units whose outcome the guardrail knows, and the bad ones.

    Counts a unit without an outcome as a failure, in both arms alike.
    """
    fault = FAULTS.get(guardrail, 0)
    units_ = 0
    canary = 0
    failures = 0
    canary_failures = 0
    for unit in units:
        failed = unit.reading(guardrail) is Reading.BAD or bool(unit.bad & fault)
        units_ += 1
        canary += unit.canary
        failures += failed
        canary_failures += failed and unit.canary
    return FailureTally(units_, canary, failures, canary_failures)


class ObservationBuilder:
    """Numbers and summarizes a ledger's complete blocks.

    worker: the name under which the blocks are stored.
    """

    def __init__(
        self,
        rollout: str,
        worker: str,
        rule: UnitRule,
    ) -> None:
        self.judge_usd = 0.0  # since the last block with judged units
        self._rollout = rollout
        self._worker = worker
        # Late outcomes come in blocks of their own.
        own: dict[Guardrail, float] = {
            guardrail: tolerated
            for guardrail, tolerated in rule.guardrails.items()
            if guardrail is not Guardrail.FEEDBACK
        }
        self._rule = replace(rule, guardrails=own)
        self._sequence = 0
        self._first_limits = WaitLimits(rule.first_wait_s, rule.stream_wait_s, rule.gap_wait_s)
        self._waits: WaitCounts = NO_WAITS  # of the control's units in complete blocks
        self._pool = RankPool(rule.block_size)
        self._new_pool = RankPool(rule.block_size)
        self._repeated = RepeatedTexts()

    def build(self, block: OpenBlock, units: Sequence[LedgerUnit]) -> ObservationBlock:
        """Builds the next block. block: closed. units: those that count."""
        self._sequence += 1
        # Only earlier blocks determine the limits, so that a unit does not influence its own.
        limits = find_limits(self._waits, self._first_limits)
        for unit in units:
            unit.settle(limits)
        self._waits = merge_waits((self._waits, _control_waits(units)))
        self._repeated.mark(units)
        if self._rule.keeps_ledger and not block.claimed:
            # Without a ledger, these units may count as new again, so drop their kept values.
            self._pool.forget()
            self._new_pool.forget()
        ranked = self._pool.take(units, (block.period, block.weight_bps), block.share)
        findings, errors = self._summarize(units, ranked)
        counts = dict(findings.counts)
        if (judged := counts.get(Guardrail.JUDGE)) is not None:
            spent_usd = self.judge_usd
            self.judge_usd = 0.0
            none = _split(
                unit for unit in units if unit.unjudged and counts_for(unit, Guardrail.JUDGE)
            )
            counts[Guardrail.JUDGE] = JudgeTally(*_sums(judged), none, spent_usd)
        return ObservationBlock(
            rollout=self._rollout,
            worker=self._worker,
            sequence=self._sequence,
            weight_bps=block.weight_bps,
            units=len(units),
            canary_units=sum(unit.canary for unit in units),
            failures=errors.failures,
            canary_failures=errors.canary_failures,
            missing=sum(unit.lost for unit in units),
            opened_at=block.opened_at,
            closed_at=block.closed_at,
            period=block.period,
            counts=_with_errors(counts, errors),
            ranks=findings.ranks,
            levels=findings.levels,
            bets=findings.bets,
            by_key=findings.by_key,
            never_seen=self._of_new_keys(block, units, findings) if block.claimed else None,
            outcomes=count_outcomes(units),
            uncounted={key: ArmSplit(*count) for key, count in sorted(block.uncounted.items())},
            served=count_served(units),
            waits={name: limit_s for name, limit_s in limits._asdict().items() if limit_s},
            bounds=findings.bounds,
            windows_known_s=self._windows_known_s(units),
            usual_rates=self._rule.usual_rates,
            capped=findings.capped,
        )

    @property
    def values_wait(self) -> bool:
        """Whether values of units wait to be ranked."""
        return self._pool.waits or self._new_pool.waits

    def number(self, late: ObservationBlock) -> ObservationBlock:
        """Gives a block of late outcomes the next number of the worker."""
        self._sequence += 1
        return replace(late, sequence=self._sequence)

    def _windows_known_s(self, units: Sequence[LedgerUnit]) -> float:
        has_windows = self._rule.has_windows and any(unit.has_window for unit in units)
        return self._rule.window_known_s if has_windows else 0.0

    def _summarize(
        self, units: Sequence[LedgerUnit], ranked: RankedUnits
    ) -> tuple[BlockFindings, ErrorTally]:
        failed = [unit for unit in units if unit.failed or unit.lost]
        rule = self._rule
        name = (self._rollout, self._worker, self._sequence)
        findings = (
            summarize_block(units, rule, name, ranked) if rule.guardrails else NO_FINDINGS
        )
        return findings, _errors(units, failed)

    def _of_new_keys(
        self,
        block: OpenBlock,
        units: Sequence[LedgerUnit],
        of_all: BlockFindings,
    ) -> NeverSeen:
        new = [unit for unit in units if unit.history is KeyHistory.NEVER_SEEN]
        # Periods may share a pool: these units' arms are independent of earlier data.
        ranked = self._new_pool.take(new, block.weight_bps, block.share)
        findings, errors = self._summarize(new, ranked)
        return NeverSeen(
            errors.units,
            errors.canary,
            errors.failures,
            errors.canary_failures,
            None if len(new) == len(units) else _with_errors(findings.counts, errors),
            None if findings.ranks == of_all.ranks else findings.ranks,
            None if findings.bets == of_all.bets else findings.bets,
            None if findings.by_key == of_all.by_key else findings.by_key,
        )


def _control_waits(units: Iterable[LedgerUnit]) -> WaitCounts:
    """Counts the waits of the control's units, whose own target answered or was waited for."""
    return count_waits(
        RequestWaits(
            unit.is_stream,
            unit.outcome.first_s,
            unit.outcome.gap_s,
            unit.outcome.waited_s if unit.outcome.kind in _DEPARTED else 0.0,
        )
        for unit in units
        if not unit.canary and unit.outcome is not None and unit.outcome.kind in _WAITED_FOR
    )


_DEPARTED: Final = frozenset({OutcomeKind.LEFT, OutcomeKind.STOPPED})
_WAITED_FOR: Final = _DEPARTED | {OutcomeKind.ANSWERED, OutcomeKind.CUT}


def _with_errors(
    counts: Mapping[Guardrail, FailureTally], errors: ErrorTally
) -> Mapping[Guardrail, FailureTally]:
    explained = errors.classes or errors.segments or errors.unknown != NO_SPLIT
    return {Guardrail.ERRORS: errors, **counts} if explained else counts


def _errors(units: Sequence[LedgerUnit], failed: Sequence[LedgerUnit]) -> ErrorTally:
    known = [
        (ArmFailure.MISSING.value if unit.lost else unit.why, unit.canary)
        for unit in failed
        if unit.lost or unit.why
    ]
    names = keep_common_causes([why for why, _ in known])
    all_ = Counter(names)
    canary = Counter(
        name for name, (_, in_canary) in zip(names, known, strict=True) if in_canary
    )
    return ErrorTally(
        len(units),
        sum(unit.canary for unit in units),
        len(failed),
        sum(unit.canary for unit in failed),
        {name: ArmSplit(n, canary[name]) for name, n in sorted(all_.items())},
        count_segments(units),
        _split(unit for unit in units if not counts_for(unit, Guardrail.ERRORS)),
    )


def _sums(tally: FailureTally) -> tuple[int, int, int, int]:
    return tally.units, tally.canary, tally.failures, tally.canary_failures


def _split(units: Iterable[LedgerUnit]) -> ArmSplit:
    arms = [unit.canary for unit in units]
    return ArmSplit(len(arms), sum(arms))
