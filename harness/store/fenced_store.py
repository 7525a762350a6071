"""`FencedStore` is a store whose units of work commit only while a condition holds: for a
leader, that no later term has begun; for a request with an `Idempotency-Key`, that nobody else
does it. So who was stopped or cut off, and comes back, writes nothing.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import cast

from harness.domain.errors import LeadershipLost
from harness.domain.operations.row_signatures import RowFault, RowPlace, VerifiedRows
from harness.domain.routing.table import Snapshot
from harness.ports import Store, Transaction


class FencedStore:
    """The part of ports.Store that the control plane calls, over the store of its process.

    require: called last in each unit of work; what it raises undoes the unit. over: called when
    one was refused, since the leader's term is over.
    """

    def __init__(
        self,
        store: Store,
        require: Callable[[Transaction], None],
        *,
        over: Callable[[], None] = lambda: None,
    ) -> None:
        self._store, self._require, self._over = store, require, over

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """Opens a unit of work. Raises at its end what `require` raises, and writes nothing
        then.
        """
        try:
            with self._store.write() as tx:
                yield tx
                # Last: who would change the condition waits from here to the commit.
                self._require(tx)
        except LeadershipLost:
            self._over()
            raise

    def fenced_by(self, require: Callable[[Transaction], None]) -> Store:
        return cast("Store", FencedStore(cast("Store", self), require))

    def drop_deleted(self) -> None:
        self._store.drop_deleted()

    def read(self) -> AbstractContextManager[Transaction]:
        return self._store.read()

    def snapshot(self) -> Snapshot:
        return self._store.snapshot()

    def signature_faults(self, *, working: bool = False) -> Sequence[RowFault]:
        return self._store.signature_faults(working=working)

    def verify_rows(self, behind: RowPlace | None) -> VerifiedRows:
        return self._store.verify_rows(behind)

    def verify_again(self, places: Collection[RowPlace]) -> Mapping[RowPlace, RowFault]:
        return self._store.verify_again(places)

    def etag(self) -> str:
        return self._store.etag()

    def change_mark(self) -> str:
        return self._store.change_mark()
