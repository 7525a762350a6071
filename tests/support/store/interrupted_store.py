"""`InterruptedStore` lets something happen before a store's n-th unit of work."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from harness.app.store.store import Store
from harness.frame.records.transaction import Transaction


class InterruptedStore:
    """`act` happens once, before the n-th unit of work. units: those that have begun."""

    def __init__(
        self,
        store: Store,
        *,
        at: int,
        act: Callable[[], object],
    ) -> None:
        self._store = store
        self._at = at
        self._act = act
        self.units = 0
        self._within = False

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        self._count()
        with self._alone(), self._store.write() as tx:
            yield tx

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        self._count()
        with self._alone(), self._store.read() as tx:
            yield tx

    def _count(self) -> None:
        if self._within:
            return
        self.units += 1
        if self.units == self._at:
            self._act()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Within a unit of work nobody else gets in."""
        before = self._within
        self._within = True
        try:
            yield
        finally:
            self._within = before
