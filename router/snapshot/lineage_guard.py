"""Keeps a router from going back in its installation's history (G6)."""

from collections.abc import Callable, Sequence

from harness.domain.errors import DatabaseRestored, SnapshotInvalid
from harness.domain.operations.row_signatures import Revocations
from harness.domain.routing.snapshot_lineage import (
    Lineage,
    foreign_reason,
    fork_reason,
    older_reason,
)
from harness.domain.routing.table import Snapshot

Lacking = Callable[[Lineage], Sequence[str]]


class LineageGuard:
    """Knows what this router served last, and which keys it has known as revoked.

    Once a database was found older than that, nothing of its epoch is taken any more: what is
    written there now belongs to another history, however high its numbers get.
    """

    def __init__(self) -> None:
        self.served = Lineage()
        self._revoked: Sequence[Revocations] = ()
        self._refused: Lineage | None = None

    def admit(self, snapshot: Snapshot, lacking: Lacking) -> Snapshot:
        """The snapshot as it may serve: without keys that were revoked once.

        lacking: see `ports.Store`. Raises DatabaseRestored, and SnapshotInvalid
        for another installation's.
        """
        offered, served = snapshot.lineage, self.served
        if other := foreign_reason(served, offered):
            raise SnapshotInvalid(other)
        why = older_reason(served, offered)
        same_epoch = (served.installation, served.epoch) == (
            offered.installation,
            offered.epoch,
        )
        if not why and same_epoch and (lost := lacking(served)):
            why = fork_reason(lost)
        if not why and same_epoch and self._refused is not None:
            why = older_reason(served, self._refused) or fork_reason(
                ["what was refused before"]
            )
        if why:
            self._refused = self._refused or offered
            raise DatabaseRestored(why)
        return snapshot.without(self._revoked)

    def note(self, admitted: Snapshot) -> None:
        """It serves now."""
        self.served, self._refused = admitted.lineage, None
        signed = admitted.signed
        self._revoked = (*signed.former, signed.revocations) if signed is not None else ()
