"""Keeps what is known of budgets fresh: what all other processes wrote of their keys."""

from typing import Final

from harness.ports import Clock, Store
from router.access.key_spend import KeySpendTotals
from router.snapshot.holder import SnapshotHolder

EVERY_S: Final = 1.0


class BudgetRefresh:
    """Called by the thread that follows the store; asks nothing while no key has a budget."""

    def __init__(self, holder: SnapshotHolder, spends: KeySpendTotals, clock: Clock) -> None:
        self._holder = holder
        self._spends = spends
        self._clock = clock
        self._next = -EVERY_S

    def __call__(self, store: Store) -> None:
        """Raises StoreUnavailable: then what was known stays."""
        serving = self._holder.current
        if serving is None or not serving.budgeted or self._clock.monotonic() < self._next:
            return
        self._next = self._clock.monotonic() + EVERY_S
        today = self._clock.now().date()
        with store.read() as tx:
            rows = tx.observations.spends(since=today.replace(day=1), keys=serving.budgeted)
        self._spends.know(rows, today)
