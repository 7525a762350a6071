"""Reads the database's place in the history of its installation (`lineage`, `etag`, `epoch`),
and opens a new epoch after a restore, with revisions above the highest that routers served.
"""

from typing import Final

import sqlalchemy as sa

from harness.domain.routing.snapshot_lineage import Lineage
from harness.store.schema.observations import traffic
from harness.store.schema.operations import meta
from harness.store.schema.signed_tables import manifest
from harness.store.sql.route_heads import heads
from harness.store.sql.routing import REVISION
from harness.store.unit_of_work import Unit

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


class SqlInstallation:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def lineage(self) -> Lineage:
        row = self._unit.read(LINEAGE).one()
        return Lineage(
            row.installation,
            row.epoch,
            row.revision,
            row.changes,
            row.digest,
            heads(self._unit),
        )

    def etag(self) -> str:
        row = self._unit.read(LINEAGE).one()
        # The digest tells two databases apart that a backup made of one.
        return f"{row.installation[:12]}-{row.revision}-{row.changes}-{row.digest[:12]}"

    def epoch(self) -> int:
        return int(self._unit.read(sa.select(meta.c.epoch)).scalar_one())

    def highest_served(self) -> int:
        return int(self._unit.read(HIGHEST).scalar_one())

    def open_epoch(self, *, above: int) -> Lineage:
        self._unit.change_snapshot()
        floor = sa.case((meta.c.revision_floor > above, meta.c.revision_floor), else_=above)
        self._unit.write(
            sa.update(meta).values(
                epoch=meta.c.epoch + 1, changes=meta.c.changes + 1, revision_floor=floor
            )
        )
        return self.lineage()
