"""Appends to the failover log, each row once, and forgets old rows; `listings.py` reads it."""

from collections.abc import Iterable
from datetime import datetime

import sqlalchemy as sa

from harness.domain.reliability.failover import Failover
from harness.store.rules import check_failover
from harness.store.schema.observations import failover, failover_to_row
from harness.store.unit_of_work import Unit


class SqlFailovers:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def append(self, new: Iterable[Failover]) -> None:
        for record in sorted(new, key=lambda row: (row.worker, row.number)):
            check_failover(record)
            self._unit.write_new(failover, failover_to_row(record))

    def forget(self, before: datetime) -> int:
        return self._unit.write(sa.delete(failover).where(failover.c.at < before))
