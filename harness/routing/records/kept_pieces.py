"""Records of the histories that routes keep for Responses (`harness.routing.kept_responses`).

Each piece is stored once for its caller, and names refer to pieces. Every reader gives the
caller, so that no caller finds another caller's history.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from harness.frame.records.columns import at_least
from harness.frame.records.record import record
from harness.frame.records.repository import Records
from harness.routing.kept_responses import KeptPiece
from harness.routing.records.failovers import batch_user_hashes

KEPT_PIECE: Final = record(
    KeptPiece,
    "kept_piece",
    at_least("size", 1),
    sa.CheckConstraint("expires_at > at", name="expires_later"),
    # Covers the sum of all sizes, and finds expired pieces.
    sa.Index("ix_kept_piece_expires_at", "expires_at", "size"),
    sa.Index("ix_kept_piece_user_hash", "user_hash"),
    key="caller id",
)

kept_piece: Final = KEPT_PIECE.table
_BATCH_SIZE: Final = 500
_REPLACED: Final = ("route", "data_class", "user_hash", "size", "content")


class KeptPieces(Records[KeptPiece]):
    record = KEPT_PIECE

    def store(self, pieces: Sequence[KeptPiece]) -> None:
        """Stores pieces. A stored piece with the same id gets the new content, and the later
        end.
        """
        for piece in pieces:
            self._tx.upsert(kept_piece, KEPT_PIECE.write(piece), put=_REPLACED)
        for caller, until in {(piece.caller, piece.expires_at) for piece in pieces}:
            ids = [
                other.id
                for other in pieces
                if (other.caller, other.expires_at) == (caller, until)
            ]
            self.prolong(caller, ids, until)

    def prolong(self, caller: str, ids: Collection[str], until: datetime) -> int:
        """Keeps stored pieces at least until a time; returns how many of them it found."""
        expires_at = kept_piece.c.expires_at
        new_end = sa.case(
            (expires_at < until, sa.literal(until, expires_at.type)), else_=expires_at
        )
        return sum(
            self._change(
                kept_piece.c.caller == caller,
                kept_piece.c.id.in_(batch),
                expires_at=new_end,
            )
            for batch in _batches(ids)
        )

    def find(
        self, caller: str, ids: Collection[str], now: datetime
    ) -> Mapping[str, Mapping[str, Any]]:
        """Returns the contents of a caller's pieces by id, without expired pieces."""
        contents: dict[str, Mapping[str, Any]] = {}
        for batch in _batches(ids):
            rows = self._select(
                kept_piece.c.caller == caller,
                kept_piece.c.id.in_(batch),
                kept_piece.c.expires_at > now,
            )
            contents |= {piece.id: piece.content for piece in self._all(rows)}
        return contents

    def sizes(self, caller: str, ids: Collection[str]) -> Mapping[str, int]:
        """Returns the sizes of a caller's pieces in bytes, by id."""
        found: dict[str, int] = {}
        for batch in _batches(ids):
            query = sa.select(kept_piece.c.id, kept_piece.c.size).where(
                kept_piece.c.caller == caller, kept_piece.c.id.in_(batch)
            )
            found |= {row.id: row.size for row in self._tx.read(query)}
        return found

    def total_bytes(self) -> int:
        """Returns the size of all pieces."""
        size = sa.select(sa.func.coalesce(sa.func.sum(kept_piece.c.size), 0))
        return int(self._tx.read(size).scalar_one())

    def forget(self, now: datetime) -> int:
        """Deletes expired pieces; returns their number."""
        return self._delete(kept_piece.c.expires_at <= now)

    def purge(self, users: Sequence[str]) -> int:
        """Deletes the pieces of users.

        Args:
            users: hashes; a piece with any of them matches.
        """
        return sum(
            self._delete(kept_piece.c.user_hash.in_(batch))
            for batch in batch_user_hashes(self._tx, kept_piece.c.user_hash, users)
        )


def _batches(ids: Collection[str]) -> Iterator[Sequence[str]]:
    distinct = list(dict.fromkeys(ids))
    for first in range(0, len(distinct), _BATCH_SIZE):
        yield distinct[first : first + _BATCH_SIZE]
