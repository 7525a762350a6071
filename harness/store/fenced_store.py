"""`FencedStore` is the store of a leader in one term: its units of work commit only while no
later term has begun. So a leader that was stopped or cut off, and comes back, writes nothing.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

from harness.domain.errors import LeadershipLost
from harness.domain.operations.row_signatures import RowFault, RowPlace, VerifiedRows
from harness.domain.routing.table import Snapshot
from harness.ports import Store, Transaction


class FencedStore:
    """The part of ports.Store that a leader's jobs call, over the store of its process.

    over: called when a unit of work was refused, since the term is over.
    """

    def __init__(self, store: Store, term: int, *, over: Callable[[], None]) -> None:
        self._store, self._term, self._over = store, term, over

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """Opens a unit of work. Raises LeadershipLost at its end, and writes nothing, where the
        term is over.
        """
        try:
            with self._store.write() as tx:
                yield tx
                # Last: a new leader's term waits from here to the commit.
                tx.installation.require_term(self._term)
        except LeadershipLost:
            self._over()
            raise

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
