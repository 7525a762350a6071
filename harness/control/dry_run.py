"""Makes the context for a dry run of a use case: every check runs on the real database, each
unit of work is rolled back at its end, and no worker is started.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from typing import cast

from harness.control.context import Context
from harness.ports import Store, Transaction


def dry_run_context(ctx: Context) -> Context:
    """The context whose units of work are rolled back at their end, and that has no workers."""
    return replace(ctx, store=cast("Store", _DryRunStore(ctx.store)), workers=None)


class _RolledBack(Exception):
    """Ends a unit of work that is not to be stored."""


class _DryRunStore:
    """The part of ports.Store that use cases call."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        with suppress(_RolledBack), self._store.write() as tx:
            yield tx
            raise _RolledBack

    def read(self) -> AbstractContextManager[Transaction]:
        return self._store.read()
