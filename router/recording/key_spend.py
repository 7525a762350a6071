"""Sums requests, tokens and costs of each API key by day, also against its budget."""

import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime
from operator import attrgetter
from typing import Final

from harness.domain.reliability.spend import KeySpend, SpendTotals, total_spend, totals_on
from harness.ports import Clock
from harness.store.store import Store
from router.recording.traffic_minutes import CompletedRequest
from router.snapshot.holder import SnapshotHolder

EVERY_S: Final = 1.0
_INPUT_TOKENS: Final = attrgetter("input_tokens")
_OUTPUT_TOKENS: Final = attrgetter("output_tokens")
_COST_USD: Final = attrgetter("cost_usd")


def sum_by_day(rows: Iterable[KeySpend]) -> list[KeySpend]:
    sums: Sums = {}
    for row in rows:
        _add(sums, row)
    return list(sums.values())


Sums = dict[tuple[str, date, str], KeySpend]


def _add(sums: Sums, row: KeySpend) -> None:
    where = row.key, row.day, row.worker
    known = sums.get(where)
    sums[where] = row if known is None else known.plus(row)


class KeySpendTotals:
    """A key's total is what this process added, and what the database has of all others.

    So nothing counts twice, however late this process's own rows arrive there. worker: a name
    that is new for every process. before_reading: called before a sum is read, by who notes
    requests later than they end. Thread-safe.
    """

    def __init__(self, worker: str) -> None:
        self.before_reading: Callable[[], None] | None = None
        self._worker = worker
        self._lock = threading.Lock()
        self._new: Sums = {}
        self._back: list[KeySpend] = []
        self._own: dict[str, SpendTotals] = {}
        self._others: dict[str, SpendTotals] = {}

    def note(self, ended: Sequence[CompletedRequest], at: datetime) -> None:
        day = at.date()
        by_key: dict[tuple[str, bool], list[CompletedRequest]] = {}
        for request in ended:
            if request.key:
                by_key.setdefault((request.key, request.priced), []).append(request)
        with self._lock:
            for (key, is_priced), requests in by_key.items():
                tokens = sum(map(_INPUT_TOKENS, requests)) + sum(map(_OUTPUT_TOKENS, requests))
                cost_usd = sum(map(_COST_USD, requests)) if is_priced else 0.0
                unpriced = 0 if is_priced else len(requests)
                _add(
                    self._new,
                    KeySpend(key, day, self._worker, len(requests), tokens, cost_usd, unpriced),
                )
                own = totals_on(self._own.get(key) or SpendTotals(day), day)
                self._own[key] = own.plus(SpendTotals(day, cost_usd, cost_usd, unpriced))

    def merge(self, row: KeySpend) -> None:
        with self._lock:
            _add(self._new, row)

    def take(self) -> list[KeySpend]:
        with self._lock:
            rows = [*self._new.values(), *self._back]
            self._new, self._back = {}, []
        return sum_by_day(rows)

    def take_back(self, rows: Iterable[KeySpend]) -> None:
        with self._lock:
            self._back = sum_by_day([*self._back, *rows])

    def spent(self, key: str, today: date) -> SpendTotals:
        if self.before_reading is not None:
            self.before_reading()
        with self._lock:
            own, others = self._own.get(key), self._others.get(key)
        total = totals_on(own or SpendTotals(today), today)
        return total if others is None else total.plus(totals_on(others, today))

    def know(self, rows: Iterable[KeySpend], today: date) -> None:
        """What the database has of this month, of the keys that it was asked for."""
        by_key: dict[str, list[KeySpend]] = {}
        for row in rows:
            if row.worker != self._worker:
                by_key.setdefault(row.key, []).append(row)
        others = {key: total_spend(spends, today) for key, spends in by_key.items()}
        with self._lock:
            self._others = others


class BudgetRefresh:
    """Refreshes the sums of keys with a budget, called by the thread that follows the store;
    asks nothing while no key has one.
    """

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
