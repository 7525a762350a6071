"""Groups a rollout's requests into units and blocks of evidence (statistics.md §2.1).

One ledger serves all workers, so that a sticky key counts once. A block closes by admissions
and time alone, never because of an outcome; blocks are handed out whole and in order. The
database says which keys have counted (§2.12); nothing else here does I/O.
"""

import logging
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from harness.frame.errors import StoreUnavailable
from harness.frame.ports import Clock
from harness.gate.online.guardrails import FEEDBACK_S, UnitRule
from harness.gate.online.key_ledger import KeyClaim, KeyHistory, fingerprint
from harness.gate.online.observation import ObservationBlock
from harness.proposals.judge import JudgeOutcome
from router.recording.observation_builder import ObservationBuilder
from router.recording.scored_units import GuardrailSample, LedgerUnit, OpenBlock

if TYPE_CHECKING:
    from harness.store.router_store import RouterStore

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


log = logging.getLogger(__name__)

# Claims in one transaction: after an hour without a database there are thousands, and each
# commit waits for a disk.
_TOGETHER: Final = 50


class _Claim(NamedTuple):
    """of: a closed block, or the claim of one that went out already."""

    ledger: Ledger
    of: OpenBlock | KeyClaim

    @property
    def rollout(self) -> str:
        return self.ledger.rollout

    @property
    def keys(self) -> KeyClaim:
        """Computed for few blocks at a time: all that wait would take much of a second."""
        return self.of if isinstance(self.of, KeyClaim) else self.ledger.claim_of(self.of)


class KeyClaims:
    """Asks for all ledgers of a process, and enters the answers in them.

    lock: held while a ledger is read or changed.
    """

    def __init__(
        self, store: "RouterStore", clock: Clock, lock: threading.Lock, counters: Counter[str]
    ) -> None:
        self._store = store
        self._clock = clock
        self._lock = lock
        self._counters = counters
        self._refused = set[str]()  # rollouts whose refusal was logged

    def ask(self, ledgers: Iterable[Ledger], *, final: bool) -> None:
        claims = self._due(ledgers, final=final)
        refused = set[str]()
        while claims:
            some, claims = claims[:_TOGETHER], claims[_TOGETHER:]
            # A rollout's later claims wait for its earlier ones: keys would be new in both.
            some = [claim for claim in some if claim.rollout not in refused]
            try:
                refused |= self._enter(some)
            except StoreUnavailable:
                self._counters["claims_failed"] += 1
                return

    def _due(self, ledgers: Iterable[Ledger], *, final: bool) -> list[_Claim]:
        now, at = self._clock.monotonic(), self._clock.now()
        with self._lock:
            ledgers = list(ledgers)
            claims = [_Claim(owner, keys) for owner in ledgers for keys in owner.late_claims]
            for ledger in ledgers:
                closed = ledger.unclaimed(now, at, final=final)
                claims += [_Claim(ledger, block) for block in closed]
        # In one order for all routers: two of them never wait for each other.
        claims.sort(key=lambda claim: claim.rollout)
        return claims

    def _enter(self, claims: Sequence[_Claim]) -> set[str]:
        """Enters claims in one transaction, or, if that is refused, in one for each rollout, so
        that one does not hold up the others. Returns the rollouts that are refused, which wait
        as for a database that is away. Raises StoreUnavailable.
        """
        if not claims:
            return set()
        asked = [claim.keys for claim in claims]
        try:
            with self._store.write() as tx:
                found = [tx.observations.claim_keys(keys) for keys in asked]
        except StoreUnavailable:
            raise
        except Exception:
            rollouts = defaultdict(list)
            for claim in claims:
                rollouts[claim.rollout].append(claim)
            if len(rollouts) > 1:
                return set().union(*map(self._enter, rollouts.values()))
            if not self._refused.issuperset(rollouts):
                log.exception("the store refused the claims of %d blocks", len(claims))
            self._refused.update(rollouts)
            self._counters["claims_failed"] += 1
            return set(rollouts)
        self._refused.difference_update(claim.rollout for claim in claims)
        self._note(claims, found)
        return set()

    def _note(self, claims: Sequence[_Claim], found: Sequence[Sequence[KeyHistory]]) -> None:
        known = Counter[KeyHistory]()
        with self._lock:
            for claim, histories in zip(claims, found, strict=True):
                if isinstance(claim.of, KeyClaim):
                    claim.ledger.forget_late_claim()
                    continue
                claim.ledger.enter_histories(claim.of, histories)
                known.update(histories)
        self._counters["units_counted_elsewhere"] += known[KeyHistory.COUNTED]
