"""Starts, ends and lists the runs that watch for drift; each write says whether it was the
first.
"""

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from typing import Final

import sqlalchemy as sa

from harness.domain.drift import DriftCheck, DriftWatch
from harness.store.schema.evals import DRIFT_CHECK, IS_OPEN, drift_check
from harness.store.sql.records import Records

_OF_THE_END: Final = ("ended_at", "message", "served", "scores", "evidence")
_IS_RUNNING: Final = drift_check.c.ended_at.is_(None)
_IS_OPEN: Final = sa.and_(drift_check.c.number == 0, drift_check.c.closed_at.is_(None))


class Drift(Records[DriftCheck]):
    """Baselines of incumbents, and the runs that are compared with them."""

    record = DRIFT_CHECK
    order = (drift_check.c.watch, drift_check.c.number)

    def open_watches(self) -> Sequence[DriftWatch]:
        is_open = drift_check.c.watch.in_(sa.select(drift_check.c.watch).where(IS_OPEN))
        checks = groupby(self._all(self._select(is_open)), lambda check: check.watch)
        return [DriftWatch(tuple(of_watch)) for _, of_watch in checks]

    def is_open(self, watch: str) -> bool:
        self._tx.serialize()
        return self._first(self._select(drift_check.c.watch == watch, _IS_OPEN)) is not None

    def is_checking(self, run: str) -> bool:
        return self._first(self._select(drift_check.c.run == run, _IS_RUNNING)) is not None

    def start(self, check: DriftCheck) -> bool:
        """Starts a run; False when its watch has one, or its target and suite a baseline."""
        self._tx.serialize()
        return self._tx.write_new(drift_check, DRIFT_CHECK.write(check))

    def end(self, check: DriftCheck) -> bool:
        """Stores how a run ended; False when it has ended already."""
        self._tx.serialize()
        is_this = drift_check.c.run == check.run
        ended = self.record.only(check, *_OF_THE_END)
        return self._change(is_this, _IS_RUNNING, **ended) == 1

    def close(self, watch: str, now: datetime) -> bool:
        """Closes a watch; False when it is closed already."""
        self._tx.serialize()
        return self._change(drift_check.c.watch == watch, _IS_OPEN, closed_at=now) == 1

    def checks(self, watch: str) -> Sequence[DriftCheck]:
        return self._all(self._select(drift_check.c.watch == watch))
