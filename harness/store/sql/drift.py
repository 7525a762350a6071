"""Opens, changes and lists drift watches, and starts, ends and lists their checks; each write
says whether it was the first.
"""

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa

from harness.domain.drift import DriftCheck, DriftCheckState, DriftWatch
from harness.domain.pagination import MOST_LISTED
from harness.store.schema.evals import DRIFT_CHECK, DRIFT_WATCH, drift_check, drift_watch
from harness.store.sql.records import Records

_OF_THE_END: Final = ("state", "ended_at", "message", "served", "scores", "evidence")
IS_RUNNING = drift_check.c.state == DriftCheckState.RUNNING.value


class Drift(Records[DriftWatch]):
    record = DRIFT_WATCH
    order = (drift_watch.c.opened_at.desc(), drift_watch.c.id)

    def open(self, watch: DriftWatch) -> bool:
        """Opens a watch; False when that target and suite has an open one."""
        self._unit.serialize()
        return self._unit.write_new(drift_watch, DRIFT_WATCH.write(watch))

    def save(self, watch: DriftWatch) -> bool:
        """Saves the state and end of a watch; False when it is closed already."""
        self._unit.serialize()
        is_open = drift_watch.c.closed_at.is_(None)
        changes = self.record.only(watch, "state", "closed_at")
        return self._change(self._is(watch.id), is_open, **changes) == 1

    def watches(self, *, limit: int = MOST_LISTED) -> Sequence[DriftWatch]:
        return self._all(self._select().limit(limit))

    def open_watches(self) -> Sequence[DriftWatch]:
        return self._all(self._select(drift_watch.c.closed_at.is_(None)))

    def is_checking(self, run: str) -> bool:
        query = sa.select(drift_check.c.run).where(drift_check.c.run == run, IS_RUNNING)
        return self._unit.read(query).first() is not None

    def start(self, check: DriftCheck) -> bool:
        """Starts a check; False when the watch has a running one, or one of that number."""
        self._unit.serialize()
        return self._unit.write_new(drift_check, DRIFT_CHECK.write(check))

    def end(self, check: DriftCheck) -> bool:
        """Stores how a check ended; False when it runs no more."""
        self._unit.serialize()
        same = (drift_check.c.watch == check.watch, drift_check.c.number == check.number)
        ended = sa.update(drift_check).where(*same, IS_RUNNING)
        return self._unit.write(ended.values(DRIFT_CHECK.only(check, *_OF_THE_END))) == 1

    def checks(self, watch: str) -> Sequence[DriftCheck]:
        of_watch = sa.select(drift_check).where(drift_check.c.watch == watch)
        rows = self._unit.read(of_watch.order_by(drift_check.c.number))
        return [DRIFT_CHECK.read(row) for row in rows]
