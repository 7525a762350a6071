"""Builds observation blocks from complete blocks of exposures (statistics.md §2.1).

It turns exposures' values into counts and ranks. The formulas of ranks are in
`harness.gate.online.guardrails`. Pure, except for the pools of exposures that wait for ranks.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from harness.frame.failures import ArmFailure, keep_common_causes
from harness.gate.online.capped_sums import CappedTotals
from harness.gate.online.exposures import SEGMENTS_FROM
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
from harness.gate.online.reading.repeated_texts import RepeatedTexts
from harness.gate.online.reading.scored_exposures import (
    FAULTS,
    NEEDS,
    LedgerExposure,
    OpenBlock,
)
from harness.gate.online.reading.value_comparison import (
    ComparedValues,
    cache_uses,
    compare_values,
)
from harness.gate.online.waiting import (
    NO_WAITS,
    RequestWaits,
    WaitCounts,
    count_waits,
    find_limits,
    merge_waits,
)


class BlockFindings(NamedTuple):
    """The evidence of one block: counts of bad exposures, ranks of values, levels for people.

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
_MIN_EXPECTED_RANKED: Final = MIN_CONTROLS + 1


class RankedExposures(NamedTuple):
    """Exposures to rank together. cached_share: the cached share of input tokens, for costs."""

    units: Sequence[LedgerExposure] = ()
    cached_share: float = 0.0


class RankPool:
    """Keeps the exposures of small blocks until they are enough to rank together.

    It compares costs at one share of cached tokens: the larger of both arms' shares so far.
    Earlier exposures determine it, so that no exposure influences its own comparison.

    The canary's share alone decides how many exposures are enough, so that no arm and no value
    decides which exposures are compared. most: this many exposures are always enough.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._current_part: object = None
        self._waiting_exposures: list[LedgerExposure] = []
        self._cache = ArmCacheUse()

    def take(
        self,
        exposures: Sequence[LedgerExposure],
        part: object,
        share: float,
    ) -> RankedExposures:
        """Returns the exposures to rank now.

        Args:
            part: the period and the weight of the exposures.
            share: the canary's share.
        """
        if part != self._current_part:
            self._current_part = part
            self._waiting_exposures = []
        self._waiting_exposures += exposures
        smaller_share = min(share, 1.0 - share)
        if len(self._waiting_exposures) < min(
            self._most, _MIN_EXPECTED_RANKED / max(smaller_share, 1e-9)
        ):
            return RankedExposures()
        exposures_to_rank = self._waiting_exposures
        self._waiting_exposures = []
        larger_share = self._cache.larger
        self._cache.add(cache_uses(exposures_to_rank))
        # The first batch has no earlier share, so it uses its own pooled share.
        return RankedExposures(
            exposures_to_rank, self._cache.pooled if larger_share is None else larger_share
        )

    @property
    def waits(self) -> bool:
        """Whether exposures wait for ranks."""
        return bool(self._waiting_exposures)

    def forget(self) -> None:
        """Drops the waiting exposures, because they may count again as new."""
        self._waiting_exposures = []


def summarize_block(
    exposures: Sequence[LedgerExposure],
    rule: ExposureRule,
    block: tuple[str, str, int],
    ranked: RankedExposures,
) -> BlockFindings:
    """Summarizes a complete block.

    Args:
        exposures: in the order of admission.
        rule: with a tolerated ratio for each live guardrail.
        ranked: the exposures to rank now.
    """
    counts: dict[Guardrail, FailureTally] = {}
    bets: dict[Guardrail, tuple[float, ...]] = {}
    compared: dict[Guardrail, ComparedValues] = {}
    for guardrail, ratio in rule.guardrails.items():
        needs = NEEDS[guardrail]
        kind = guardrail_kind(guardrail)
        is_counted = kind is GuardrailKind.COUNTS
        completed_exposures = [
            exposure
            for exposure in (exposures if is_counted else ranked.units)
            if exposure.traits & needs == needs and counts_for(exposure, guardrail)
        ]
        if not completed_exposures:
            continue
        if is_counted:
            counts[guardrail] = _count_failures(completed_exposures, guardrail)
        elif kind is GuardrailKind.SUMS:
            bets[guardrail] = _bet_on_outcomes(completed_exposures, guardrail, ratio, block)
        else:
            comparison = compare_values(
                completed_exposures, guardrail, rule, block, ranked.cached_share
            )
            compared[guardrail] = comparison
            bets[guardrail] = comparison.bets
    capped = {name: CappedTotals.from_exposures((), cap) for name, cap in rule.caps.items()}
    return BlockFindings(
        counts,
        {name: values.ranks for name, values in compared.items() if values.ranks},
        {name: values.level for name, values in compared.items() if values.level is not None},
        {name: values.bounds for name, values in compared.items() if values.bounds.failures},
        {name: block_bets for name, block_bets in bets.items() if block_bets},
        count_clients(exposures, counts),
        capped | {name: values.capped for name, values in compared.items() if values.capped},
    )


def count_clients(
    exposures: Sequence[LedgerExposure], guardrails: Collection[Guardrail]
) -> dict[str, dict[Guardrail, FailureTally]]:
    """Counts exposures by client key, for the live guardrails that callers decide.

    A missing outcome counts for the canary, as in the evidence of harm.
    """
    tallies: dict[str, dict[Guardrail, FailureTally]] = {}
    for guardrail in CALLER_DECIDED:
        if guardrail not in guardrails:
            continue
        by_client: dict[str, list[LedgerExposure]] = {}
        for exposure in exposures:
            if exposure.client and counts_for(exposure, guardrail):
                by_client.setdefault(exposure.client, []).append(exposure)
        for client, client_exposures in by_client.items():
            tally = _count_failures(client_exposures, guardrail)
            lost_count = sum(exposure.lost and exposure.canary for exposure in client_exposures)
            tallies.setdefault(client, {})[guardrail] = tally.without(lost_count, canary=True)
    return count_keys(tallies, MAX_BLOCK_KEYS)


def _bet_on_outcomes(
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
    is_bad = exposure.reading(guardrail) is Reading.BAD
    return not exposure.canary if exposure.lost else is_bad


def counts_for(exposure: LedgerExposure, guardrail: Guardrail) -> bool:
    """Returns whether the guardrail knows the exposure's outcome.

    A guardrail that ranks values also needs the exposure's value. An answer without a value
    was not measured, so it does not get the worst rank.
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
    """Counts exposures by the model that the answer names. Omits exposures without a name."""
    counts = _count_arms(
        (exposure.served, exposure.canary) for exposure in exposures if exposure.served
    )
    ordered_counts = sorted(counts.items(), key=lambda item: (-item[1].failures, item[0]))
    frequent = dict(ordered_counts[:MAX_SERVED])
    rare_splits = [split for _, split in ordered_counts[MAX_SERVED:]]
    if rare_splits:
        other_split = frequent.get(OTHER_SERVED, NO_SPLIT)
        rare_splits.append(other_split)
        frequent[OTHER_SERVED] = ArmSplit(
            sum(split.failures for split in rare_splits),
            sum(split.canary for split in rare_splits),
        )
    return frequent


def _count_arms(names_and_arms: Iterable[tuple[str, bool]]) -> dict[str, ArmSplit]:
    """Counts names in both arms and in the canary, in the order of the names."""
    pairs = list(names_and_arms)
    both_arms = Counter(name for name, _ in pairs)
    canary = Counter(name for name, in_canary in pairs if in_canary)
    return {name: ArmSplit(both_arms[name], canary[name]) for name in sorted(both_arms)}


def count_segments(exposures: Iterable[LedgerExposure]) -> dict[str, SegmentCount]:
    """Counts exposures and failures of both arms by segment, for reports."""
    sums: dict[int, list[int]] = {}
    for exposure in exposures:
        has_failed = exposure.failed or exposure.lost
        bits = exposure.traits >> SEGMENTS_FROM
        while bits:
            bit = bits & -bits
            bits -= bit
            count = sums.setdefault(bit.bit_length() - 1, [0, 0, 0, 0])
            count[0] += 1
            count[1] += exposure.canary
            count[2] += has_failed
            count[3] += has_failed and exposure.canary
    return {
        SEGMENTS[segment_index].value: SegmentCount(*sums[segment_index])
        for segment_index in sorted(sums)
    }


def _count_failures(exposures: Iterable[LedgerExposure], guardrail: Guardrail) -> FailureTally:
    """Counts exposures whose outcome the guardrail knows, and the bad ones.

    Counts an exposure without an outcome as a failure, in both arms alike.
    """
    fault = FAULTS.get(guardrail, 0)
    exposures_ = 0
    canary = 0
    failures = 0
    canary_failures = 0
    for exposure in exposures:
        has_failed = exposure.reading(guardrail) is Reading.BAD or bool(exposure.bad & fault)
        exposures_ += 1
        canary += exposure.canary
        failures += has_failed
        canary_failures += has_failed and exposure.canary
    return FailureTally(exposures_, canary, failures, canary_failures)


class ObservationBuilder:
    """Numbers and summarizes a ledger's complete blocks.

    worker: the name in the stored blocks.
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
        # Late outcomes come in separate blocks.
        guardrails: dict[Guardrail, float] = {
            guardrail: tolerated
            for guardrail, tolerated in rule.guardrails.items()
            if guardrail is not Guardrail.FEEDBACK
        }
        self._rule = replace(rule, guardrails=guardrails)
        self._sequence = 0
        self._first_limits = WaitLimits(rule.first_wait_s, rule.stream_wait_s, rule.gap_wait_s)
        self._waits: WaitCounts = NO_WAITS  # of the control's exposures in complete blocks
        self._pool = RankPool(rule.block_size)
        self._new_pool = RankPool(rule.block_size)
        self._repeated = RepeatedTexts()

    def build(self, block: OpenBlock, exposures: Sequence[LedgerExposure]) -> ObservationBlock:
        """Builds the next row.

        Args:
            block: the closed block.
            exposures: those of it that count.
        """
        self._sequence += 1
        # Only earlier blocks determine the limits, so that an exposure does not influence its
        # own.
        limits = find_limits(self._waits, self._first_limits)
        for exposure in exposures:
            exposure.settle(limits)
        self._waits = merge_waits((self._waits, _control_waits(exposures)))
        self._repeated.mark(exposures)
        if self._rule.keeps_ledger and not block.claimed:
            # Without the ledger's answer, these exposures may count as new again. So drop
            # their values.
            self._pool.forget()
            self._new_pool.forget()
        ranked = self._pool.take(exposures, (block.period, block.weight_bps), block.share)
        findings, errors = self._summarize(exposures, ranked)
        counts = dict(findings.counts)
        if (judge_tally := counts.get(Guardrail.JUDGE)) is not None:
            spent_usd = self.judge_usd
            self.judge_usd = 0.0
            without_verdict = _split_arms(
                exposure
                for exposure in exposures
                if exposure.unjudged and counts_for(exposure, Guardrail.JUDGE)
            )
            counts[Guardrail.JUDGE] = JudgeTally(
                *_tally_counts(judge_tally), without_verdict, spent_usd
            )
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
            counts=_add_errors(counts, errors),
            ranks=findings.ranks,
            levels=findings.levels,
            bets=findings.bets,
            by_key=findings.by_key,
            never_seen=self._summarize_new_keys(block, exposures, findings)
            if block.claimed
            else None,
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
        """Whether values of exposures wait for ranks."""
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
        failed_exposures = [
            exposure for exposure in exposures if exposure.failed or exposure.lost
        ]
        rule = self._rule
        name = (self._rollout, self._worker, self._sequence)
        findings = (
            summarize_block(exposures, rule, name, ranked) if rule.guardrails else NO_FINDINGS
        )
        return findings, _count_errors(exposures, failed_exposures)

    def _summarize_new_keys(
        self,
        block: OpenBlock,
        exposures: Sequence[LedgerExposure],
        all_findings: BlockFindings,
    ) -> NeverSeen:
        new_exposures = [
            exposure for exposure in exposures if exposure.history is KeyHistory.NEVER_SEEN
        ]
        # Periods may share a pool: these exposures' arms are independent of earlier data.
        ranked = self._new_pool.take(new_exposures, block.weight_bps, block.new_share)
        findings, errors = self._summarize(new_exposures, ranked)
        return NeverSeen(
            errors.units,
            errors.canary,
            errors.failures,
            errors.canary_failures,
            None
            if len(new_exposures) == len(exposures)
            else _add_errors(findings.counts, errors),
            None if findings.ranks == all_findings.ranks else findings.ranks,
            None if findings.bets == all_findings.bets else findings.bets,
            None if findings.by_key == all_findings.by_key else findings.by_key,
        )


def _control_waits(exposures: Iterable[LedgerExposure]) -> WaitCounts:
    """Counts the waits of the control's exposures for answers of their own target."""
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
        and exposure.outcome.kind in _WAIT_KINDS
    )


_DEPARTED: Final = frozenset({OutcomeKind.LEFT, OutcomeKind.STOPPED})
_WAIT_KINDS: Final = _DEPARTED | {OutcomeKind.ANSWERED, OutcomeKind.CUT}


def _add_errors(
    counts: Mapping[Guardrail, FailureTally], errors: ErrorTally
) -> Mapping[Guardrail, FailureTally]:
    has_details = errors.classes or errors.segments or errors.unknown != NO_SPLIT
    return {Guardrail.ERRORS: errors, **counts} if has_details else counts


def _count_errors(
    exposures: Sequence[LedgerExposure], failed: Sequence[LedgerExposure]
) -> ErrorTally:
    causes = [
        (ArmFailure.MISSING.value if exposure.lost else exposure.why, exposure.canary)
        for exposure in failed
        if exposure.lost or exposure.why
    ]
    names = keep_common_causes([why for why, _ in causes])
    both_arms = Counter(names)
    canary = Counter(
        name for name, (_, in_canary) in zip(names, causes, strict=True) if in_canary
    )
    return ErrorTally(
        len(exposures),
        sum(exposure.canary for exposure in exposures),
        len(failed),
        sum(exposure.canary for exposure in failed),
        {name: ArmSplit(count, canary[name]) for name, count in sorted(both_arms.items())},
        count_segments(exposures),
        _split_arms(
            exposure for exposure in exposures if not counts_for(exposure, Guardrail.ERRORS)
        ),
    )


def _tally_counts(tally: FailureTally) -> tuple[int, int, int, int]:
    return tally.units, tally.canary, tally.failures, tally.canary_failures


def _split_arms(exposures: Iterable[LedgerExposure]) -> ArmSplit:
    arms = [exposure.canary for exposure in exposures]
    return ArmSplit(len(arms), sum(arms))
