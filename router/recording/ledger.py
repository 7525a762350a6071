"""Groups a rollout's requests into exposures and blocks of evidence (statistics.md §2.1).

One ledger serves all workers, so that a sticky key counts once. Only admissions and time
close a block, never an outcome. The ledger returns whole blocks in order. The database
stores the keys that have counted (§2.12). This is the only I/O of this module.
`observation_builder` turns a block into its row; the gate reads the rows.
"""

import logging
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from harness.frame.errors import StoreUnavailable
from harness.frame.ports import Clock
from harness.gate.online.guardrails import ExposureRule
from harness.gate.online.observation import (
    KeyClaim,
    KeyHistory,
    ObservationBlock,
    fingerprint,
)
from harness.gate.online.outcome import ExposureOutcome, JudgeOutcome
from harness.gate.online.reading.observation_builder import ObservationBuilder
from harness.gate.online.reading.scored_exposures import (
    GuardrailSample,
    LaterTurn,
    LedgerExposure,
    OpenBlock,
)
from harness.gate.online.rollout import FIRST_CALLERS
from harness.gate.online.uncounted import UncountedReason
from router.frame.caller_database import CallerDatabase
from router.recording.caller_windows import CallerWindows, WindowsOfLedger
from router.recording.late_blocks import LateBlocks

# A block of a quiet route closes before it is full, so that its data do not wait for hours.
MAX_BLOCK_AGE_S: Final = 60.0
MAX_KEYS: Final = 500_000
# A closed block waits this long for its judge's verdicts. Later verdicts do not count.
JUDGED_WITHIN_S: Final = 180.0
# The most claims in memory for blocks that the ledger sent before the database answered. New
# claims replace the oldest.
LATE_CLAIMS: Final = 10_000
# At a higher share, as in every bake, the database lists no callers of the candidate: they are
# most of the route's callers.
LISTED_BPS: Final = 5_000


class Ledger:
    """Keeps the exposures and blocks of one rollout for one router with all its workers.

    worker: the name in the stored blocks. Workers learn a new weight within seconds of one
    another, so requests at the old weight get a separate open block.

    A period remembers at most max_keys sticky keys. The router serves later keys without
    scoring them in either arm (`unscored`), because a forgotten key would count again as
    new.
    """

    def __init__(
        self,
        rollout: str,
        worker: str,
        rule: ExposureRule,
        *,
        max_keys: int = MAX_KEYS,
    ) -> None:
        self.unscored = 0
        self.rollout = rollout
        self._rule = rule
        self._max_keys = max_keys
        self._period = 1
        self._first_period_s: float | None = None  # when the first period began
        self._key_hashes: set[int] = set()
        self._open_blocks: dict[int, OpenBlock] = {}  # by weight; usually one
        self._newest_bps = 0  # weights only rise
        self._closed_blocks: deque[OpenBlock] = deque()  # closed blocks in order
        self._observations = ObservationBuilder(rollout, worker, rule)
        self._windows = CallerWindows(rollout, rule)
        self._late_blocks = LateBlocks(rule, self._windows)
        self._has_feedback = False  # whether users give feedback
        # Claims of blocks that were sent before the rollout's ledger answered, oldest first.
        # Their keys have counted, so the database must still learn them.
        self._late_claims: deque[KeyClaim] = deque(maxlen=LATE_CLAIMS)

    @property
    def idle(self) -> bool:
        """Whether no exposure is open or waits. Then an ended rollout needs no ledger."""
        return not (self._open_blocks or self._closed_blocks or self._late_blocks.waits)

    def admit(
        self,
        key: str | int,
        *,
        canary: bool,
        weight_bps: int,
        now: float,
        at: datetime,
        traits: int = 0,
        client: str = "",
    ) -> LedgerExposure | LaterTurn | None:
        """Admits a key's first request, or a later one in its window; None without a score.

        Args:
            now: monotonic seconds.
            at: wall time.
            client: the id of the client's key.
        """
        self._prepare(weight_bps, now, at)
        # hash() is salted per process, and this memory ends with the process.
        key_hash = hash(key)
        if key_hash in self._key_hashes:
            if not traits:
                return None
            return self._windows.admit(key_hash, canary=canary, now=now, at=at.timestamp())
        block = self._find_or_open_block(weight_bps, now, at)
        if len(self._key_hashes) >= self._max_keys:
            self.unscored += 1
            block.note_uncounted(UncountedReason.MAX_KEYS, canary=canary)
            return None
        self._key_hashes.add(key_hash)
        exposure = LedgerExposure(
            block,
            key=key,
            canary=canary,
            traits=traits,
            client=client,
            arrived_s=now,
            arrived_at=at.timestamp(),
        )
        if weight_bps == self._newest_bps:  # callers at an older share have no windows
            self._windows.open(key_hash, exposure)
        block.units.append(exposure)
        block.out += 1
        block.unjudged += exposure.judging
        if len(block.units) >= self._rule.block_size:
            self._close(block, now, at)
        return exposure

    def note_uncounted(
        self,
        key: str,
        *,
        canary: bool,
        weight_bps: int,
        now: float,
        at: datetime,
    ) -> None:
        """Counts a request without an exposure, of either arm, in the open block.

        Args:
            key: see `ObservationBlock.uncounted`. The ledger does not claim the caller's sticky
                key, so the caller can count later.
            now: monotonic seconds.
            at: wall time.
        """
        self._prepare(weight_bps, now, at)
        self._find_or_open_block(weight_bps, now, at).note_uncounted(key, canary=canary)

    def _prepare(
        self,
        weight_bps: int,
        now: float,
        at: datetime,
    ) -> None:
        """Begins the period and the weight of a request, and closes old blocks."""
        self._begin_period(now, at)
        self._close_aged(now, at)
        if weight_bps > self._newest_bps:
            self._newest_bps = weight_bps
            self._close_all(now, at)
            self._end_windows(now, at)

    def _find_or_open_block(
        self,
        weight_bps: int,
        now: float,
        at: datetime,
    ) -> OpenBlock:
        """Returns the open block of a weight. Opens a block if the weight has none."""
        block = self._open_blocks.get(weight_bps)
        if block is None:
            block = self._open_blocks[weight_bps] = OpenBlock(weight_bps, now, at, self._period)
        return block

    def _end_windows(self, now: float, at: datetime) -> None:
        """Ends the windows of all callers of both arms, after a change of the share."""
        self._windows.end()
        for block in (
            *self._open_blocks.values(),
            *self._closed_blocks,
            *self._late_blocks.sent_blocks,
        ):
            block.ended_s = min(block.ended_s, now)
            block.ended_at = min(block.ended_at, at.timestamp())

    def finish(
        self,
        exposure: LedgerExposure | LaterTurn,
        *,
        outcome: ExposureOutcome,
        sample: GuardrailSample | None = None,
        served: str = "",
        now: float = 0.0,
    ) -> None:
        """Ends an exposure with its outcome. A second outcome changes nothing.

        Args:
            served: the model that the answer names.
            now: monotonic seconds.
        """
        if isinstance(exposure, LaterTurn):
            self._windows.finish(exposure, outcome)
            return
        if exposure.block is None or not exposure.lost:
            return
        exposure.heard_until_s = now + self._rule.missing_s
        self._windows.note(exposure, outcome, exposure.arrived_at)
        if sample is not None:
            exposure.values = sample.values
            exposure.bad = exposure.bad | sample.bad
            exposure.text = sample.text
            exposure.text_length = sample.text_length
            exposure.question = sample.question
        exposure.outcome = outcome
        exposure.served = served
        exposure.block.out -= 1

    def note_feedback(
        self,
        exposure: LedgerExposure,
        *,
        bad: bool,
        now: float,
    ) -> bool:
        """Enters feedback about an exposure; False if it is too late."""
        self._has_feedback = True
        return exposure.note_feedback(bad=bad, now=now)

    def judged(
        self,
        exposure: LedgerExposure | None,
        judged: JudgeOutcome,
        cost_usd: float,
    ) -> None:
        """Enters a verdict. A late verdict changes nothing, but its cost counts."""
        self._observations.judge_usd += cost_usd
        if exposure is None or exposure.block is None or not exposure.judging:
            return
        exposure.judge(judged)
        exposure.block.unjudged -= 1

    @property
    def late_claims(self) -> Sequence[KeyClaim]:
        """The claims of blocks that left before the database answered, oldest first."""
        return tuple(self._late_claims)

    def forget_late_claim(self) -> None:
        self._late_claims.popleft()

    def unclaimed(
        self,
        now: float,
        at: datetime,
        *,
        final: bool = False,
    ) -> list[OpenBlock]:
        """Returns closed blocks with unclaimed keys, oldest first.

        Args:
            final: closes all blocks.
        """
        if not self._rule.keeps_ledger:
            return []
        if final:
            self._close_all(now, at)
        else:
            self._close_aged(now, at)
        return [block for block in self._closed_blocks if not block.claimed]

    def claim_of(self, block: OpenBlock) -> KeyClaim:
        """Returns the claim of a block's keys, as fingerprints with the rollout's own salt."""
        prints = [fingerprint(self._rule.ledger_salt, exposure.key) for exposure in block.units]
        is_listed = block.weight_bps <= LISTED_BPS or self.rollout.endswith(FIRST_CALLERS)
        candidates = frozenset(
            print_
            for print_, exposure in zip(prints, block.units, strict=True)
            if exposure.canary and is_listed
        )
        return KeyClaim(self.rollout, block.period, prints, candidates)

    def enter_histories(self, block: OpenBlock, histories: Sequence[KeyHistory]) -> None:
        """Enters the database's answer to a claim.

        Args:
            histories: one for each exposure, in the block's order.
        """
        for exposure, history in zip(block.units, histories, strict=True):
            exposure.history = history
        block.claimed = True

    def tick(self, now: float, at: datetime) -> list[ObservationBlock]:
        """Returns blocks that are complete or have overdue outcomes.

        Args:
            now: monotonic seconds.
        """
        self._close_aged(now, at)
        self._windows.forget_ended(now)
        blocks = self._take_complete(now - self._rule.missing_s, now - JUDGED_WITHIN_S, now)
        return blocks + self._take_late(now)

    def close(self, now: float, at: datetime) -> list[ObservationBlock]:
        """Closes and returns all blocks at the process's end, without waiting for outcomes.

        The windows end now, in both arms.
        """
        self._close_all(now, at)
        self._end_windows(now, at)
        blocks = self._take_complete(float("inf"), float("inf"), now)
        return blocks + self._take_late(now, final=True)

    def _take_late(self, now: float, *, final: bool = False) -> list[ObservationBlock]:
        late = self._late_blocks.take(now, hears=self._has_feedback, final=final)
        return [self._observations.number(block) for block in late]

    def due_windows(self, now: float, at: datetime, *, final: bool) -> WindowsOfLedger | None:
        """Returns the windows if they have failures to write or wait for others' failures.

        Args:
            final: at the process's end, all windows wait.
        """
        if not (self._rule.has_windows and self._rule.keeps_ledger):
            return None
        if not (final or self._windows.unsent or self._late_blocks.awaits_failures(now)):
            return None
        oldest_s = self._rule.window_known_s + self._rule.missing_s + MAX_BLOCK_AGE_S
        return WindowsOfLedger(self._windows, at.timestamp() - oldest_s)

    def _begin_period(self, now: float, at: datetime) -> None:
        """Begins the next period if its time has come. In it, a key may count once again."""
        if self._first_period_s is None:
            # Reads the wall clock only once, so that a change of the clock moves no period.
            self._first_period_s = now - self._rule.age_s(at)
        period = 1 + int((now - self._first_period_s) // self._rule.period_s)
        if period > self._period:
            self._close_all(now, at)
            self._period = period
            self._key_hashes.clear()

    def _close_aged(self, now: float, at: datetime) -> None:
        for block in list(self._open_blocks.values()):
            if now - block.opened_s >= MAX_BLOCK_AGE_S:
                self._close(block, now, at)

    def _close_all(self, now: float, at: datetime) -> None:
        for block in list(self._open_blocks.values()):
            self._close(block, now, at)

    def _close(
        self,
        block: OpenBlock,
        now: float,
        at: datetime,
    ) -> None:
        block.closed_s = now
        block.closed_at = at
        self._closed_blocks.append(block)
        del self._open_blocks[block.weight_bps]

    def _take_complete(
        self,
        overdue_s: float,
        judged_s: float,
        now: float,
    ) -> list[ObservationBlock]:
        """Returns complete blocks in order. Blocks after a waiting block wait, too.

        Args:
            overdue_s: a block that closed before this time, in monotonic seconds, waits no
                longer for its outcomes.
            judged_s: the same time for its verdicts.
        """
        blocks: list[ObservationBlock] = []
        while self._closed_blocks:
            block = self._closed_blocks[0]
            closed_s = float("inf") if block.closed_s is None else block.closed_s
            if block.out and closed_s > overdue_s:
                break
            if block.unjudged and closed_s > max(judged_s, overdue_s):
                break
            if self._rule.keeps_ledger and not block.claimed and closed_s > overdue_s:
                break
            self._closed_blocks.popleft()
            if self._rule.keeps_ledger and not block.claimed:
                self._late_claims.append(self.claim_of(block))
            exposures = block.release()
            # If all exposures of a block have counted before, it is empty and gets no number.
            if exposures or block.uncounted:
                row = self._observations.build(block, exposures)
                if not self._observations.values_wait:
                    for exposure in exposures:
                        exposure.values = None  # late outcomes wait for minutes, and need none
                self._late_blocks.add(block, exposures, row, now)
                blocks.append(row)
        return blocks


log = logging.getLogger(__name__)

# Claims in one transaction: after an outage, thousands wait, and a commit takes time.
_CLAIMS_PER_TRANSACTION: Final = 50


class _Claim(NamedTuple):
    """The claim of a closed block, or of a sent block."""

    ledger: Ledger
    of: OpenBlock | KeyClaim

    @property
    def rollout(self) -> str:
        return self.ledger.rollout

    @property
    def keys(self) -> KeyClaim:
        """The block's keys, computed on access: all blocks together would take a second."""
        return self.of if isinstance(self.of, KeyClaim) else self.ledger.claim_of(self.of)


class KeyClaims:
    """Claims keys for all ledgers of a process, and enters the answers.

    lock: guards the ledgers.
    """

    def __init__(
        self,
        store: CallerDatabase,
        clock: Clock,
        lock: threading.Lock,
        counters: Counter[str],
    ) -> None:
        self._store = store
        self._clock = clock
        self._lock = lock
        self._counters = counters
        self._logged_rollouts = set[str]()  # rollouts whose refusal is logged

    def ask(self, ledgers: Iterable[Ledger], *, final: bool) -> None:
        """Claims the keys of closed blocks. While the database is down, the claims wait.

        Args:
            final: closes all blocks first, at the process's end.
        """
        claims = self._list_due_claims(ledgers, final=final)
        refused = set[str]()
        while claims:
            batch = claims[:_CLAIMS_PER_TRANSACTION]
            claims = claims[_CLAIMS_PER_TRANSACTION:]
            # A rollout's later claims wait for its earlier ones. Otherwise a key would be new
            # in both.
            batch = [claim for claim in batch if claim.rollout not in refused]
            try:
                refused |= self._enter_claims(batch)
            except StoreUnavailable:
                self._counters["claims_failed"] += 1
                return

    def _list_due_claims(self, ledgers: Iterable[Ledger], *, final: bool) -> list[_Claim]:
        now = self._clock.monotonic()
        at = self._clock.now()
        with self._lock:
            ledgers = list(ledgers)
            claims = [_Claim(owner, keys) for owner in ledgers for keys in owner.late_claims]
            for ledger in ledgers:
                closed = ledger.unclaimed(now, at, final=final)
                claims += [_Claim(ledger, block) for block in closed]
        # All routers claim in the same order, so that no two routers wait for each other.
        claims.sort(key=lambda claim: claim.rollout)
        return claims

    def _enter_claims(self, claims: Sequence[_Claim]) -> set[str]:
        """Enters claims in one transaction. After a refusal, uses a transaction per rollout.

        So a refused rollout does not delay the others. Returns the refused rollouts; their
        claims wait, as during an outage of the database. Raises StoreUnavailable.
        """
        if not claims:
            return set()
        key_sets = [claim.keys for claim in claims]
        try:
            with self._store.write() as tx:
                answers = [tx.observations.claim_keys(keys) for keys in key_sets]
        except StoreUnavailable:
            raise
        except Exception:
            rollouts = defaultdict(list)
            for claim in claims:
                rollouts[claim.rollout].append(claim)
            if len(rollouts) > 1:
                return set().union(*map(self._enter_claims, rollouts.values()))
            if not self._logged_rollouts.issuperset(rollouts):
                log.exception("the store refused the claims of %d blocks", len(claims))
            self._logged_rollouts.update(rollouts)
            self._counters["claims_failed"] += 1
            return set(rollouts)
        self._logged_rollouts.difference_update(claim.rollout for claim in claims)
        self._note_histories(claims, answers)
        return set()

    def _note_histories(
        self, claims: Sequence[_Claim], answers: Sequence[Sequence[KeyHistory]]
    ) -> None:
        counts = Counter[KeyHistory]()
        with self._lock:
            for claim, histories in zip(claims, answers, strict=True):
                if isinstance(claim.of, KeyClaim):
                    claim.ledger.forget_late_claim()
                    continue
                claim.ledger.enter_histories(claim.of, histories)
                counts.update(histories)
        self._counters["units_counted_elsewhere"] += counts[KeyHistory.COUNTED]
