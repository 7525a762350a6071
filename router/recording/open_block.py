"""An open block holds the units that a ledger has admitted, until all their outcomes are in
(statistics.md §2.1). A unit is a sticky key's first request of a period. The observation
builder makes observation blocks of complete ones: what each arm did, by guardrail and by
segment, of all units and of those never seen before (§2.12).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from harness.domain.canary.guardrails import (
    ArmSplit,
    ErrorTally,
    FailureTally,
    FeedbackTally,
    Guardrail,
    JudgeTally,
    UnitRule,
)
from harness.domain.canary.judge import JudgeOutcome
from harness.domain.canary.key_ledger import KeyHistory
from harness.domain.canary.observation import NeverSeen, ObservationBlock
from harness.domain.reliability.failures import ArmFailure, keep_common_causes
from router.recording.guardrail_sample import (
    FAULTS,
    NEEDS,
    NO_FINDINGS,
    BlockFindings,
    RankedUnits,
    RankPool,
    SampleValues,
    count_segments,
    summarize_block,
)

_JUDGED_TRAIT: Final = NEEDS[Guardrail.JUDGE]


class OpenBlock:
    """Holds a block that still admits units, or waits for outcomes. out: units without one yet.

    unjudged: units whose judge has not spoken yet. claimed: the rollout's ledger was asked for
    its keys.
    """

    __slots__ = (
        "claimed",
        "closed_at",
        "closed_s",
        "opened_at",
        "opened_s",
        "out",
        "period",
        "units",
        "unjudged",
        "weight_bps",
    )

    def __init__(self, weight_bps: int, now: float, at: datetime, period: int) -> None:
        self.weight_bps = weight_bps
        self.period = period
        self.opened_s, self.opened_at = now, at
        self.closed_s: float | None = None
        self.closed_at = at
        self.units: list[LedgerUnit] = []  # in the order of admission
        self.out = self.unjudged = 0
        self.claimed = False

    @property
    def share(self) -> float:
        """The planned share of the canary."""
        return self.weight_bps / 10_000

    def release(self) -> list["LedgerUnit"]:
        """Lets the units go; returns those that count. What is still out is a failure from now
        on, in both arms alike.
        """
        units, self.units = self.units, []
        for unit in units:
            unit.block = None
            if unit.judging:
                unit.judge(JudgeOutcome.NO_VERDICT)
        return [unit for unit in units if unit.history is not KeyHistory.COUNTED]


class LedgerUnit:
    """Holds one scored unit: a sticky key's first request of a period.

    traits, values, bad: of its request. fixed: the outcome is in. heard: a user said something
    of it; heard_until_s: then it is too late. why: it failed, where that is known. judging: the
    judge has not answered yet. unjudged: it gave no verdict. key: its sticky key, or a hash of
    it. history: of the key, once the block is claimed.
    """

    __slots__ = (
        "bad",
        "block",
        "canary",
        "failed",
        "fixed",
        "heard",
        "heard_until_s",
        "history",
        "judging",
        "key",
        "traits",
        "unjudged",
        "values",
        "why",
    )

    def __init__(
        self,
        block: OpenBlock,
        *,
        key: str | int,
        canary: bool,
        traits: int,
    ) -> None:
        self.block: OpenBlock | None = block  # None once it is handed out
        self.key = key
        self.history: KeyHistory | None = None
        self.canary = canary
        self.traits = traits
        self.bad = 0
        self.heard_until_s = float("inf")
        self.values: SampleValues | None = None
        self.why = ""
        self.failed = self.fixed = self.heard = False
        self.judging, self.unjudged = bool(traits & _JUDGED_TRAIT), False

    @property
    def lost(self) -> bool:
        """Tells whether the unit's block is handed out, and no outcome came."""
        return not (self.fixed or self.failed)

    def note_feedback(self, *, bad: bool, now: float) -> bool:
        """Notes feedback about an answer of this unit. False when it comes too late."""
        if self.block is None or now >= self.heard_until_s:
            return False
        self.heard = True
        if bad:
            self.bad |= FAULTS[Guardrail.FEEDBACK]
        return True

    def judge(self, judged: JudgeOutcome) -> None:
        """Enters what the judge said; without a verdict the unit is as bad as one found bad, in
        both arms alike.
        """
        self.judging = False
        if judged is not JudgeOutcome.GOOD:
            self.bad |= FAULTS[Guardrail.JUDGE]
        self.unjudged = judged is JudgeOutcome.NO_VERDICT


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
    return {Guardrail.ERRORS: errors, **counts} if errors.classes or errors.segments else counts


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
    return ErrorTally(
        len(units),
        sum(unit.canary for unit in units),
        len(failed),
        sum(unit.canary for unit in failed),
        {name: ArmSplit(n, canary[name]) for name, n in sorted(all_.items())},
        count_segments(units),
    )


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
