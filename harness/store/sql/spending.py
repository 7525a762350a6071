"""Reads and writes what Swapgate itself spends: the cap, and each month's sums."""

from datetime import date, datetime
from typing import Final

import sqlalchemy as sa

from harness.domain.operations.spending import MonthSpending, PurposeSpending, fill_purposes
from harness.store.schema.operations import SPENDING, THE_CAP, spending_cap, spending_month
from harness.store.unit_of_work import Unit

CAP: Final = sa.select(spending_cap.c.cap_usd).where(spending_cap.c.id == THE_CAP)
MONTH: Final = sa.select(spending_month).where(spending_month.c.first_day == sa.bindparam("of"))
_SERIAL: Final = "spending"


class Spending:
    """Swapgate's own spending on models by month (UTC), and its cap."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def cap_usd(self) -> float | None:
        return self._unit.read(CAP).scalar()

    def set_cap(self, usd: float | None, now: datetime) -> bool:
        """Sets the cap, None for no cap; whether it changed."""
        self._unit.serialize_by(_SERIAL)
        row = {"id": THE_CAP, "cap_usd": usd, "set_at": now}
        known = self._unit.read(CAP).first()
        if known is None:
            # No row and no cap say the same.
            return self._unit.write_new(spending_cap, row) and usd is not None
        if known.cap_usd == usd:
            return False
        self._unit.write(sa.update(spending_cap).values(cap_usd=usd, set_at=now))
        return True

    def month(self, month: date) -> MonthSpending:
        """Sums the spending of a month."""
        rows = self._unit.read(MONTH, {"of": month})
        return MonthSpending(
            month=month,
            cap_usd=self.cap_usd(),
            purposes=fill_purposes([SPENDING.read(row) for row in rows]),
        )

    def add(self, month: date, spending: PurposeSpending) -> None:
        """Adds to the month's spending on a purpose."""
        self._unit.serialize_by(_SERIAL)
        values = {**SPENDING.write(spending), "first_day": month}
        self._unit.upsert(spending_month, values, add=("spent_usd", "calls", "unpriced"))
