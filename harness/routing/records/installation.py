"""The database's place in the history of its installation. Where a route's version that a
router served is not stored, the database was put back from a backup. The version's time tells
apart two histories after a backup. Signatures could not: they change when control signs rows
anew.
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
from harness.routing.records.versions import IS_NEWEST, REVISION, route_version

# One row. changes: a trigger counts changes of keys, providers and switches, for the ETag.
meta = sa.Table(
    "meta",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    text("installation"),
    count("changes"),
    sa.Column("epoch", sa.BigInteger, nullable=False, server_default="1"),
    # New revisions are higher: routers served this revision before a person restored the
    # database.
    added_count("revision_floor"),
    sa.CheckConstraint("id = 1", name="one_row"),
)

# One row: the control plane's signed statement of a snapshot's rows, the revoked data keys, and
# the audit log's end at that time.
manifest = sa.Table(
    "manifest",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
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

LINEAGE: Final = sa.select(
    meta.c.installation,
    meta.c.epoch,
    meta.c.changes,
    REVISION.scalar_subquery().label("revision"),
    sa.func.coalesce(sa.select(manifest.c.digest).scalar_subquery(), "").label("digest"),
)

# No router is further ahead of a backup: traffic is not signed, and a number once taken for the
# floor never falls.
FURTHEST: Final = 1_000_000

HIGHEST: Final = sa.select(sa.func.coalesce(sa.func.max(traffic.c.revision), 0)).where(
    traffic.c.revision <= REVISION.scalar_subquery() + FURTHEST
)

HEAD: Final = sa.select(
    route_version.c.route,
    route_version.c.version,
    # As it is stored, and signed.
    sa.type_coerce(route_version.c.at, sa.BigInteger).label("at"),
)

CURRENT_HEADS: Final = HEAD.where(IS_NEWEST)

# Below what SQLite takes of parameters in one statement.
AT_A_TIME: Final = 400


class Installations:
    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    def lineage(self) -> Lineage:
        row = self._tx.read(LINEAGE).one()
        return Lineage(
            row.installation,
            row.epoch,
            row.revision,
            row.changes,
            row.digest,
            heads(self._tx),
        )

    def etag(self) -> str:
        row = self._tx.read(LINEAGE).one()
        # The digest tells two databases apart that a backup made of one.
        return f"{row.installation[:12]}-{row.revision}-{row.changes}-{row.digest[:12]}"

    def highest_served(self) -> int:
        """The highest revision that traffic was recorded of; 0 without any."""
        return int(self._tx.read(HIGHEST).scalar_one())

    def open_epoch(self, *, above: int) -> Lineage:
        """Begins an epoch in which revisions go on above `above`; see `Lineage`."""
        self._tx.change_snapshot()
        floor = sa.case((meta.c.revision_floor > above, meta.c.revision_floor), else_=above)
        self._tx.write(
            sa.update(meta).values(
                epoch=meta.c.epoch + 1, changes=meta.c.changes + 1, revision_floor=floor
            )
        )
        return self.lineage()


def heads(tx: Transaction) -> dict[str, str]:
    """Maps each route to its newest version as `version:time`, for `Lineage.heads`."""
    return {row.route: _text(row) for row in tx.read(CURRENT_HEADS)}


def missing_lineage(tx: Transaction, known: Lineage) -> Sequence[str]:
    """Says what of a lineage's `heads` and `log_end` is not stored; empty when all is."""
    lost = [f"the served version of route {name}" for name in missing_heads(tx, known.heads)]
    number, _, mac = known.log_end.partition(":")
    if number and [event.mac for event in AuditLog(tx).after(int(number) - 1, 1)] != [mac]:
        lost.append(f"event {number} of the audit log")
    return lost


def missing_heads(tx: Transaction, heads_: Mapping[str, str]) -> Sequence[str]:
    """The routes whose version with that time is not stored. heads_: as `heads` gives them."""
    found: set[tuple[str, str]] = set()
    names = sorted(heads_)
    for first in range(0, len(names), AT_A_TIME):
        wanted = [
            (name, int(heads_[name].partition(":")[0]))
            for name in names[first : first + AT_A_TIME]
        ]
        key = sa.tuple_(route_version.c.route, route_version.c.version)
        found |= {(row.route, _text(row)) for row in tx.read(HEAD.where(key.in_(wanted)))}
    return [name for name in names if (name, heads_[name]) not in found]


def _text(row: sa.Row[tuple[str, int, int]]) -> str:
    return head_text(row.version, row.at)
