"""Records of the monthly spending and its cap."""

from datetime import date, datetime
from typing import Final

import sqlalchemy as sa

from harness.evals.month_spending import MonthSpending, PurposeSpending, fill_purposes
from harness.frame.records.columns import amount, at_least, day, metadata, number, time
from harness.frame.records.record import record
from harness.frame.records.transaction import Transaction

spending_cap = sa.Table(
    "spending_cap",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
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
    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    def cap_usd(self) -> float | None:
        return self._tx.read(CAP).scalar()

    def set_cap(self, usd: float | None, now: datetime) -> bool:
        """Sets the cap, None for no cap; returns whether it changed."""
        self._tx.serialize_by(_SERIAL)
        row = {"id": THE_CAP, "cap_usd": usd, "set_at": now}
        known = self._tx.read(CAP).first()
        if known is None:
            # A missing row means no cap.
            return self._tx.write_new(spending_cap, row) and usd is not None
        if known.cap_usd == usd:
            return False
        self._tx.write(sa.update(spending_cap).values(cap_usd=usd, set_at=now))
        return True

    def month(self, month: date) -> MonthSpending:
        rows = self._tx.read(MONTH, {"of": month})
        return MonthSpending(
            month=month,
            cap_usd=self.cap_usd(),
            purposes=fill_purposes([SPENDING.read(row) for row in rows]),
        )

    def add(self, month: date, spending: PurposeSpending) -> None:
        self._tx.serialize_by(_SERIAL)
        values = {**SPENDING.write(spending), "first_day": month}
        self._tx.upsert(spending_month, values, add=("spent_usd", "calls", "unpriced"))
