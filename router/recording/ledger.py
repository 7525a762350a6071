"""Groups a rollout's requests into units and blocks of evidence (statistics.md §2.1). No I/O.

One ledger serves all workers, so that a sticky key counts once. A block closes by admissions
and time alone, never because of an outcome; blocks are handed out whole and in order.
"""

from collections import deque
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from harness.gate.online.guardrails import FEEDBACK_S, UnitRule
from harness.gate.online.key_ledger import KeyClaim, KeyHistory, fingerprint
from harness.gate.online.observation import ObservationBlock
from harness.proposals.judge import JudgeOutcome
from router.recording.guardrail_sample import GuardrailSample
from router.recording.observation_builder import ObservationBuilder
from router.recording.open_block import LedgerUnit, OpenBlock

# A block of a quiet route closes with what it has, so that its data do not wait for hours.
MAX_BLOCK_AGE_S: Final = 60.0
MAX_KEYS: Final = 500_000
# How long a closed block waits for its judge's verdicts. A judge that takes longer has been
# given up by then.
JUDGED_WITHIN_S: Final = 180.0
# Claims kept of blocks that went out without an answer. Later ones push out the oldest.
LATE_CLAIMS: Final = 10_000


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
        self.rollout = rollout
        self._rule = rule
        self._max_keys = max_keys
        self._period = 1
        self._zero_s: float | None = None  # when the first period began
        self._seen: set[int] = set()
        self._open: dict[int, OpenBlock] = {}  # by weight; mostly one
        self._newest_bps = 0  # weights only rise
        self._waiting: deque[OpenBlock] = deque()  # closed, in order
        self._observations = ObservationBuilder(rollout, worker, rule)
        self._hears = False  # whether users say anything of answers
        # Of blocks that went out before the rollout's ledger answered, oldest first: their keys
        # have been counted, and are not new on a later day.
        self._late: deque[KeyClaim] = deque(maxlen=LATE_CLAIMS)

    @property
    def idle(self) -> bool:
        return not self._open and not self._waiting

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
        """Admits a key's request; None: not scored. now: monotonic seconds. at: wall time."""
        self._begin_period(now, at)
        self._close_aged(now, at)
        if weight_bps > self._newest_bps:
            self._newest_bps = weight_bps
            self._close_all(now, at)
        # hash() is salted per process: fine for a memory that ends with it.
        known = hash(key)
        if known in self._seen:
            return None
        if len(self._seen) >= self._max_keys:
            self.unscored += 1
            return None
        self._seen.add(known)
        block = self._open.get(weight_bps)
        if block is None:
            block = self._open[weight_bps] = OpenBlock(weight_bps, now, at, self._period)
        unit = LedgerUnit(block, key=key, canary=canary, traits=traits)
        block.units.append(unit)
        block.out += 1
        block.unjudged += unit.judging
        if len(block.units) >= self._rule.block_size:
            self._close(block, now, at)
        return unit

    def finish(
        self,
        unit: LedgerUnit,
        *,
        failed: bool,
        why: str = "",
        sample: GuardrailSample | None = None,
        now: float = 0.0,
    ) -> None:
        """Ends a unit. A caller who hung up did not fail. why: its failure's name."""
        unit.heard_until_s = now + FEEDBACK_S
        if unit.block is None or unit.fixed:
            return
        if sample is not None:
            unit.values, unit.bad = sample.values, unit.bad | sample.bad
        if failed:
            unit.why, unit.failed = why, True
        unit.fixed = True
        unit.block.out -= 1

    def note_feedback(self, unit: LedgerUnit, *, bad: bool, now: float) -> bool:
        self._hears = True
        return unit.note_feedback(bad=bad, now=now)

    def judged(self, unit: LedgerUnit | None, judged: JudgeOutcome, cost_usd: float) -> None:
        """Enters a verdict. A late one changes nothing; its cost counts."""
        self._observations.judge_usd += cost_usd
        if unit is None or unit.block is None or not unit.judging:
            return
        unit.judge(judged)
        unit.block.unjudged -= 1

    @property
    def late_claims(self) -> Sequence[KeyClaim]:
        return tuple(self._late)

    def forget_late_claim(self) -> None:
        self._late.popleft()

    def unclaimed(self, now: float, at: datetime, *, final: bool = False) -> list[OpenBlock]:
        """Closed blocks whose keys were not claimed yet, oldest first. final: closes all."""
        if not self._rule.keeps_ledger:
            return []
        if final:
            self._close_all(now, at)
        else:
            self._close_aged(now, at)
        return [block for block in self._waiting if not block.claimed]

    def claim_of(self, block: OpenBlock) -> KeyClaim:
        prints = [fingerprint(self._rule.ledger_salt, unit.key) for unit in block.units]
        return KeyClaim(self.rollout, block.period, prints)

    def enter_histories(self, block: OpenBlock, histories: Sequence[KeyHistory]) -> None:
        for unit, history in zip(block.units, histories, strict=True):
            unit.history = history
        block.claimed = True

    def tick(self, now: float, at: datetime) -> list[ObservationBlock]:
        self._close_aged(now, at)
        return self._complete(now - self._rule.missing_s, now - JUDGED_WITHIN_S, now)

    def close(self, now: float, at: datetime) -> list[ObservationBlock]:
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
            self._seen.clear()

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

    def _complete(
        self, overdue_s: float, judged_s: float, now: float
    ) -> list[ObservationBlock]:
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
            if self._rule.keeps_ledger and not block.claimed and closed_s > overdue_s:
                break
            self._waiting.popleft()
            if self._rule.keeps_ledger and not block.claimed:
                self._late.append(self.claim_of(block))
            units = block.release()
            # All of them counted already: nothing is said, and no number used up.
            if units:
                done.append(self._observations.build(block, units))
        return done

    def _may_hear(self, block: OpenBlock, now: float) -> bool:
        if not self._hears:
            return False
        return any(now < unit.heard_until_s < float("inf") for unit in block.units)
