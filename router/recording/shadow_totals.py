"""Sums what shadows did by day, also against their budgets."""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import date, datetime
from typing import Final

from harness.domain.shadow import ShadowTally, ShadowUsage, add_tallies, sum_usage
from harness.ports import Clock
from harness.store.store import Store
from router.snapshot.holder import SnapshotHolder

EVERY_S: Final = 1.0
NOTHING: Final[Mapping[str, float]] = {}
Tallies = dict[tuple[str, date, str], ShadowTally]


class ShadowTotals:
    """A shadow's day is what this process added, and what the database has of all others.

    So nothing counts twice, however late this process's own rows arrive there. worker: a name
    that is new for every process. Thread-safe.
    """

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._lock = threading.Lock()
        self._new: Tallies = {}
        self._own: Tallies = {}
        self._others: Tallies = {}
        self._known: frozenset[str] = frozenset()

    def note(
        self,
        shadow: str,
        at: datetime,
        counts: Mapping[str, int],
        sums: Mapping[str, float] = NOTHING,
    ) -> None:
        row = ShadowTally(shadow, at.date(), self._worker, counts, sums)
        with self._lock:
            _add(self._new, row)
            _add(self._own, row)

    def merge(self, row: ShadowTally) -> None:
        with self._lock:
            _add(self._new, row)

    def take(self) -> list[ShadowTally]:
        with self._lock:
            rows, self._new = list(self._new.values()), {}
        return rows

    def used(self, shadow: str, today: date) -> ShadowUsage | None:
        """What counts against today's budget; None while the database has not said."""
        with self._lock:
            if shadow not in self._known:
                return None
            rows = (*self._own.values(), *self._others.values())
            return sum_usage((row for row in rows if row.shadow == shadow), today)

    def know(self, shadows: Iterable[str], rows: Iterable[ShadowTally]) -> None:
        """What the database has, of the shadows that it was asked for; of today at least."""
        known, others = frozenset(shadows), Tallies()
        for row in rows:
            if row.worker != self._worker:
                _add(others, replace(row, worker=""))
        with self._lock:
            self._known, self._others = known, others
            self._own = {key: row for key, row in self._own.items() if row.shadow in known}


def _add(tallies: Tallies, row: ShadowTally) -> None:
    where = row.shadow, row.day, row.worker
    tallies[where] = add_tallies(tallies.get(where, ShadowTally(*where)), row)


class ShadowTotalsRefresh:
    """Refreshes the sums of shadows, called by the thread that follows the store; asks nothing
    while there is no shadow.
    """

    def __init__(self, holder: SnapshotHolder, sums: ShadowTotals, clock: Clock) -> None:
        self._holder = holder
        self._sums = sums
        self._clock = clock
        self._next = -EVERY_S
        self._asked: frozenset[str] = frozenset()

    def __call__(self, store: Store) -> None:
        """Raises StoreUnavailable: then what was known stays."""
        serving = self._holder.current
        live = serving.snapshot.shadows if serving else ()
        ids = frozenset(shadow.id for shadow in live)
        now = self._clock.monotonic()
        if not ids or (ids == self._asked and now < self._next):
            return
        today = self._clock.now().date()
        with store.read() as tx:
            rows = tx.shadows.tallies(sorted(ids), since=today)
        self._sums.know(ids, rows)
        self._asked, self._next = ids, now + EVERY_S
