"""The database's place in the history of its installation.

If the database lacks a version that a router served, a person restored the database from a
backup. The version's time distinguishes two histories after a backup. Signatures cannot do
that, because they change when the control plane signs rows again.

A router compares the database's lineage with its own, and stops following an older database. A
person then decides (`harness.operations.integrity`). `harness.app.store.manifest` signs the
manifest.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import sqlalchemy as sa

from harness.frame.records.columns import (
    SIGNATURE,
    added_count,
    at_least,
    count,
    metadata,
    text,
    time,
)
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit_log import AuditLog
from harness.frame.signing.signed_rows import Lineage, head_text
from harness.routing.records.traffic_tables import traffic
from harness.routing.records.versions import (
    IS_NEWEST,
    REVISION,
    route_version,
)

# One row. Triggers count the changes of keys, providers and switches in `changes`, for the
# ETag.
meta = sa.Table(
    "meta",
    metadata,
    sa.Column(
        "id",
        sa.BigInteger,
        primary_key=True,
        autoincrement=False,
    ),
    text("installation"),
    count("changes"),
    sa.Column(
        "epoch",
        sa.BigInteger,
        nullable=False,
        server_default="1",
    ),
    # After a restore, new revisions must exceed this revision, which routers already served.
    added_count("revision_floor"),
    sa.CheckConstraint("id = 1", name="one_row"),
)

# One row: the control plane's signed statement of a snapshot's rows, the revoked client keys,
# and the audit log's end at that time.
manifest = sa.Table(
    "manifest",
    metadata,
    sa.Column(
        "id",
        sa.BigInteger,
        primary_key=True,
        autoincrement=False,
    ),
    count("epoch"),
    count("revision"),
    count("changes"),
    text("digest"),
    time("signed_at"),
    text(SIGNATURE),
    text("revoked"),
    text("log_end"),
    sa.CheckConstraint("id = 1", name="one_row"),
    at_least("epoch", 1),
)

READ_LINEAGE: Final = sa.select(
    meta.c.installation,
    meta.c.epoch,
    meta.c.changes,
    REVISION.scalar_subquery().label("revision"),
    sa.func.coalesce(sa.select(manifest.c.digest).scalar_subquery(), "").label("digest"),
)

# Revisions in traffic count only up to this many above the table's. Traffic is not signed, so
# a forged revision could otherwise raise the floor for ever.
MAX_REVISIONS_AHEAD: Final = 1_000_000

HIGHEST_SERVED: Final = sa.select(sa.func.coalesce(sa.func.max(traffic.c.revision), 0)).where(
    traffic.c.revision <= REVISION.scalar_subquery() + MAX_REVISIONS_AHEAD
)

READ_HEADS: Final = sa.select(
    route_version.c.route,
    route_version.c.version,
    # The stored integer, which is signed.
    sa.type_coerce(route_version.c.at, sa.BigInteger).label("at"),
)

CURRENT_HEADS: Final = READ_HEADS.where(IS_NEWEST)

# Fewer than the parameters that SQLite allows in a statement.
BATCH_SIZE: Final = 400


class Installations:
    """Reads and advances the installation's lineage."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    def lineage(self) -> Lineage:
        """Returns the database's present place, with each route's newest version."""
        row = self._tx.read(READ_LINEAGE).one()
        return Lineage(
            row.installation,
            row.epoch,
            row.revision,
            row.changes,
            row.digest,
            heads(self._tx),
        )

    def etag(self) -> str:
        """Returns a text that changes with every change of a snapshot's content."""
        row = self._tx.read(READ_LINEAGE).one()
        # Contains the digest, because a restored copy may have the same revision and changes.
        return f"{row.installation[:12]}-{row.revision}-{row.changes}-{row.digest[:12]}"

    def highest_served(self) -> int:
        """Returns the highest revision in recorded traffic; 0 without traffic."""
        return int(self._tx.read(HIGHEST_SERVED).scalar_one())

    def open_epoch(self, *, above: int) -> Lineage:
        """Begins an epoch whose revisions are higher than `above`; see `Lineage`."""
        self._tx.change_snapshot()
        floor = sa.case(
            (meta.c.revision_floor > above, meta.c.revision_floor),
            else_=above,
        )
        self._tx.write(
            sa.update(meta).values(
                epoch=meta.c.epoch + 1,
                changes=meta.c.changes + 1,
                revision_floor=floor,
            )
        )
        return self.lineage()


def heads(tx: Transaction) -> dict[str, str]:
    """Maps each route to its newest version as `version:time`, for `Lineage.heads`."""
    return {row.route: _head_text(row) for row in tx.read(CURRENT_HEADS)}


def missing_lineage(tx: Transaction, known: Lineage) -> Sequence[str]:
    """Lists the entries of a lineage's `heads` and `log_end` that the database lacks, for
    people.
    """
    missing = [
        f"the served version of route {name}" for name in list_missing_heads(tx, known.heads)
    ]
    number, _, mac = known.log_end.partition(":")
    if number and [event.mac for event in AuditLog(tx).after(int(number) - 1, 1)] != [mac]:
        missing.append(f"event {number} of the audit log")
    return missing


def list_missing_heads(tx: Transaction, heads_: Mapping[str, str]) -> Sequence[str]:
    """Lists the routes whose version is not stored.

    Args:
        heads_: in the form of `heads`.
    """
    stored: set[tuple[str, str]] = set()
    names = sorted(heads_)
    for first in range(0, len(names), BATCH_SIZE):
        versions = [
            (name, int(heads_[name].partition(":")[0]))
            for name in names[first : first + BATCH_SIZE]
        ]
        key = sa.tuple_(route_version.c.route, route_version.c.version)
        stored |= {
            (row.route, _head_text(row)) for row in tx.read(READ_HEADS.where(key.in_(versions)))
        }
    return [name for name in names if (name, heads_[name]) not in stored]


def _head_text(row: sa.Row[tuple[str, int, int]]) -> str:
    """Writes a version and its time as `Lineage.heads` has them."""
    return head_text(row.version, row.at)
