"""Keeps one purpose of this process within the monthly cap. Before a call the meter adds its
own calls under way to the sum of stored costs, as it read it last, and compares that with the
cap. Afterwards it stores the call's cost.

Other processes do the same, so that together they may pass the cap by the calls that each has
under way. A process that is killed loses the costs of its last seconds.
"""

import asyncio
import math
import threading
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Final

from harness.domain.operations.spending import (
    MonthSpending,
    PurposeSpending,
    SpendingPurpose,
    describe_refusal,
    describe_unpriced,
    month_of,
)
from harness.ports import Clock
from harness.store.store import Store

READ_EVERY_S: Final = 10.0
# A call that may wait for the database has the sum read again after so long.
FRESH_S: Final = 2.0
# A sum that is older than this is not trusted any more.
TRUSTED_S: Final = 30.0
# A refusal is stored again only after so long.
REFUSED_PAUSE_S: Final = 5.0
# `take` looks again after so long whether one of its own calls has ended.
WAIT_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class TakenAmount:
    """The most that a call under way can cost."""

    usd: float
    month: date


@dataclass(slots=True)
class _Notes:
    """What the database does not have yet."""

    costs: dict[date, PurposeSpending] = field(default_factory=dict)
    refused_usd: float | None = None
    granted: bool = False  # a call was granted, after any refusal


class SpendingMeter:
    """Spends on one purpose. Thread-safe."""

    def __init__(self, store: Store, clock: Clock, purpose: SpendingPurpose) -> None:
        self._store = store
        self._clock = clock
        self._purpose = purpose
        self._writing = threading.Lock()  # taken before `_numbers`
        self._numbers = threading.Condition()  # held for no longer than a sum takes
        self._month: MonthSpending | None = None
        self._read_s = -math.inf
        self._notes = _Notes()
        self._in_write = _Notes()  # being stored: no sum has them yet
        self._refused_s = -math.inf  # when a refusal was stored last
        self._taken_usd = 0.0
        self._under_way = 0
        self._ended = 0
        self._obstacle = ""
        # Why the last call was refused. A run ends when it reads this, so it stays empty while
        # a call waits for others of its process.
        self.refusal = ""

    def try_take(self, usd: float | None, model: str) -> TakenAmount | None:
        """Takes what a call can cost, by the sum that was read last; never waits. usd: None
        where the model's price is not known.
        """
        now = self._clock.now()
        with self._numbers:
            month = self._month
            if month is None or month.month != month_of(now):
                return None
            if month.cap_usd is not None and not self._fits(month, usd, model):
                return None
            self._notes.granted = True
            taken = TakenAmount(usd or 0.0, month.month)
            self._taken_usd += taken.usd
            self._under_way += 1
            return taken

    def _fits(self, month: MonthSpending, usd: float | None, model: str) -> bool:
        if usd is None:
            self._obstacle = describe_unpriced(model, month.cap_usd or 0.0)
            return False
        if self._clock.monotonic() - self._read_s > TRUSTED_S:
            return False
        unwritten = (notes.costs.get(month.month) for notes in (self._notes, self._in_write))
        unwritten_usd = sum(spending.spent_usd for spending in unwritten if spending)
        if math.isfinite(usd) and month.fits(unwritten_usd + self._taken_usd + usd):
            return True
        self._obstacle = describe_refusal(month)
        self._notes.refused_usd = max(min(usd, 1e12), self._notes.refused_usd or 0.0)
        self._notes.granted = False
        return False

    async def take(
        self, usd: float | None, model: str, wait_s: float = math.inf
    ) -> TakenAmount | None:
        """Takes what a call can cost, in a thread. None where the cap leaves too little:
        `refusal` says it. wait_s: how long to wait, at most, for own calls to leave something.
        Raises StoreUnavailable.
        """
        is_gone = False

        def take() -> TakenAmount | None:
            taken = self.take_here(usd, model, wait_s)
            if is_gone and taken is not None:
                self.give_back(taken)
            return taken

        try:
            return await asyncio.to_thread(take)
        except asyncio.CancelledError:
            is_gone = True
            raise

    def take_here(self, usd: float | None, model: str, wait_s: float) -> TakenAmount | None:
        """Takes as `take` does, in the calling thread."""
        until = self._clock.monotonic() + wait_s
        while True:
            with self._numbers:
                ended = self._ended
            if self._clock.monotonic() - self._read_s > FRESH_S:
                with self._writing:
                    self.read()
            taken = self.try_take(usd, model)
            if taken is None:
                self.refresh(at_once=True)
                taken = self.try_take(usd, model)
            if taken is not None:
                self.refusal = ""
                return taken
            with self._numbers:
                if self._ended != ended:
                    continue
                if not self._under_way or self._clock.monotonic() >= until:
                    self.refusal = self._obstacle
                    return None
                self._numbers.wait(WAIT_S)

    def settle(self, taken: TakenAmount, cost_usd: float | None) -> None:
        """Notes what a call cost; None where its price is not known."""
        cost = PurposeSpending(self._purpose, cost_usd or 0.0, 1, int(cost_usd is None))
        with self._numbers:
            self._note(taken.month, cost)
            self._end(taken)

    def give_back(self, taken: TakenAmount) -> None:
        """Notes that a call cost nothing."""
        with self._numbers:
            self._end(taken)

    def _end(self, taken: TakenAmount) -> None:
        self._taken_usd = max(0.0, self._taken_usd - taken.usd)
        self._under_way -= 1
        self._ended += 1
        self._numbers.notify_all()

    def refresh(self, *, at_once: bool = False) -> None:
        """Stores what was spent and refused, if anything was, and reads the sum again when it
        is due. at_once: it is. Raises StoreUnavailable; then nothing is lost.
        """
        with self._writing:
            now_s = self._clock.monotonic()
            with self._numbers:
                refused = self._notes.refused_usd is not None
                refused = refused and now_s - self._refused_s >= REFUSED_PAUSE_S
                clears = self._notes.granted and self._was_refused
            if self._notes.costs or refused or clears:
                self._write(self._clock.now())
            elif at_once or now_s - self._read_s >= READ_EVERY_S:
                self.read()

    def read(self) -> None:
        """Reads the month's sum and the cap, while nothing is written. Raises
        StoreUnavailable.
        """
        with self._store.read() as tx:
            month = tx.spending.month(month_of(self._clock.now()))
        with self._numbers:
            self._month, self._read_s = month, self._clock.monotonic()

    @property
    def cap_usd(self) -> float | None:
        """The cap, as it was read last."""
        return self._month.cap_usd if self._month else None

    @property
    def _was_refused(self) -> bool:
        return self._month is not None and self._month.is_refused(self._purpose)

    def _write(self, now: datetime) -> None:
        with self._numbers:
            notes = self._in_write = self._notes
            self._notes = _Notes()
            clears = notes.granted and self._was_refused
        try:
            with self._store.write() as tx:
                for month, spending in notes.costs.items():
                    tx.spending.add(month, spending)
                if notes.refused_usd is not None or clears:
                    usd = None if notes.granted else notes.refused_usd
                    tx.spending.note_refusal(month_of(now), self._purpose, usd, now)
                read = tx.spending.month(month_of(now))
        except BaseException:
            with self._numbers:
                self._in_write = _Notes()
                for month, spending in notes.costs.items():
                    self._note(month, spending)
                if self._notes.refused_usd is None and not self._notes.granted:
                    self._notes.refused_usd = notes.refused_usd
                    self._notes.granted = notes.granted
            raise
        with self._numbers:
            self._in_write = _Notes()
            self._month, self._read_s = read, self._clock.monotonic()
            if notes.refused_usd is not None:
                self._refused_s = self._read_s

    def _note(self, month: date, spending: PurposeSpending) -> None:
        known = self._notes.costs.get(month)
        self._notes.costs[month] = known.plus(spending) if known else spending
