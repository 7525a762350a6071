"""Asks the database which keys of closed blocks a rollout has counted (statistics.md §2.12)."""

import logging
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from harness.frame.errors import StoreUnavailable
from harness.frame.ports import Clock
from harness.gate.online.key_ledger import KeyClaim, KeyHistory
from harness.store.router_store import RouterStore
from router.recording.ledger import Ledger
from router.recording.open_block import OpenBlock

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
        self, store: RouterStore, clock: Clock, lock: threading.Lock, counters: Counter[str]
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
