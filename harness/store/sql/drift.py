"""Opens, changes and lists drift watches, and starts, ends and lists their checks; each write
says whether it was the first.
"""

from collections.abc import Sequence

import sqlalchemy as sa

from harness.domain.drift import DriftCheck, DriftCheckState, DriftWatch
from harness.domain.pagination import MOST_LISTED
from harness.store.schema.drift import (
    check_end_to_row,
    check_from_row,
    check_to_row,
    drift_check,
    drift_watch,
    watch_from_row,
    watch_to_row,
)
from harness.store.unit_of_work import Unit

WATCHES = sa.select(drift_watch).order_by(drift_watch.c.opened_at.desc(), drift_watch.c.id)
STILL = sa.update(drift_watch).where(
    drift_watch.c.id == sa.bindparam("watch"), drift_watch.c.closed_at.is_(None)
)
CHECKS = (
    sa.select(drift_check)
    .where(drift_check.c.watch == sa.bindparam("of"))
    .order_by(drift_check.c.number)
)
CHECKING = sa.select(drift_check.c.run).where(
    drift_check.c.run == sa.bindparam("of"),
    drift_check.c.state == DriftCheckState.RUNNING.value,
)
RUNS_STILL = sa.update(drift_check).where(
    drift_check.c.watch == sa.bindparam("of"),
    drift_check.c.number == sa.bindparam("nth"),
    drift_check.c.state == DriftCheckState.RUNNING.value,
)


class Drift:
    """Watches of incumbents, and the runs that they compare."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def open(self, watch: DriftWatch) -> bool:
        """Opens a watch; False when that target and suite has an open one."""
        self._unit.serialize()
        return self._unit.write_new(drift_watch, watch_to_row(watch))

    def save(self, watch: DriftWatch) -> bool:
        """Saves the state and end of a watch; False when it is closed already."""
        self._unit.serialize()
        changes = {"state": watch.state.value, "closed_at": watch.closed_at}
        return self._unit.write(STILL.values(changes), {"watch": watch.id}) == 1

    def watches(self, *, limit: int = MOST_LISTED) -> Sequence[DriftWatch]:
        return [watch_from_row(row) for row in self._unit.read(WATCHES.limit(limit))]

    def open_watches(self) -> Sequence[DriftWatch]:
        query = WATCHES.where(drift_watch.c.closed_at.is_(None))
        return [watch_from_row(row) for row in self._unit.read(query)]

    def is_checking(self, run: str) -> bool:
        return self._unit.read(CHECKING, {"of": run}).first() is not None

    def start(self, check: DriftCheck) -> bool:
        """Starts a check; False when the watch has a running one, or one of that number."""
        self._unit.serialize()
        return self._unit.write_new(drift_check, check_to_row(check))

    def end(self, check: DriftCheck) -> bool:
        """Stores how a check ended; False when it runs no more."""
        self._unit.serialize()
        ours = {"of": check.watch, "nth": check.number}
        return self._unit.write(RUNS_STILL.values(check_end_to_row(check)), ours) == 1

    def checks(self, watch: str) -> Sequence[DriftCheck]:
        return [check_from_row(row) for row in self._unit.read(CHECKS, {"of": watch})]
