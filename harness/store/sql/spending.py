"""Reads and writes what Swapgate itself spends: the cap, each month's sums, and the holds of
calls under way (`SqlSpending`). Every change waits for the one before, so that all processes
together never hold more than the cap leaves.
"""

import math
from datetime import date, datetime
from typing import Final

import sqlalchemy as sa

from harness.domain.operations.spending import (
    HOLD_LASTS,
    MonthSpending,
    SpendingHold,
    SpendingPurpose,
    fill_purposes,
)
from harness.store.schema.spending import (
    THE_CAP,
    hold_to_row,
    purpose_from_row,
    spending_cap,
    spending_hold,
    spending_month,
)
from harness.store.unit_of_work import Unit

CAP: Final = sa.select(spending_cap.c.cap_usd).where(spending_cap.c.id == THE_CAP)
MONTH: Final = sa.select(spending_month).where(
    spending_month.c.first_day == sa.bindparam("of", type_=spending_month.c.first_day.type)
)
HELD: Final = sa.select(sa.func.coalesce(sa.func.sum(spending_hold.c.held_usd), 0.0)).where(
    spending_hold.c.first_day == sa.bindparam("of", type_=spending_hold.c.first_day.type)
)
LAPSED: Final = sa.select(spending_hold).where(
    spending_hold.c.lapses_at <= sa.bindparam("now", type_=spending_hold.c.lapses_at.type)
)
THE_HOLD: Final = sa.select(spending_hold.c.held_usd).where(
    spending_hold.c.id == sa.bindparam("of")
)
_IS_HOLD: Final = spending_hold.c.id == sa.bindparam("of")
CHANGE_HOLD: Final = (
    sa.update(spending_hold)
    .where(_IS_HOLD)
    .values(
        held_usd=sa.bindparam("left_usd"),
        lapses_at=sa.bindparam("until", type_=spending_hold.c.lapses_at.type),
    )
)
END_HOLD: Final = sa.delete(spending_hold).where(_IS_HOLD)
_IS_MONTH: Final = sa.and_(
    spending_month.c.first_day
    == sa.bindparam("of_month", type_=spending_month.c.first_day.type),
    spending_month.c.purpose == sa.bindparam("of_purpose"),
)
ADD_SPENT: Final = (
    sa.update(spending_month)
    .where(_IS_MONTH)
    .values(
        spent_usd=spending_month.c.spent_usd + sa.bindparam("more_usd"),
        calls=spending_month.c.calls + sa.bindparam("more_calls"),
        unpriced=spending_month.c.unpriced + sa.bindparam("more_unpriced"),
    )
)
NOTE_REFUSED: Final = (
    sa.update(spending_month)
    .where(_IS_MONTH)
    .values(
        refused_usd=sa.bindparam("usd"),
        refused_at=sa.bindparam("at", type_=spending_month.c.refused_at.type),
    )
)
_SERIAL: Final = "spending"


class SqlSpending:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def cap_usd(self) -> float | None:
        return self._unit.read(CAP).scalar()

    def set_cap(self, usd: float | None, now: datetime) -> bool:
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
        rows = self._unit.read(MONTH, {"of": month})
        return MonthSpending(
            month=month,
            cap_usd=self.cap_usd(),
            held_usd=self._unit.read(HELD, {"of": month}).scalar_one(),
            purposes=fill_purposes([purpose_from_row(row) for row in rows]),
        )

    def hold(self, hold: SpendingHold, usd: float, now: datetime) -> bool:
        """Adds to a hold, which begins with that, unless the cap leaves too little."""
        self._unit.serialize_by(_SERIAL)
        self.lapse(now)
        where = {"of_month": hold.month, "of_purpose": hold.purpose.value}
        stored = self.month(hold.month)
        if not (math.isfinite(usd) and stored.fits(usd)):
            self._add(hold.month, hold.purpose, 0.0)
            self._unit.write(NOTE_REFUSED, {**where, "usd": min(usd, 1e12), "at": now})
            return False
        if any(row.refused_at for row in stored.purposes if row.purpose is hold.purpose):
            self._unit.write(NOTE_REFUSED, {**where, "usd": None, "at": None})
        until = now + HOLD_LASTS
        before = self._unit.read(THE_HOLD, {"of": hold.id}).scalar()
        if before is None:
            new = {**hold_to_row(hold), "held_usd": usd, "lapses_at": until}
            self._unit.write(sa.insert(spending_hold), new)
        else:
            self._unit.write(
                CHANGE_HOLD, {"of": hold.id, "left_usd": before + usd, "until": until}
            )
        return True

    def settle(
        self,
        hold: SpendingHold,
        *,
        left_usd: float,
        spent_usd: float,
        now: datetime,
        calls: int = 0,
        unpriced: int = 0,
    ) -> bool:
        self._unit.serialize_by(_SERIAL)
        self.lapse(now)
        until = now + HOLD_LASTS
        changed = self._unit.write(
            CHANGE_HOLD, {"of": hold.id, "left_usd": left_usd, "until": until}
        )
        if not changed:
            return False
        if calls or spent_usd:
            self._add(hold.month, hold.purpose, spent_usd, calls=calls, unpriced=unpriced)
        return True

    def end(self, hold: SpendingHold) -> None:
        self._unit.serialize_by(_SERIAL)
        self._unit.write(END_HOLD, {"of": hold.id})

    def add(self, hold: SpendingHold, spent_usd: float, *, calls: int, unpriced: int) -> None:
        self._unit.serialize_by(_SERIAL)
        self._add(hold.month, hold.purpose, spent_usd, calls=calls, unpriced=unpriced)

    def has_lapsed(self, now: datetime) -> bool:
        return self._unit.read(LAPSED.limit(1), {"now": now}).first() is not None

    def lapse(self, now: datetime) -> int:
        self._unit.serialize_by(_SERIAL)
        gone = self._unit.read(LAPSED, {"now": now}).all()
        for row in gone:
            self._add(row.first_day, SpendingPurpose(row.purpose), row.held_usd)
            self._unit.write(END_HOLD, {"of": row.id})
        return len(gone)

    def _add(
        self,
        month: date,
        purpose: SpendingPurpose,
        spent_usd: float,
        *,
        calls: int = 0,
        unpriced: int = 0,
    ) -> None:
        values = {
            "first_day": month,
            "purpose": purpose.value,
            "spent_usd": spent_usd,
            "calls": calls,
            "unpriced": unpriced,
            "refused_usd": None,
            "refused_at": None,
        }
        if self._unit.write_new(spending_month, values):
            return
        where = {"of_month": month, "of_purpose": purpose.value}
        more = {"more_usd": spent_usd, "more_calls": calls, "more_unpriced": unpriced}
        self._unit.write(ADD_SPENT, {**where, **more})
