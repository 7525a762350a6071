"""Keeps the spending of one purpose in this process within the monthly cap.

Before a call, the meter compares the last read sum of stored costs with the cap. After the
call, it stores the cost.

The sum excludes calls in progress, so each process may exceed the cap by one batch of calls. A
killed process loses the costs of its last seconds.

`MonthSpending.find_obstacle` has the rule of the cap. An old sum counts as unknown, and with a
cap an unknown sum refuses a call.
"""

import math
import threading
from datetime import date
from typing import Final

from harness.evals.month_spending import (
    MonthSpending,
    PurposeSpending,
    SpendingPurpose,
    SpendingSums,
    month_of,
)
from harness.evals.records import Spending
from harness.frame.errors import SpendingPaused
from harness.frame.ports import Clock
from harness.frame.records.database import Database

READ_EVERY_S: Final = 10.0
# If the sum is older, a call reads it again first.
FRESH_S: Final = 2.0
# If the sum is older, the spending counts as unknown.
TRUSTED_S: Final = 30.0

UNKNOWN: Final = "this month's spending is unknown at the moment"

Costs = dict[date, PurposeSpending]


class StoredSpending:
    """Reads a month's spending, and adds to it, each in a separate transaction."""

    def __init__(self, store: Database) -> None:
        self._store = store

    def month(self, month: date) -> MonthSpending:
        with self._store.read() as tx:
            return Spending(tx).month(month)

    def add(self, costs: Costs, month: date) -> MonthSpending:
        """Adds costs by month, and returns the new spending of `month`."""
        with self._store.write() as tx:
            for cost_month, cost in costs.items():
                Spending(tx).add(cost_month, cost)
            return Spending(tx).month(month)


class SpendingMeter:
    """Checks and records the spending on one purpose. Thread-safe.

    `find_obstacle` never waits for the database; `require_money` and `refresh` may.
    """

    def __init__(
        self,
        stored: SpendingSums,
        clock: Clock,
        purpose: SpendingPurpose,
    ) -> None:
        self._stored = stored
        self._clock = clock
        self._purpose = purpose
        self._write_lock = threading.Lock()  # taken before `_sums_lock`
        self._sums_lock = threading.Lock()  # held only while adding up
        self._month: MonthSpending | None = None
        self._read_at_s = -math.inf
        self._costs: Costs = {}  # not yet in the database
        self._costs_in_write: Costs = {}  # the last read sum lacks them
        self.refusal = ""  # why `require_money` refused the last call; else empty

    def find_obstacle(self, unpriced_model: str = "") -> str:
        """Explains why a call may not be made, by the last read sum; never waits.

        Args:
            unpriced_model: the called model's name if its price is unknown.
        """
        with self._sums_lock:
            month = self._month
            if month is None or month.month != month_of(self._clock.now()):
                return UNKNOWN
            if month.cap_usd is not None and self._age_s > TRUSTED_S:
                return UNKNOWN
            unstored = (costs.get(month.month) for costs in (self._costs, self._costs_in_write))
            unstored_usd = math.fsum(cost.spent_usd for cost in unstored if cost)
            return month.find_obstacle(unstored_usd, unpriced_model)

    def require_money(self, unpriced_model: str = "") -> None:
        """Checks that a call may be made. Raises SpendingPaused, StoreUnavailable."""
        if self._age_s > FRESH_S or self.find_obstacle(unpriced_model):
            self.refresh(at_once=True)
        self.refusal = self.find_obstacle(unpriced_model)
        if self.refusal:
            raise SpendingPaused(self.refusal)

    def pay(self, cost_usd: float | None) -> None:
        """Records the cost of a call; None if its price or its tokens are unknown."""
        cost = PurposeSpending(self._purpose, cost_usd or 0.0, 1, int(cost_usd is None))
        with self._sums_lock:
            self._collect(month_of(self._clock.now()), cost)

    def refresh(self, *, at_once: bool = False) -> None:
        """Stores new costs, or reads the sum again if it is due.

        Args:
            at_once: reads it in any case.

        Raises StoreUnavailable; then no cost is lost.
        """
        with self._write_lock:
            if self._costs:
                self._write()
            elif at_once or self._age_s >= READ_EVERY_S:
                self._set_month(self._stored.month(month_of(self._clock.now())))

    @property
    def cap_usd(self) -> float | None:
        """The cap at the last read; None for no cap, and before the first read."""
        return self._month.cap_usd if self._month else None

    @property
    def _age_s(self) -> float:
        """Monotonic seconds since the last read; infinite before the first."""
        return self._clock.monotonic() - self._read_at_s

    def _write(self) -> None:
        """Stores the collected costs.

        After an error, the meter collects them again, so no cost is lost.
        """
        with self._sums_lock:
            self._costs_in_write = self._costs
            self._costs = {}
        try:
            stored_month = self._stored.add(self._costs_in_write, month_of(self._clock.now()))
        except BaseException:
            with self._sums_lock:
                for month, cost in self._costs_in_write.items():
                    self._collect(month, cost)
                self._costs_in_write = {}
            raise
        self._set_month(stored_month)

    def _set_month(self, month: MonthSpending) -> None:
        """Replaces the sum by a newly read one, which contains the costs in the write."""
        with self._sums_lock:
            self._month = month
            self._read_at_s = self._clock.monotonic()
            self._costs_in_write = {}

    def _collect(self, month: date, cost: PurposeSpending) -> None:
        """Collects a cost. The caller holds `_numbers`."""
        collected_cost = self._costs.get(month)
        self._costs[month] = collected_cost.plus(cost) if collected_cost else cost
