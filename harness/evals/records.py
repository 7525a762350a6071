"""Records of drift checks and their baselines, and of the monthly spending and its cap.

The tables refuse a second open baseline of a pair, a second running check of a watch, and a
second cap. The meaning of the rows is in `harness.gate.drift` and
`harness.evals.month_spending`.
"""

from collections.abc import Sequence
from datetime import date, datetime
from itertools import groupby
from typing import Final

import sqlalchemy as sa

from harness.evals.month_spending import (
    MonthSpending,
    PurposeSpending,
    fill_purposes,
)
from harness.frame.records.columns import (
    amount,
    at_least,
    day,
    metadata,
    number,
    time,
    unique_where,
)
from harness.frame.records.record import record
from harness.frame.records.repository import Records
from harness.frame.records.transaction import Transaction
from harness.gate.drift import DriftCheck, DriftWatch
from harness.providers.records import target
from harness.routing.records.runs import eval_run

spending_cap = sa.Table(
    "spending_cap",
    metadata,
    sa.Column(
        "id",
        sa.BigInteger,
        primary_key=True,
        autoincrement=False,
    ),
    number("cap_usd", nullable=True),
    time("set_at"),
    sa.CheckConstraint("id = 1", name="one_row"),
    amount("cap_usd"),
)

THE_CAP: Final = 1

SPENDING: Final = record(
    PurposeSpending,
    "spending_month",
    day("first_day"),
    amount("spent_usd"),
    *(at_least(column, 0) for column in ("calls", "unpriced")),
    key="first_day purpose",
)

spending_month = SPENDING.table

CAP: Final = sa.select(spending_cap.c.cap_usd).where(spending_cap.c.id == THE_CAP)

MONTH: Final = sa.select(spending_month).where(spending_month.c.first_day == sa.bindparam("of"))

_SERIAL: Final = "spending"


class Spending:
    """Reads and changes the cap and the months' sums, within one transaction.

    Each writer waits for the others, so that two processes that add at once lose no cost.
    """

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    def cap_usd(self) -> float | None:
        """Returns the stored cap in US dollars; None for no cap."""
        return self._tx.read(CAP).scalar()

    def set_cap(self, usd: float | None, now: datetime) -> bool:
        """Sets the cap, and returns whether it changed.

        Args:
            usd: None for no cap.
        """
        self._tx.serialize_by(_SERIAL)
        row = {
            "id": THE_CAP,
            "cap_usd": usd,
            "set_at": now,
        }
        stored = self._tx.read(CAP).first()
        if stored is None:
            # A missing row means no cap.
            return self._tx.write_new(spending_cap, row) and usd is not None
        if stored.cap_usd == usd:
            return False
        self._tx.write(sa.update(spending_cap).values(cap_usd=usd, set_at=now))
        return True

    def month(self, month: date) -> MonthSpending:
        """Returns a month's spending.

        Args:
            month: its first day.

        A month without a row has zeros.
        """
        rows = self._tx.read(MONTH, {"of": month})
        return MonthSpending(
            month=month,
            cap_usd=self.cap_usd(),
            purposes=fill_purposes([SPENDING.read(row) for row in rows]),
        )

    def add(self, month: date, spending: PurposeSpending) -> None:
        """Adds a purpose's costs and calls to a month's sums."""
        self._tx.serialize_by(_SERIAL)
        values = {**SPENDING.write(spending), "first_day": month}
        self._tx.upsert(spending_month, values, add=("spent_usd", "calls", "unpriced"))


IS_OPEN = sa.text("number = 0 AND closed_at IS NULL")

# A target and suite have one open baseline, and a watch has one running check.
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

_END_COLUMNS: Final = ("ended_at", "message", "served", "scores", "evidence")

_IS_RUNNING: Final = drift_check.c.ended_at.is_(None)

_IS_OPEN: Final = sa.and_(drift_check.c.number == 0, drift_check.c.closed_at.is_(None))


class Drift(Records[DriftCheck]):
    """Drift checks. A watch has no row of its own: it is the checks with one `watch`."""

    record = DRIFT_CHECK
    order = (drift_check.c.watch, drift_check.c.number)

    def open_watches(self) -> Sequence[DriftWatch]:
        """Returns watches whose baseline is not closed, each with its checks by number."""
        in_open_watch = drift_check.c.watch.in_(sa.select(drift_check.c.watch).where(IS_OPEN))
        checks = groupby(self._all(self._select(in_open_watch)), lambda check: check.watch)
        return [DriftWatch(tuple(of_watch)) for _, of_watch in checks]

    def is_open(self, watch: str) -> bool:
        """Tells whether the watch is still open. Waits for other writers, so that the answer
        stays true in this transaction.
        """
        self._tx.serialize()
        return self._first(self._select(drift_check.c.watch == watch, _IS_OPEN)) is not None

    def is_checking(self, run: str) -> bool:
        """Tells whether the run belongs to a running check: its costs count as drift."""
        return self._first(self._select(drift_check.c.run == run, _IS_RUNNING)) is not None

    def start(self, check: DriftCheck) -> bool:
        """Stores a running check. Returns False if the watch has a running check, or the
        target and suite have an open baseline.
        """
        self._tx.serialize()
        return self._tx.write_new(drift_check, DRIFT_CHECK.write(check))

    def end(self, check: DriftCheck) -> bool:
        """Stores the end of a check. Returns False if it has ended already."""
        self._tx.serialize()
        is_same_run = drift_check.c.run == check.run
        ended = self.record.only(check, *_END_COLUMNS)
        return self._change(is_same_run, _IS_RUNNING, **ended) == 1

    def close(self, watch: str, now: datetime) -> bool:
        """Closes a watch. Returns False if it is closed already."""
        self._tx.serialize()
        return self._change(drift_check.c.watch == watch, _IS_OPEN, closed_at=now) == 1

    def checks(self, watch: str) -> Sequence[DriftCheck]:
        """Returns the watch's checks in order of number, the baseline first."""
        return self._all(self._select(drift_check.c.watch == watch))
