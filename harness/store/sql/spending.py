"""Reads and writes what Swapgate itself spends: the cap, and each month's sums."""

from datetime import date, datetime
from typing import Final

import sqlalchemy as sa

from harness.domain.operations.spending import (
    MonthSpending,
    PurposeSpending,
    SpendingPurpose,
    fill_purposes,
)
from harness.store.schema.spending import (
    SPENDING,
    THE_CAP,
    spending_cap,
    spending_month,
)
from harness.store.unit_of_work import Unit

CAP: Final = sa.select(spending_cap.c.cap_usd).where(spending_cap.c.id == THE_CAP)
_MONTH: Final = spending_month.c
MONTH: Final = sa.select(spending_month).where(_MONTH.first_day == sa.bindparam("of"))
_CHANGE: Final = sa.update(spending_month).where(
    _MONTH.first_day == sa.bindparam("of_month"), _MONTH.purpose == sa.bindparam("of_purpose")
)
ADD: Final = _CHANGE.values(
    spent_usd=_MONTH.spent_usd + sa.bindparam("more_usd"),
    calls=_MONTH.calls + sa.bindparam("more_calls"),
    unpriced=_MONTH.unpriced + sa.bindparam("more_unpriced"),
)
NOTE_REFUSAL: Final = _CHANGE.values(
    refused_usd=sa.bindparam("usd"),
    refused_at=sa.bindparam("at", type_=_MONTH.refused_at.type),
)
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
        key = self._add_row(month, spending.purpose)
        more = {"more_usd": spending.spent_usd, "more_calls": spending.calls}
        self._unit.write(ADD, {**key, **more, "more_unpriced": spending.unpriced})

    def note_refusal(
        self, month: date, purpose: SpendingPurpose, usd: float | None, at: datetime
    ) -> None:
        """Notes the cost of a call that the cap refused; None once calls are granted again."""
        self._unit.serialize_by(_SERIAL)
        key = self._add_row(month, purpose)
        self._unit.write(NOTE_REFUSAL, {**key, "usd": usd, "at": None if usd is None else at})

    def _add_row(self, month: date, purpose: SpendingPurpose) -> dict[str, object]:
        """Adds the row of a month and a purpose where there is none. Returns its key."""
        row = {
            "first_day": month,
            "purpose": purpose.value,
            "spent_usd": 0.0,
            "calls": 0,
            "unpriced": 0,
            "refused_usd": None,
            "refused_at": None,
        }
        self._unit.write_new(spending_month, row)
        return {"of_month": month, "of_purpose": purpose.value}
