"""The failover log in SQL."""

from collections.abc import Iterable, Sequence
from datetime import datetime

import sqlalchemy as sa

from harness.domain.failover import Failover
from harness.store.rows import alerts as rows
from harness.store.rules import check_failover
from harness.store.sql.unit import Unit
from harness.store.tables.alerts import failover

NEWEST = sa.select(failover).order_by(
    failover.c.at.desc(), failover.c.worker, failover.c.number.desc()
)


class SqlFailovers:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def append(self, new: Iterable[Failover]) -> None:
        for each in sorted(new, key=lambda row: (row.worker, row.number)):
            check_failover(each)
            self._unit.write_new(failover, rows.of_failover(each))

    def list(
        self,
        *,
        since: datetime,
        route: str | None = None,
        user_hashes: Sequence[str] = (),
        limit: int = 100,
    ) -> Sequence[Failover]:
        query = NEWEST.where(failover.c.at >= since).limit(limit)
        if route is not None:
            query = query.where(failover.c.route == route)
        if user_hashes:
            query = query.where(failover.c.user_hash.in_(user_hashes))
        return [rows.failover(row) for row in self._unit.read(query)]

    def forget(self, before: datetime) -> int:
        return self._unit.write(sa.delete(failover).where(failover.c.at < before))
