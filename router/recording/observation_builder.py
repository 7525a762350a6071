"""Builds observation blocks from full ledger blocks (statistics.md §2.1).

Pure but for the pools of exposures that wait to be ranked. Here an exposure's values become
counts and ranks; keys and single values do not leave the process. Which exposures count is
decided in `ledger`, the formulas of ranks are in `harness.gate.online.guardrails`.
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
    ExposureRule,
    FailureTally,
    Guardrail,
    GuardrailKind,
    JudgeTally,
    SegmentCount,
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
from router.recording.scored_exposures import (
    FAULTS,
    NEEDS,
    SEGMENTS_FROM,
    LedgerExposure,
    OpenBlock,
)
from router.recording.value_comparison import (
    ComparedValues,
    cache_uses,
    compare_values,
)


class BlockFindings(NamedTuple):
    """What one block shows: counts of bad exposures, ranks of values, and levels for people.

    bounds: the ranked exposures whose value is a lower bound.
    """

    counts: Mapping[Guardrail, FailureTally]
    ranks: Mapping[Guardrail, tuple[float, ...]]
    levels: Mapping[Guardrail, ArmLevels]
    bounds: Mapping[Guardrail, ArmSplit]
    bets: Mapping[Guardrail, tuple[float, ...]]
    by_key: Mapping[str, Mapping[Guardrail, FailureTally]]
    capped: Mapping[Guardrail, CappedTotals]


NO_FINDINGS: Final = BlockFindings({}, {}, {}, {}, {}, {}, {})
# Enough exposures for one expected exposure of the smaller arm, and the fewest controls.
_RANKED_TOGETHER: Final = MIN_CONTROLS + 1


class RankedExposures(NamedTuple):
    """Exposures to rank together. cached_share: of input tokens, for comparing costs."""

    units: Sequence[LedgerExposure] = ()
    cached_share: float = 0.0


class RankPool:
    """Keeps the exposures of small blocks until there are enough to rank together.

    Their costs are compared at the larger of both arms' shares of cached tokens so far. Earlier
    exposures determine this share, so that an exposure does not influence its own comparison.

    The canary's share alone decides how many exposures are enough, so that no arm and no value
    decides which exposures are compared. most: this many exposures of a block are always
    enough.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._part: object = None
        self._kept: list[LedgerExposure] = []
        self._cache = ArmCacheUse()

    def take(
        self,
        exposures: Sequence[LedgerExposure],
        part: object,
        share: float,
    ) -> RankedExposures:
        """Returns the exposures to rank now.

        part: a period at one weight. share: the canary's share.
        """
        if part != self._part:
            self._part = part
            self._kept = []
        self._kept += exposures
        smaller = min(share, 1.0 - share)
        if len(self._kept) < min(self._most, _RANKED_TOGETHER / max(smaller, 1e-9)):
            return RankedExposures()
        together = self._kept
        self._kept = []
        larger = self._cache.larger
        self._cache.add(cache_uses(together))
        # The first batch is compared at its own pooled share.
        return RankedExposures(together, self._cache.pooled if larger is None else larger)

    @property
    def waits(self) -> bool:
        """Whether exposures wait to be ranked."""
        return bool(self._kept)

    def forget(self) -> None:
        """Drops the exposures that wait, because they may count again as new."""
        self._kept = []


def summarize_block(
    exposures: Sequence[LedgerExposure],
    rule: ExposureRule,
    block: tuple[str, str, int],
    ranked: RankedExposures,
) -> BlockFindings:
    """Summarizes a complete block.

    exposures: in the order of admission. rule: with a tolerated ratio for each live guardrail.
    ranked: exposures whose values are ranked now.
    """
    counts: dict[Guardrail, FailureTally] = {}
    bets: dict[Guardrail, tuple[float, ...]] = {}
    compared: dict[Guardrail, ComparedValues] = {}
    for guardrail, ratio in rule.guardrails.items():
        needs = NEEDS[guardrail]
        kind = guardrail_kind(guardrail)
        counted = kind is GuardrailKind.COUNTS
        completed_exposures = [
            exposure
            for exposure in (exposures if counted else ranked.units)
            if exposure.traits & needs == needs and counts_for(exposure, guardrail)
        ]
        if not completed_exposures:
            continue
        if counted:
            counts[guardrail] = _tally(completed_exposures, guardrail)
        elif kind is GuardrailKind.SUMS:
            bets[guardrail] = _bets(completed_exposures, guardrail, ratio, block)
        else:
            found = compare_values(
                completed_exposures, guardrail, rule, block, ranked.cached_share
            )
            compared[guardrail] = found
            bets[guardrail] = found.bets
    capped = {name: CappedTotals.from_exposures((), cap) for name, cap in rule.caps.items()}
    return BlockFindings(
        counts,
        {name: one.ranks for name, one in compared.items() if one.ranks},
        {name: one.level for name, one in compared.items() if one.level is not None},
        {name: one.bounds for name, one in compared.items() if one.bounds.failures},
        {name: ys for name, ys in bets.items() if ys},
        count_clients(exposures, counts),
        capped | {name: one.capped for name, one in compared.items() if one.capped},
    )


def count_clients(
    exposures: Sequence[LedgerExposure], guardrails: Collection[Guardrail]
) -> dict[str, dict[Guardrail, FailureTally]]:
    """Counts exposures by client key, for the live guardrails that callers decide.

    A missing outcome counts for the canary, as in the evidence of harm.
    """
    found: dict[str, dict[Guardrail, FailureTally]] = {}
    for guardrail in CALLER_DECIDED:
        if guardrail not in guardrails:
            continue
        by_client: dict[str, list[LedgerExposure]] = {}
        for exposure in exposures:
            if exposure.client and counts_for(exposure, guardrail):
                by_client.setdefault(exposure.client, []).append(exposure)
        for client, own in by_client.items():
            tally = _tally(own, guardrail)
            lost = sum(exposure.lost and exposure.canary for exposure in own)
            found.setdefault(client, {})[guardrail] = tally.without(lost, canary=True)
    return count_keys(found, MAX_BLOCK_KEYS)


def _bets(
    exposures: Sequence[LedgerExposure],
    guardrail: Guardrail,
    margin: float,
    block: tuple[str, str, int],
) -> tuple[float, ...]:
    """Bets on the share of exposures whose outcome is bad for the guardrail.

    A missing outcome counts for the canary: as good in the canary, as bad in the control.
    """
    values = [
        (exposure.canary, float(_is_bad_for_canary(exposure, guardrail)))
        for exposure in exposures
    ]
    return bets_block(
        values,
        guardrail=guardrail,
        margin=margin,
        block=block,
    )


def _is_bad_for_canary(exposure: LedgerExposure, guardrail: Guardrail) -> bool:
    bad = exposure.reading(guardrail) is Reading.BAD
    return not exposure.canary if exposure.lost else bad


def counts_for(exposure: LedgerExposure, guardrail: Guardrail) -> bool:
    """Returns whether the guardrail knows the exposure's outcome, and its value if it ranks
    values.

    An answer without a value was not measured, and is no worst value.
    """
    reading = exposure.reading(guardrail)
    if reading is Reading.UNKNOWN:
        return False
    if reading is Reading.BAD or guardrail not in RANK_GUARDRAILS:
        return True
    return exposure.values is not None and exposure.values.value_for(guardrail) is not None


def count_outcomes(exposures: Iterable[LedgerExposure]) -> dict[str, ArmSplit]:
    """Counts exposures by `ExposureOutcome.key`; the splits sum to the exposures."""
    return _count_arms(
        ((exposure.outcome or MISSING).key, exposure.canary) for exposure in exposures
    )


# The most names in `ObservationBlock.served`; rarer names are summed up.
MAX_SERVED: Final = 8
OTHER_SERVED: Final = "other"


def count_served(exposures: Iterable[LedgerExposure]) -> dict[str, ArmSplit]:
    """Counts exposures by the model that the answer names; an exposure without a name is
    left out.
    """
    counted = _count_arms(
        (exposure.served, exposure.canary) for exposure in exposures if exposure.served
    )
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


def count_segments(exposures: Iterable[LedgerExposure]) -> dict[str, SegmentCount]:
    """Counts exposures and failures of both arms by segment, for reports."""
    sums: dict[int, list[int]] = {}
    for exposure in exposures:
        failed = exposure.failed or exposure.lost
        bits = exposure.traits >> SEGMENTS_FROM
        while bits:
            bit = bits & -bits
            bits -= bit
            count = sums.setdefault(bit.bit_length() - 1, [0, 0, 0, 0])
            count[0] += 1
            count[1] += exposure.canary
            count[2] += failed
            count[3] += failed and exposure.canary
    return {SEGMENTS[n].value: SegmentCount(*sums[n]) for n in sorted(sums)}


def _tally(exposures: Iterable[LedgerExposure], guardrail: Guardrail) -> FailureTally:
    """Counts exposures whose outcome the guardrail knows, and the bad ones.

    Counts an exposure without an outcome as a failure, in both arms alike.
    """
    fault = FAULTS.get(guardrail, 0)
    exposures_ = 0
    canary = 0
    failures = 0
    canary_failures = 0
    for exposure in exposures:
        failed = exposure.reading(guardrail) is Reading.BAD or bool(exposure.bad & fault)
        exposures_ += 1
        canary += exposure.canary
        failures += failed
        canary_failures += failed and exposure.canary
    return FailureTally(exposures_, canary, failures, canary_failures)


class ObservationBuilder:
    """Numbers and summarizes a ledger's complete blocks.

    worker: the name under which the blocks are stored.
    """

    def __init__(
        self,
        rollout: str,
        worker: str,
        rule: ExposureRule,
    ) -> None:
        self.judge_usd = 0.0  # since the last block with judged exposures
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
        self._waits: WaitCounts = NO_WAITS  # of the control's exposures in complete blocks
        self._pool = RankPool(rule.block_size)
        self._new_pool = RankPool(rule.block_size)
        self._repeated = RepeatedTexts()

    def build(self, block: OpenBlock, exposures: Sequence[LedgerExposure]) -> ObservationBlock:
        """Builds the next block. block: closed. exposures: those that count."""
        self._sequence += 1
        # Only earlier blocks determine the limits, so that an exposure does not influence its
        # own.
        limits = find_limits(self._waits, self._first_limits)
        for exposure in exposures:
            exposure.settle(limits)
        self._waits = merge_waits((self._waits, _control_waits(exposures)))
        self._repeated.mark(exposures)
        if self._rule.keeps_ledger and not block.claimed:
            # Without a ledger, these exposures may count as new again, so drop their kept
            # values.
            self._pool.forget()
            self._new_pool.forget()
        ranked = self._pool.take(exposures, (block.period, block.weight_bps), block.share)
        findings, errors = self._summarize(exposures, ranked)
        counts = dict(findings.counts)
        if (judged := counts.get(Guardrail.JUDGE)) is not None:
            spent_usd = self.judge_usd
            self.judge_usd = 0.0
            none = _split(
                exposure
                for exposure in exposures
                if exposure.unjudged and counts_for(exposure, Guardrail.JUDGE)
            )
            counts[Guardrail.JUDGE] = JudgeTally(*_sums(judged), none, spent_usd)
        return ObservationBlock(
            rollout=self._rollout,
            worker=self._worker,
            sequence=self._sequence,
            weight_bps=block.weight_bps,
            units=len(exposures),
            canary_units=sum(exposure.canary for exposure in exposures),
            failures=errors.failures,
            canary_failures=errors.canary_failures,
            missing=sum(exposure.lost for exposure in exposures),
            opened_at=block.opened_at,
            closed_at=block.closed_at,
            period=block.period,
            counts=_with_errors(counts, errors),
            ranks=findings.ranks,
            levels=findings.levels,
            bets=findings.bets,
            by_key=findings.by_key,
            never_seen=self._of_new_keys(block, exposures, findings) if block.claimed else None,
            outcomes=count_outcomes(exposures),
            uncounted={key: ArmSplit(*count) for key, count in sorted(block.uncounted.items())},
            served=count_served(exposures),
            waits={name: limit_s for name, limit_s in limits._asdict().items() if limit_s},
            bounds=findings.bounds,
            windows_known_s=self._windows_known_s(exposures),
            usual_rates=self._rule.usual_rates,
            capped=findings.capped,
        )

    @property
    def values_wait(self) -> bool:
        """Whether values of exposures wait to be ranked."""
        return self._pool.waits or self._new_pool.waits

    def number(self, late: ObservationBlock) -> ObservationBlock:
        """Gives a block of late outcomes the next number of the worker."""
        self._sequence += 1
        return replace(late, sequence=self._sequence)

    def _windows_known_s(self, exposures: Sequence[LedgerExposure]) -> float:
        has_windows = self._rule.has_windows and any(
            exposure.has_window for exposure in exposures
        )
        return self._rule.window_known_s if has_windows else 0.0

    def _summarize(
        self, exposures: Sequence[LedgerExposure], ranked: RankedExposures
    ) -> tuple[BlockFindings, ErrorTally]:
        failed = [exposure for exposure in exposures if exposure.failed or exposure.lost]
        rule = self._rule
        name = (self._rollout, self._worker, self._sequence)
        findings = (
            summarize_block(exposures, rule, name, ranked) if rule.guardrails else NO_FINDINGS
        )
        return findings, _errors(exposures, failed)

    def _of_new_keys(
        self,
        block: OpenBlock,
        exposures: Sequence[LedgerExposure],
        of_all: BlockFindings,
    ) -> NeverSeen:
        new = [exposure for exposure in exposures if exposure.history is KeyHistory.NEVER_SEEN]
        # Periods may share a pool: these exposures' arms are independent of earlier data.
        ranked = self._new_pool.take(new, block.weight_bps, block.share)
        findings, errors = self._summarize(new, ranked)
        return NeverSeen(
            errors.units,
            errors.canary,
            errors.failures,
            errors.canary_failures,
            None if len(new) == len(exposures) else _with_errors(findings.counts, errors),
            None if findings.ranks == of_all.ranks else findings.ranks,
            None if findings.bets == of_all.bets else findings.bets,
            None if findings.by_key == of_all.by_key else findings.by_key,
        )


def _control_waits(exposures: Iterable[LedgerExposure]) -> WaitCounts:
    """Counts the waits of the control's exposures, whose own target answered or was waited
    for.
    """
    return count_waits(
        RequestWaits(
            exposure.is_stream,
            exposure.outcome.first_s,
            exposure.outcome.gap_s,
            exposure.outcome.waited_s if exposure.outcome.kind in _DEPARTED else 0.0,
        )
        for exposure in exposures
        if not exposure.canary
        and exposure.outcome is not None
        and exposure.outcome.kind in _WAITED_FOR
    )


_DEPARTED: Final = frozenset({OutcomeKind.LEFT, OutcomeKind.STOPPED})
_WAITED_FOR: Final = _DEPARTED | {OutcomeKind.ANSWERED, OutcomeKind.CUT}


def _with_errors(
    counts: Mapping[Guardrail, FailureTally], errors: ErrorTally
) -> Mapping[Guardrail, FailureTally]:
    explained = errors.classes or errors.segments or errors.unknown != NO_SPLIT
    return {Guardrail.ERRORS: errors, **counts} if explained else counts


def _errors(
    exposures: Sequence[LedgerExposure], failed: Sequence[LedgerExposure]
) -> ErrorTally:
    known = [
        (ArmFailure.MISSING.value if exposure.lost else exposure.why, exposure.canary)
        for exposure in failed
        if exposure.lost or exposure.why
    ]
    names = keep_common_causes([why for why, _ in known])
    all_ = Counter(names)
    canary = Counter(
        name for name, (_, in_canary) in zip(names, known, strict=True) if in_canary
    )
    return ErrorTally(
        len(exposures),
        sum(exposure.canary for exposure in exposures),
        len(failed),
        sum(exposure.canary for exposure in failed),
        {name: ArmSplit(n, canary[name]) for name, n in sorted(all_.items())},
        count_segments(exposures),
        _split(
            exposure for exposure in exposures if not counts_for(exposure, Guardrail.ERRORS)
        ),
    )


def _sums(tally: FailureTally) -> tuple[int, int, int, int]:
    return tally.units, tally.canary, tally.failures, tally.canary_failures


def _split(exposures: Iterable[LedgerExposure]) -> ArmSplit:
    arms = [exposure.canary for exposure in exposures]
    return ArmSplit(len(arms), sum(arms))
