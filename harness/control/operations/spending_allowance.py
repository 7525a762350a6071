"""A process's allowance: what it may spend on one purpose before it asks the database again.
All processes together never hold more than the monthly cap leaves (`ports.Spending`).

A call takes the most that it can cost (`take`, or `try_take`, which never waits), and `settle`
puts what it did cost in its place. `refresh` writes that down, at least every few seconds: an
allowance that is silent for longer lapses, and counts as spent.
"""

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from harness.domain.operations.spending import (
    HOLD_LASTS,
    SpendingHold,
    SpendingPurpose,
    describe_refusal,
    describe_unpriced,
    month_of,
)
from harness.ports import Clock
from harness.store.store import Store
from harness.store.transaction import Transaction

# So many calls' worth is held at a time, while the cap leaves that much.
CALLS_HELD: Final = 4
RENEWED_EVERY_S: Final = 10.0
# From then on others may count the hold as spent.
TRUSTED_S: Final = HOLD_LASTS.total_seconds() / 2
# A hold that nobody draws on is given back.
IDLE_S: Final = 15.0
# After a refusal, before `refresh` asks again for those that do not wait.
REFUSED_PAUSE_S: Final = 5.0
# At the longest, before `take` looks again whether a call of its own has ended.
WAIT_S: Final = 1.0


@dataclass(eq=False)
class _Account:
    """One hold, and what was done with it since it was written last."""

    hold: SpendingHold
    free_usd: float = 0.0
    taken_usd: float = 0.0
    taken: int = 0  # calls under way
    spent_usd: float = 0.0
    calls: int = 0
    unpriced: int = 0
    written_s: float = -math.inf
    drawn_s: float = -math.inf


@dataclass(frozen=True, slots=True)
class TakenAmount:
    """What a call took of an allowance."""

    usd: float
    priced: bool
    account: _Account = field(repr=False)


class Allowance:
    """What this process may spend on a purpose. Thread-safe. subject: what it is for.

    holds_always: False where nobody may wait for a hold while there is no cap; then a cap that
    is set counts from the next `refresh` on.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        new_id: Callable[[str], str],
        purpose: SpendingPurpose,
        subject: str,
        *,
        holds_always: bool = True,
    ) -> None:
        self._store = store
        self._clock = clock
        self._new_id = new_id
        self._purpose = purpose
        self._subject = subject
        self._writing = threading.Lock()  # before the other one
        self._numbers = threading.Condition()  # held for no longer than a sum takes
        self._obstacle = ""  # what the last one was refused for
        self._holds_always = holds_always
        self._accounts: list[_Account] = []
        self._without_cap: list[_Account] = []  # calls without a hold
        self._cap_usd: float | None = None
        self._cap_known = False
        self._cap_read_s = -math.inf
        self._wanted_usd: float | None = None
        self._rests_until = -math.inf
        self._returned = 0  # calls that left something
        # Why the last call was refused, empty once one was not: a run ends where it says so,
        # and so it is not said while a call still waits for others.
        self.refusal = ""

    def try_take(self, usd: float | None, model: str) -> TakenAmount | None:
        """Takes what a call can cost, if it is at hand; never waits. usd: None where the
        model's price is not known.
        """
        with self._numbers:
            return self._take(usd, model, self._clock.now())

    def take(self, usd: float | None, model: str) -> TakenAmount | None:
        """Takes what a call can cost; asks the database for more. None where the cap leaves too
        little: `refusal` says it. Raises StoreUnavailable.
        """
        while True:
            before = self.returned
            if (taken := self._take_or_ask(usd, model)) is not None:
                self.refusal = ""
                return taken
            # A call of ours that ends leaves what it did not cost.
            with self._numbers:
                if self._returned == before:
                    if not self._calls_under_way:
                        self.refusal = self._obstacle
                        return None
                    self._numbers.wait(WAIT_S)

    def take_or_ask(self, usd: float | None, model: str) -> TakenAmount | None:
        """Takes what a call can cost; asks the database for more, once, and waits for no call.
        None where the cap leaves too little beside the calls under way: `refusal` says it.
        Raises StoreUnavailable.
        """
        taken = self._take_or_ask(usd, model)
        self.refusal = self._obstacle if taken is None else ""
        return taken

    def _take_or_ask(self, usd: float | None, model: str) -> TakenAmount | None:
        taken = self.try_take(usd, model)
        if taken is None:
            self.refresh(at_once=True)
            taken = self.try_take(usd, model)
        return taken

    def settle(self, taken: TakenAmount, cost_usd: float | None) -> None:
        """Puts what a call cost in the place of what it took; None where nobody knows."""
        cost = cost_usd or 0.0
        account = taken.account
        with self._numbers:
            account.taken -= 1
            account.taken_usd = max(0.0, account.taken_usd - taken.usd)
            account.free_usd = max(0.0, account.free_usd + taken.usd - cost)
            account.spent_usd += cost
            account.calls += 1
            account.unpriced += cost_usd is None
            self._returned += 1
            self._numbers.notify_all()

    def give_back(self, taken: TakenAmount) -> None:
        """Undoes a taking: nothing was asked."""
        account = taken.account
        with self._numbers:
            account.taken -= 1
            account.taken_usd = max(0.0, account.taken_usd - taken.usd)
            account.free_usd += taken.usd
            self._returned += 1
            self._numbers.notify_all()

    def refresh(self, *, at_once: bool = False) -> None:
        """Writes what was spent, renews the hold, and raises it where calls wanted more.
        at_once: somebody waits for it. Raises StoreUnavailable; then nothing is lost.
        """
        with self._writing:
            if at_once or self._is_due():
                self._write(ends=False)

    def close(self) -> None:
        """Writes what was spent and gives the rest up; what calls under way took lapses, and
        counts as spent. Raises StoreUnavailable.
        """
        with self._writing:
            if self._accounts or self._without_cap:
                self._write(ends=True)

    def _take(self, usd: float | None, model: str, now: datetime) -> TakenAmount | None:
        if self._cap_known and self._cap_usd is None and not self._holds_always:
            return self._take_without_hold(usd, now)
        if not self._cap_known or (usd is None and self._cap_usd is not None):
            self._want(usd or 0.0)
            if self._cap_known:
                self._obstacle = describe_unpriced(model, self._cap_usd or 0.0)
            return None
        need = usd or 0.0
        account = self._current(now)
        trusted = account is not None and self._silent_s(account) < TRUSTED_S
        if account is None or not trusted or account.free_usd < need:
            self._want(need)
            return None
        account.free_usd -= need
        account.taken_usd += need
        account.taken += 1
        account.drawn_s = self._clock.monotonic()
        return TakenAmount(need, usd is not None, account)

    def _take_without_hold(self, usd: float | None, now: datetime) -> TakenAmount:
        month = month_of(now)
        account = next((a for a in self._without_cap if a.hold.month == month), None)
        if account is None:
            account = _Account(SpendingHold("", self._purpose, self._subject, month))
            self._without_cap.append(account)
        account.taken += 1
        return TakenAmount(0.0, usd is not None, account)

    @property
    def is_idle(self) -> bool:
        """Tells that no call is under way whose end might leave something."""
        with self._numbers:
            return self._calls_under_way == 0

    @property
    def returned(self) -> int:
        """Counts calls that ended: a refusal is final where none did, and none goes on."""
        with self._numbers:
            return self._returned

    @property
    def has_cap(self) -> bool:
        """Tells whether there is a cap, or may be one: nobody has asked the database yet."""
        with self._numbers:
            return self._cap_usd is not None or not self._cap_known

    @property
    def _calls_under_way(self) -> int:
        return sum(account.taken for account in self._accounts)

    def _want(self, usd: float) -> None:
        self._wanted_usd = max(usd, self._wanted_usd or 0.0)

    def _current(self, now: datetime) -> _Account | None:
        month = month_of(now)
        return next((a for a in self._accounts if a.hold.month == month), None)

    def _silent_s(self, account: _Account) -> float:
        return self._clock.monotonic() - account.written_s

    def _is_due(self) -> bool:
        now_s = self._clock.monotonic()
        with self._numbers:
            if self._wanted_usd is not None and now_s >= self._rests_until:
                return True
            if not self._holds_always and not self._cap_known:
                return True
            if self._without_cap and now_s - self._cap_read_s >= RENEWED_EVERY_S:
                return True
            if any(a.calls for a in self._without_cap):
                return True
            return any(a.calls or self._silent_s(a) >= RENEWED_EVERY_S for a in self._accounts)

    def _write(self, *, ends: bool) -> None:
        """One unit of work. What comes of it is noted here once it is committed: after a failed
        one, what was spent is written the next time.
        """
        now = self._clock.now()
        accounts = [*self._accounts, *self._without_cap]
        notes = [self._note(account, now, ends=ends) for account in accounts]
        with self._numbers:
            wanted, self._wanted_usd = self._wanted_usd, None
        try:
            with self._store.write() as tx:
                lapsed = [note.account for note in notes if not note.write(tx, now)]
                cap_usd = tx.spending.cap_usd()
                raised = None
                if wanted is not None and not ends:
                    raised = self._raise(tx, wanted, lapsed, now)
        except BaseException:
            with self._numbers:
                if wanted is not None:
                    self._want(wanted)
                for note in notes:
                    note.undo()
            raise
        now_s = self._clock.monotonic()
        with self._numbers:
            self._cap_usd, self._cap_known, self._cap_read_s = cap_usd, True, now_s
            for note in notes:
                note.account.written_s = now_s
                if note.ends or note.account in lapsed:
                    holds = note.account.hold.id
                    (self._accounts if holds else self._without_cap).remove(note.account)
            if raised is not None:
                account, usd = raised
                account.free_usd += usd
                account.written_s = account.drawn_s = now_s
                if account not in self._accounts:
                    self._accounts.append(account)

    def _raise(
        self, tx: Transaction, wanted: float, lapsed: Sequence[_Account], now: datetime
    ) -> tuple[_Account, float] | None:
        with self._numbers:
            account = self._current(now)
        if account is None or account in lapsed:
            hold_id = self._new_id("hold_")
            month = month_of(now)
            account = _Account(SpendingHold(hold_id, self._purpose, self._subject, month))
        for usd in dict.fromkeys((wanted * CALLS_HELD, wanted)):
            if tx.spending.hold(account.hold, usd, now):
                return account, usd
        self._rests_until = self._clock.monotonic() + REFUSED_PAUSE_S
        self._obstacle = describe_refusal(tx.spending.month(account.hold.month))
        return None

    def _note(self, account: _Account, now: datetime, *, ends: bool) -> "_Note":
        """What is to be written of an account. Takes what is new off it."""
        idle = self._clock.monotonic() - account.drawn_s > IDLE_S
        with self._numbers:
            if ends or idle or account.hold.month != month_of(now):
                account.free_usd = 0.0
            note = _Note(
                account,
                left_usd=account.free_usd + account.taken_usd,
                spent_usd=account.spent_usd,
                calls=account.calls,
                unpriced=account.unpriced,
                ends=account.taken == 0 and (ends or account.free_usd == 0.0),
            )
            account.spent_usd, account.calls, account.unpriced = 0.0, 0, 0
        return note


@dataclass(frozen=True)
class _Note:
    """What is written of an account."""

    account: _Account
    left_usd: float
    spent_usd: float
    calls: int
    unpriced: int
    ends: bool

    def write(self, tx: Transaction, now: datetime) -> bool:
        """False where the hold has lapsed: all of it counts as spent already."""
        if not self.account.hold.id:
            if self.calls:
                tx.spending.add(
                    self.account.hold, self.spent_usd, calls=self.calls, unpriced=self.unpriced
                )
            return True
        lives = tx.spending.settle(
            self.account.hold,
            left_usd=self.left_usd,
            spent_usd=self.spent_usd,
            calls=self.calls,
            unpriced=self.unpriced,
            now=now,
        )
        if lives and self.ends:
            tx.spending.end(self.account.hold)
        return lives

    def undo(self) -> None:
        self.account.spent_usd += self.spent_usd
        self.account.calls += self.calls
        self.account.unpriced += self.unpriced
