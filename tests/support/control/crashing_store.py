"""A process that dies at a chosen unit of work."""

from collections.abc import Iterator
from contextlib import contextmanager

from harness.app.store.store import Store
from harness.frame.records.transaction import Transaction


class Crash(BaseException):
    """The process dies here; nothing may catch it."""


class CrashingStore:
    """A store whose n-th unit of work is the process's last: before its commit, or after."""

    def __init__(
        self,
        store: Store,
        *,
        at: int,
        after_commit: bool,
    ) -> None:
        self._store = store
        self._left = at
        self._after = after_commit

    @property
    def died(self) -> bool:
        return self._left <= 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        self._left -= 1
        with self._store.write() as tx:
            yield tx
            if self._left == 0 and not self._after:
                raise Crash
        if self._left == 0 and self._after:
            raise Crash
