"""The ledger groups one rollout's requests into units and units into blocks of evidence
(statistics.md §2.1): it admits requests, takes outcomes, verdicts and feedback, and hands out
complete blocks. No I/O, time is given.

One ledger serves all workers of a router, so that a sticky key counts once. A block's counts n
and m are fixed at admission, in assignment order; it closes by admissions and time alone, never
because of an outcome. It is handed out once all its outcomes are in, in order: a slow block
holds those behind it.
"""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from harness.domain.canary.guardrails import (
    ArmSplit,
    ErrorTally,
    FailureTally,
    FeedbackTally,
    Guardrail,
    JudgeTally,
    with_segments,
)
from harness.domain.canary.judge import JudgeOutcome
from harness.domain.canary.key_ledger import KeyClaim, KeyHistory, fingerprint
from harness.domain.canary.observation import NeverSeen, ObservationBlock
from harness.domain.canary.unit_rule import ExposureUnit, UnitRule
from harness.domain.reliability.failures import ArmFailure, ErrorClass
from router.recording.guardrail_sample import (
    FAULTS,
    NEEDS,
    NO_FINDINGS,
    BlockFindings,
    CompletedUnit,
    GuardrailSample,
    RankPool,
    SampleValues,
    count_segments,
    summarize_block,
)

# A block of a quiet route closes with what it has, so that its data do not wait for hours.
MAX_BLOCK_AGE_S: Final = 60.0
MAX_KEYS: Final = 500_000
# How long a closed block waits for its judge's verdicts. A judge that takes longer has been
# given up by then.
JUDGED_WITHIN_S: Final = 180.0
# Claims kept of blocks that went out without an answer. Later ones push out the oldest.
LATE_CLAIMS: Final = 10_000
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


class LedgerUnit:
    """Holds one scored unit: a sticky key's first request or session, or one request.

    traits, values: of its first request. bad: of all that count. awaited: the first request's
    values are to come. shut: no further request joins. fixed: the outcome is in. heard: a
    user said something of it; heard_until_s: then it is too late. why: it failed, where that is
    known. judging: the judge has not answered yet. unjudged: it gave no verdict. key: its
    sticky key, or a hash of it. history: of the key, once the block is claimed.
    """

    __slots__ = (
        "admitted",
        "awaited",
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
        "pending",
        "shut",
        "started_s",
        "traits",
        "unjudged",
        "values",
        "why",
    )

    def __init__(
        self,
        block: OpenBlock,
        now: float,
        *,
        key: str | int,
        canary: bool,
        traits: int,
        awaited: bool,
    ) -> None:
        self.block: OpenBlock | None = block  # None once it is handed out
        self.key = key
        self.history: KeyHistory | None = None
        self.canary = canary
        self.started_s = now
        self.traits = traits
        self.awaited = awaited
        self.admitted = self.pending = self.bad = 0
        self.heard_until_s = float("inf")
        self.values: SampleValues | None = None
        self.why: ErrorClass | None = None
        self.shut = self.failed = self.fixed = self.heard = False
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


class Ledger:
    """Keeps the units and blocks of one rollout in one router, with all its workers.

    worker: the name under which the blocks are stored. Workers learn of a new weight within
    seconds of one another: what still comes in at an old one has an open block of its own.

    At most max_keys sticky keys are remembered in a period; later ones are served and not
    scored, in either arm (`unscored`): a forgotten key would be counted again as new.
    """

    def __init__(
        self, rollout: str, worker: str, rule: UnitRule, *, max_keys: int = MAX_KEYS
    ) -> None:
        self.unscored = 0
        self._rollout = rollout
        self._worker = worker
        self._rule = rule
        self._max_keys = max_keys
        self._period = 1
        self._zero_s: float | None = None  # when the first period began
        self._seen: set[int] = set()
        self._sessions: dict[int, LedgerUnit] = {}  # open ones, oldest first
        self._open: dict[int, OpenBlock] = {}  # by weight; mostly one
        self._newest_bps = 0  # weights only rise
        self._waiting: deque[OpenBlock] = deque()  # closed, in order
        self._sequence = 0
        self._judge_usd = 0.0  # since the last block with judged units
        pooled = rule.block_size if rule.pools_ranks else 0
        self._pool, self._new_pool = RankPool(pooled), RankPool(pooled)
        self._hears = False  # whether users say anything of answers
        # Of blocks that went out before the rollout's ledger answered, oldest first: their keys
        # have been counted, and are not new on a later day.
        self._late: deque[KeyClaim] = deque(maxlen=LATE_CLAIMS)

    @property
    def idle(self) -> bool:
        """Tells whether nothing is open or waiting."""
        return not self._open and not self._waiting and not self._sessions

    def admit(
        self,
        key: str | int,
        *,
        canary: bool,
        weight_bps: int,
        now: float,
        at: datetime,
        traits: int = 0,
    ) -> LedgerUnit | None:
        """Begins a request of a sticky key, and returns its unit; None when it is not scored.

        now: monotonic seconds. at: the same moment, wall time. traits: of `RequestTraits`. The
        first request of a unit is the one after which `unit.admitted` is 1.
        """
        self._begin_period(now, at)
        self._close_aged(now, at)
        if weight_bps > self._newest_bps:
            self._newest_bps = weight_bps
            self._close_all(now, at)
        new = _New(key, canary, weight_bps, now, at, traits)
        if self._rule.unit is ExposureUnit.REQUEST:
            unit = self._new_unit(new)
            unit.shut = True
        else:
            # hash() is salted per process: fine for a memory that ends with it.
            ledger_unit = self._unit_of(hash(key), new)
            if ledger_unit is None:
                return None
            unit = ledger_unit
        unit.admitted += 1
        unit.pending += 1
        return unit

    def finish(
        self,
        unit: LedgerUnit,
        *,
        failed: bool,
        why: ErrorClass | None = None,
        sample: GuardrailSample | None = None,
        first: bool = False,
        now: float = 0.0,
    ) -> None:
        """Ends a request of the unit. A caller who hung up did not fail.

        why: it failed. sample: for the guardrails, where there are any. first: it was the
        unit's first. now: monotonic seconds.
        """
        unit.pending -= 1
        if first:
            unit.awaited = False
            if self._rule.feedback_s:
                unit.heard_until_s = now + self._rule.feedback_s
        if unit.block is None or unit.fixed:
            return
        if sample is not None:
            if first:
                unit.values = sample.values
            if not unit.failed:
                unit.bad |= sample.bad
        if failed:
            unit.why = unit.why or why
            unit.failed = unit.shut = True
        self._settle(unit)

    def note_feedback(self, unit: LedgerUnit, *, bad: bool, now: float) -> bool:
        """Enters what a user said of the unit's answer. False when it comes too late."""
        self._hears = True
        return unit.note_feedback(bad=bad, now=now)

    def judged(self, unit: LedgerUnit | None, judged: JudgeOutcome, cost_usd: float) -> None:
        """What the judge said of the unit's first answer. unit: None where it is none's first.

        A verdict that comes after its block is out changes nothing; its cost counts.
        """
        self._judge_usd += cost_usd
        if unit is None or unit.block is None or not unit.judging:
            return
        unit.judge(judged)
        unit.block.unjudged -= 1

    @property
    def late_claims(self) -> Sequence[KeyClaim]:
        """Lists the claims of blocks that went out without an answer to them, oldest first."""
        return tuple(self._late)

    def forget_late_claim(self) -> None:
        """Forgets the oldest late claim: the rollout's ledger has its keys."""
        self._late.popleft()

    def claims(self, now: float, at: datetime, *, final: bool = False) -> list["BlockClaim"]:
        """Lists the claims of the blocks that have closed and whose keys the rollout's ledger
        was not asked for yet, oldest first. final: closes all.

        A block closes by admissions and time alone, so who of two routers is the first to claim
        a key has nothing to do with what its requests came to.
        """
        if not self._asks_ledger:
            return []
        if final:
            self._close_all(now, at)
        else:
            self._close_aged(now, at)
        return [BlockClaim(self, block) for block in self._waiting if not block.claimed]

    def claim_of(self, block: OpenBlock) -> KeyClaim:
        """Computes what a closed block asks of the rollout's ledger. It may take a moment."""
        prints = [fingerprint(self._rule.ledger_salt, unit.key) for unit in block.units]
        return KeyClaim(self._rollout, block.period, prints)

    def enter_histories(self, block: OpenBlock, histories: Sequence[KeyHistory]) -> None:
        """Enters what the ledger answered to a block's claim."""
        for unit, history in zip(block.units, histories, strict=True):
            unit.history = history
        block.claimed = True

    def tick(self, now: float, at: datetime) -> list[ObservationBlock]:
        """Let time pass; the blocks that are complete now, in order."""
        self._shut_sessions(now - self._rule.session_s)
        self._close_aged(now, at)
        return self._complete(now - self._rule.missing_s, now - JUDGED_WITHIN_S, now)

    def close(self, now: float, at: datetime) -> list[ObservationBlock]:
        """Closes every block with what is known, as the router ends, after its last request."""
        self._shut_sessions(float("inf"))
        self._close_all(now, at)
        return self._complete(float("inf"), float("inf"), float("inf"))

    def _begin_period(self, now: float, at: datetime) -> None:
        if self._zero_s is None:
            # Wall time is asked once: later jumps of it move no period.
            self._zero_s = now - self._rule.age_s(at)
        period = 1 + int((now - self._zero_s) // self._rule.period_s)
        if period > self._period:
            self._close_all(now, at)
            self._period = period
            self._shut_sessions(float("inf"))
            self._seen.clear()

    def _unit_of(self, key: int, new: "_New") -> LedgerUnit | None:
        """The key's unit that the request belongs to; None where it counts no more."""
        unit = self._sessions.get(key)
        if unit is not None:
            joins = (
                not unit.failed
                and unit.admitted < self._rule.session_requests
                and new.now - unit.started_s < self._rule.session_s
                # The weight rose in between: another arm's outcome is not this unit's.
                and unit.canary is new.canary
            )
            return unit if joins else None
        if key in self._seen:
            return None
        if len(self._seen) >= self._max_keys:
            self.unscored += 1
            return None
        self._seen.add(key)
        unit = self._new_unit(new)
        if self._rule.unit is ExposureUnit.SESSION:
            self._sessions[key] = unit
        else:
            unit.shut = True
        return unit

    def _new_unit(self, new: "_New") -> LedgerUnit:
        block = self._open.get(new.weight_bps)
        if block is None:
            block = OpenBlock(new.weight_bps, new.now, new.at, self._period)
            self._open[new.weight_bps] = block
        unit = LedgerUnit(
            block,
            new.now,
            key=new.key,
            canary=new.canary,
            traits=new.traits,
            awaited=bool(self._rule.guardrails),
        )
        block.units.append(unit)
        block.out += 1
        block.unjudged += unit.judging
        if len(block.units) >= self._rule.block_size:
            self._close(block, new.now, new.at)
        return unit

    def _close_aged(self, now: float, at: datetime) -> None:
        for block in list(self._open.values()):
            if now - block.opened_s >= MAX_BLOCK_AGE_S:
                self._close(block, now, at)

    def _close_all(self, now: float, at: datetime) -> None:
        for block in list(self._open.values()):
            self._close(block, now, at)

    def _close(self, block: OpenBlock, now: float, at: datetime) -> None:
        block.closed_s, block.closed_at = now, at
        self._waiting.append(block)
        del self._open[block.weight_bps]

    def _shut_sessions(self, started_before: float) -> None:
        due = []
        for key, unit in self._sessions.items():
            if unit.started_s > started_before:
                break
            due.append(key)
        for key in due:
            unit = self._sessions.pop(key)
            unit.shut = True
            self._settle(unit)

    def _settle(self, unit: LedgerUnit) -> None:
        """Fix its outcome, if it is known: by its first failure, or by all its requests."""
        if unit.block is None or unit.fixed or unit.awaited:
            return
        whole = unit.shut or unit.admitted >= self._rule.session_requests
        if unit.failed or (whole and not unit.pending):
            unit.fixed = unit.shut = True
            unit.block.out -= 1

    def _complete(
        self, overdue_s: float, judged_s: float, now: float
    ) -> list[ObservationBlock]:
        """overdue_s, judged_s: blocks that closed until then wait no more, for anything and for
        the judge.
        """
        done: list[ObservationBlock] = []
        while self._waiting:
            block = self._waiting[0]
            closed_s = float("inf") if block.closed_s is None else block.closed_s
            if block.out and closed_s > overdue_s:
                break
            if block.unjudged and closed_s > max(judged_s, overdue_s):
                break
            if self._may_hear(block, now) and closed_s > overdue_s:
                break
            if self._asks_ledger and not block.claimed and closed_s > overdue_s:
                break
            self._waiting.popleft()
            if self._asks_ledger and not block.claimed:
                self._late.append(self.claim_of(block))
            units = self._release(block)
            # All of them counted already: nothing is said, and no number used up.
            if units:
                self._sequence += 1
                done.append(self._handed_out(block, units))
        return done

    def _may_hear(self, block: OpenBlock, now: float) -> bool:
        """Whether feedback may still come, in each arm as long after its answers."""
        if not (self._hears and self._rule.feedback_s):
            return False
        return any(now < unit.heard_until_s < float("inf") for unit in block.units)

    @property
    def _asks_ledger(self) -> bool:
        return bool(self._rule.ledger_salt) and self._rule.unit.counts_keys

    def _release(self, block: OpenBlock) -> list[LedgerUnit]:
        """Lets the block's units go; returns those that count. What is still out is a failure
        from now on, in both arms alike.
        """
        units, block.units = block.units, []
        for unit in units:
            unit.block = None
            if unit.judging:
                unit.judge(JudgeOutcome.NO_VERDICT)
        return [unit for unit in units if unit.history is not KeyHistory.COUNTED]

    def _handed_out(self, block: OpenBlock, units: Sequence[LedgerUnit]) -> ObservationBlock:
        if self._asks_ledger and not block.claimed:
            # It may count as never seen: no value of those before it may count there twice.
            self._pool.forget()
            self._new_pool.forget()
        part, share = (block.period, block.weight_bps), block.weight_bps / 10_000
        ranked = self._pool.take(units, part, share)
        findings, errors = self._summarize(units, ranked)
        counts = dict(findings.counts)
        if Guardrail.FEEDBACK in counts:
            counts[Guardrail.FEEDBACK] = _opinions(counts[Guardrail.FEEDBACK], units)
        if Guardrail.JUDGE in counts:
            spent_usd, self._judge_usd = self._judge_usd, 0.0
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
        self, units: Sequence[LedgerUnit], ranked: Sequence[CompletedUnit]
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
        ranked = self._new_pool.take(new, block.weight_bps, block.weight_bps / 10_000)
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
    all_, canary = Counter[str](), Counter[str]()
    for unit in failed:
        why = ArmFailure.MISSING if unit.lost else unit.why
        if why is not None:
            all_[why.value] += 1
            canary[why.value] += unit.canary
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


class BlockClaim(NamedTuple):
    """Names a block that has closed, and whose keys the rollout's ledger is to be asked for."""

    ledger: Ledger
    block: OpenBlock


class _New(NamedTuple):
    """A request that may begin a unit."""

    key: str | int
    canary: bool
    weight_bps: int
    now: float
    at: datetime
    traits: int
