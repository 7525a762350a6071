"""The observation builder makes observation blocks of a ledger's complete blocks: what each arm
did, by guardrail and by segment, of all units and of those never seen before (statistics.md
§2.1, §2.12).
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from harness.domain.canary.guardrails import (
    ArmSplit,
    ErrorTally,
    FailureTally,
    FeedbackTally,
    Guardrail,
    JudgeTally,
    UnitRule,
    with_segments,
)
from harness.domain.canary.key_ledger import KeyHistory
from harness.domain.canary.observation import NeverSeen, ObservationBlock
from harness.domain.reliability.failures import ArmFailure, keep_common_causes
from router.recording.guardrail_sample import (
    NO_FINDINGS,
    BlockFindings,
    RankedUnits,
    RankPool,
    count_segments,
    summarize_block,
)
from router.recording.open_block import LedgerUnit, OpenBlock


class ObservationBuilder:
    """Numbers a ledger's complete blocks, and says what each of them counted.

    worker: the name under which the blocks are stored.
    """

    def __init__(self, rollout: str, worker: str, rule: UnitRule) -> None:
        self.judge_usd = 0.0  # since the last block with judged units
        self._rollout = rollout
        self._worker = worker
        self._rule = rule
        self._sequence = 0
        self._pool, self._new_pool = RankPool(rule.block_size), RankPool(rule.block_size)

    def build(self, block: OpenBlock, units: Sequence[LedgerUnit]) -> ObservationBlock:
        """Builds the next observation block. units: those of the block that count."""
        self._sequence += 1
        if self._rule.keeps_ledger and not block.claimed:
            # It may count as never seen: no value of those before it may count there twice.
            self._pool.forget()
            self._new_pool.forget()
        ranked = self._pool.take(units, (block.period, block.weight_bps), block.share)
        findings, errors = self._summarize(units, ranked)
        counts = dict(findings.counts)
        if Guardrail.FEEDBACK in counts:
            counts[Guardrail.FEEDBACK] = _opinions(counts[Guardrail.FEEDBACK], units)
        if Guardrail.JUDGE in counts:
            spent_usd, self.judge_usd = self.judge_usd, 0.0
            counts[Guardrail.JUDGE] = _verdicts(counts[Guardrail.JUDGE], units, spent_usd)
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
            never_seen=self._of_new_keys(block, units, findings) if block.claimed else None,
        )

    def _summarize(
        self, units: Sequence[LedgerUnit], ranked: RankedUnits
    ) -> tuple[BlockFindings, ErrorTally]:
        failed = [unit for unit in units if unit.failed or unit.lost]
        tolerated = self._rule.guardrails
        name = (self._rollout, self._worker, self._sequence)
        findings = summarize_block(units, tolerated, name, ranked) if tolerated else NO_FINDINGS
        return findings, _errors(units, failed)

    def _of_new_keys(
        self, block: OpenBlock, units: Sequence[LedgerUnit], of_all: BlockFindings
    ) -> NeverSeen:
        new = [unit for unit in units if unit.history is KeyHistory.NEVER_SEEN]
        # Of whatever period: their arms are independent of everything before.
        ranked = self._new_pool.take(new, block.weight_bps, block.share)
        findings, errors = self._summarize(new, ranked)
        return NeverSeen(
            errors.units,
            errors.canary,
            errors.failures,
            errors.canary_failures,
            None if len(new) == len(units) else _with_errors(findings.counts, errors),
            None if findings.ranks == of_all.ranks else findings.ranks,
        )


def _with_errors(
    counts: Mapping[Guardrail, FailureTally], errors: ErrorTally
) -> Mapping[Guardrail, FailureTally]:
    return {Guardrail.ERRORS: errors, **counts} if errors.tells else counts


def _errors(units: Sequence[LedgerUnit], failed: Sequence[LedgerUnit]) -> ErrorTally:
    """failed: those of the units that did, or that no outcome came of."""
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
    tally = ErrorTally(
        len(units),
        sum(unit.canary for unit in units),
        len(failed),
        sum(unit.canary for unit in failed),
        {name: ArmSplit(n, canary[name]) for name, n in sorted(all_.items())},
    )
    return with_segments(tally, count_segments(units))


def _verdicts(tally: FailureTally, units: Sequence[LedgerUnit], spent_usd: float) -> JudgeTally:
    none = [unit.canary for unit in units if unit.unjudged]
    return JudgeTally(
        tally.units,
        tally.canary,
        tally.failures,
        tally.canary_failures,
        ArmSplit(len(none), sum(none)),
        spent_usd,
    )


def _opinions(tally: FailureTally, units: Sequence[LedgerUnit]) -> FeedbackTally:
    heard = [unit.canary for unit in units if unit.heard]
    return FeedbackTally(
        tally.units,
        tally.canary,
        tally.failures,
        tally.canary_failures,
        ArmSplit(len(heard), sum(heard)),
    )
