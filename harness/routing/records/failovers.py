"""Stores failovers: requests that moved to another target, with the reason.

Routers write these rows, and the rows are not signed.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from harness.frame.records.columns import Row, amount, at_least
from harness.frame.records.record import record
from harness.frame.records.repository import Records
from harness.frame.records.transaction import Transaction
from harness.routing.reliability.failover import Failover, FailoverCount

FAILOVER: Final = record(
    Failover,
    "failover",
    *(at_least(column, 0) for column in ("attempts", "body_bytes", "messages", "tools")),
    amount("latency_ms"),
    sa.Index("ix_failover_at", "at"),
    sa.Index("ix_failover_user_hash", "user_hash", "at"),
    key="worker number",
)

failover = FAILOVER.table


def failover_count_from_row(row: Row) -> FailoverCount:
    """Builds a count of failovers from a row of sums."""
    # PostgreSQL returns a sum of integers as a decimal.
    return FailoverCount(**(row._asdict() | {"unanswered": int(row.unanswered)}))


# Databases limit the parameters of a statement to some thousands.
_BATCH_SIZE = 500


class Failovers(Records[Failover]):
    record = FAILOVER

    def append(self, new: Iterable[Failover]) -> None:
        """Stores failovers, except those that are stored already (worker, number)."""
        for row in sorted(new, key=lambda row: (row.worker, row.number)):
            self._tx.write_new(failover, self.record.write(row))

    def forget(self, before: datetime) -> int:
        """Deletes failovers that are older than a moment; returns their number."""
        return self._delete(failover.c.at < before)

    def blank_users(self, hashes: Sequence[str]) -> int:
        """Blanks hashes and providers' messages in these users' failovers. Returns the number
        of rows.
        """
        blanked = sa.update(failover).values(user_hash="", sentence="")
        return sum(
            self._tx.write(blanked.where(failover.c.user_hash.in_(batch)))
            for batch in batch_user_hashes(self._tx, failover.c.user_hash, hashes)
        )


def batch_user_hashes(
    tx: Transaction,
    column: sa.Column[str],
    hashes: Sequence[str],
) -> Iterator[Sequence[str]]:
    """Yields, in batches, the column's values that contain one of the hashes.

    A value usually is one hash. A request that names its caller twice has several hashes,
    separated by spaces.
    """
    wanted = frozenset(hashes)
    joint_values = tx.read(sa.select(column).where(column.contains(" ")).distinct()).scalars()
    values = [
        *hashes,
        *(value for value in joint_values if not wanted.isdisjoint(value.split())),
    ]
    for first in range(0, len(values), _BATCH_SIZE):
        yield values[first : first + _BATCH_SIZE]
