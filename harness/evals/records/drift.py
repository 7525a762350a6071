"""Records of drift checks and their baselines."""

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from typing import Final

import sqlalchemy as sa

from harness.frame.records.columns import at_least, unique_where
from harness.frame.records.record import record
from harness.frame.records.repository import Records
from harness.gate.drift import DriftCheck, DriftWatch
from harness.providers.records import target
from harness.routing.records.runs import eval_run

IS_OPEN = sa.text("number = 0 AND closed_at IS NULL")

# A target and suite has one open baseline, and a watch one running check, over all processes.
DRIFT_CHECK: Final = record(
    DriftCheck,
    "drift_check",
    sa.UniqueConstraint("watch", "number"),
    at_least("number", 0),
    at_least("items", 1),
    at_least("epochs", 1),
    sa.CheckConstraint("alpha > 0 AND alpha < 1", name="alpha_share"),
    sa.CheckConstraint("closed_at IS NULL OR number = 0", name="closed_baseline"),
    unique_where("uq_drift_check_open", IS_OPEN, "target", "suite"),
    unique_where("uq_drift_check_running", sa.text("ended_at IS NULL"), "watch"),
    key="run",
    refers={"run": eval_run, "target": target},
    flat="plan",
)

drift_check = DRIFT_CHECK.table

_OF_THE_END: Final = ("ended_at", "message", "served", "scores", "evidence")

_IS_RUNNING: Final = drift_check.c.ended_at.is_(None)

_IS_OPEN: Final = sa.and_(drift_check.c.number == 0, drift_check.c.closed_at.is_(None))


class Drift(Records[DriftCheck]):
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
        """Starts a run; False if its watch has a run, or its target and suite a baseline."""
        self._tx.serialize()
        return self._tx.write_new(drift_check, DRIFT_CHECK.write(check))

    def end(self, check: DriftCheck) -> bool:
        """Stores the end of a run; False if it has ended already."""
        self._tx.serialize()
        is_this = drift_check.c.run == check.run
        ended = self.record.only(check, *_OF_THE_END)
        return self._change(is_this, _IS_RUNNING, **ended) == 1

    def close(self, watch: str, now: datetime) -> bool:
        """Closes a watch; False if it is closed already."""
        self._tx.serialize()
        return self._change(drift_check.c.watch == watch, _IS_OPEN, closed_at=now) == 1

    def checks(self, watch: str) -> Sequence[DriftCheck]:
        return self._all(self._select(drift_check.c.watch == watch))
