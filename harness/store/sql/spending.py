"""Reads and writes what Swapgate itself spends: the cap, each month's sums, and the holds of
calls under way (`Spending`). Every change waits for the one before, so that all processes
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
_SERIAL: Final = "spending"


class _Books:
    """The statements on one table of sums and one of holds."""

    def __init__(self, month: sa.Table, hold: sa.Table) -> None:
        self.month_table, self.hold_table = month, hold
        of_day = sa.bindparam("of", type_=month.c.first_day.type)
        self.month = sa.select(month).where(month.c.first_day == of_day)
        self.held = sa.select(sa.func.coalesce(sa.func.sum(hold.c.held_usd), 0.0)).where(
            hold.c.first_day == of_day
        )
        self.lapsed = sa.select(hold).where(
            hold.c.lapses_at <= sa.bindparam("now", type_=hold.c.lapses_at.type)
        )
        is_hold = hold.c.id == sa.bindparam("of")
        self.one_hold = sa.select(hold.c.held_usd).where(is_hold)
        self.change_hold = (
            sa.update(hold)
            .where(is_hold)
            .values(
                held_usd=sa.bindparam("left_usd"),
                lapses_at=sa.bindparam("until", type_=hold.c.lapses_at.type),
            )
        )
        self.end_hold = sa.delete(hold).where(is_hold)
        is_month = sa.and_(
            month.c.first_day == sa.bindparam("of_month", type_=month.c.first_day.type),
            month.c.purpose == sa.bindparam("of_purpose"),
        )
        self.add_spent = (
            sa.update(month)
            .where(is_month)
            .values(
                spent_usd=month.c.spent_usd + sa.bindparam("more_usd"),
                calls=month.c.calls + sa.bindparam("more_calls"),
                unpriced=month.c.unpriced + sa.bindparam("more_unpriced"),
            )
        )
        self.note_refused = (
            sa.update(month)
            .where(is_month)
            .values(
                refused_usd=sa.bindparam("usd"),
                refused_at=sa.bindparam("at", type_=month.c.refused_at.type),
            )
        )


_BOOKS: Final = _Books(spending_month, spending_hold)


class Spending:
    """What Swapgate itself spends on models, in each month (UTC), and the cap on it.

    A hold is one process's. A hold that was not renewed for HOLD_LASTS lapses: its process is
    gone, and all of it counts as spent, since nobody knows what of it was.
    """

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
        rows = self._unit.read(_BOOKS.month, {"of": month})
        return MonthSpending(
            month=month,
            cap_usd=self.cap_usd(),
            held_usd=self._unit.read(_BOOKS.held, {"of": month}).scalar_one(),
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
            self._unit.write(_BOOKS.note_refused, {**where, "usd": min(usd, 1e12), "at": now})
            return False
        if any(row.refused_at for row in stored.purposes if row.purpose is hold.purpose):
            self._unit.write(_BOOKS.note_refused, {**where, "usd": None, "at": None})
        until = now + HOLD_LASTS
        before = self._unit.read(_BOOKS.one_hold, {"of": hold.id}).scalar()
        if before is None:
            new = {**hold_to_row(hold), "held_usd": usd, "lapses_at": until}
            self._unit.write(sa.insert(_BOOKS.hold_table), new)
        else:
            more = {"of": hold.id, "left_usd": before + usd, "until": until}
            self._unit.write(_BOOKS.change_hold, more)
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
        """Turns a part of a hold into what was spent, leaves the rest held, and renews it.

        False, and nothing is added, where the hold has lapsed: all of it counts already.
        """
        self._unit.serialize_by(_SERIAL)
        self.lapse(now)
        until = now + HOLD_LASTS
        new = {"of": hold.id, "left_usd": left_usd, "until": until}
        changed = self._unit.write(_BOOKS.change_hold, new)
        if not changed:
            return False
        if calls or spent_usd:
            self._add(hold.month, hold.purpose, spent_usd, calls=calls, unpriced=unpriced)
        return True

    def end(self, hold: SpendingHold) -> None:
        self._unit.serialize_by(_SERIAL)
        self._unit.write(_BOOKS.end_hold, {"of": hold.id})

    def add(self, hold: SpendingHold, spent_usd: float, *, calls: int, unpriced: int) -> None:
        self._unit.serialize_by(_SERIAL)
        self._add(hold.month, hold.purpose, spent_usd, calls=calls, unpriced=unpriced)

    def has_lapsed(self, now: datetime) -> bool:
        return self._unit.read(_BOOKS.lapsed.limit(1), {"now": now}).first() is not None

    def lapse(self, now: datetime) -> int:
        """Counts what dead processes held as spent; how many holds that were."""
        self._unit.serialize_by(_SERIAL)
        lapsed = self._unit.read(_BOOKS.lapsed, {"now": now}).all()
        for row in lapsed:
            self._add(row.first_day, SpendingPurpose(row.purpose), row.held_usd)
            self._unit.write(_BOOKS.end_hold, {"of": row.id})
        return len(lapsed)

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
        if self._unit.write_new(_BOOKS.month_table, values):
            return
        where = {"of_month": month, "of_purpose": purpose.value}
        more = {"more_usd": spent_usd, "more_calls": calls, "more_unpriced": unpriced}
        self._unit.write(_BOOKS.add_spent, {**where, **more})
