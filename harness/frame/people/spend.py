"""Bounds what a key may cost per UTC day and month. Requests in flight may overrun. Pure."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date, timedelta
from enum import IntEnum
from typing import Final

from harness.frame.errors import InputError


@dataclass(frozen=True, slots=True)
class SpendBudget:
    """Budgets in US dollars; None for no budget, 0 for nothing. Raises InputError."""

    day_usd: float | None = None
    month_usd: float | None = None
    warn_share: float = 0.8  # of either, 0 to 1

    def __post_init__(self) -> None:
        for name, value in (("day_usd", self.day_usd), ("month_usd", self.month_usd)):
            if value is not None and not 0 <= value < math.inf:
                raise InputError(f"{name} is 0 or more, or absent for no budget; not {value}")
        if not 0 < self.warn_share <= 1:
            raise InputError(f"warn_share is above 0 and at most 1, not {self.warn_share}")


@dataclass(frozen=True, slots=True)
class KeySpend:
    key: str
    day: date
    worker: str  # its name, new for every process
    requests: int
    tokens: int
    cost_usd: float
    unpriced: int  # requests whose cost nobody knows

    def plus(self, other: "KeySpend") -> "KeySpend":
        return KeySpend(
            self.key,
            self.day,
            self.worker,
            self.requests + other.requests,
            self.tokens + other.tokens,
            self.cost_usd + other.cost_usd,
            self.unpriced + other.unpriced,
        )


@dataclass(frozen=True, slots=True)
class SpendTotals:
    day: date
    day_usd: float = 0.0
    month_usd: float = 0.0
    unpriced: int = 0  # requests of the month whose cost nobody knows; they are not in the sums

    def plus(self, other: "SpendTotals") -> "SpendTotals":
        return SpendTotals(
            self.day,
            self.day_usd + other.day_usd,
            self.month_usd + other.month_usd,
            self.unpriced + other.unpriced,
        )


class SpendLevel(IntEnum):
    """Rises: an alert is due when a decision's level is above the one before."""

    FINE = 0
    WARNING = 1
    STOPPED = 2


@dataclass(frozen=True, slots=True)
class SpendDecision:
    level: SpendLevel
    reason: str = ""  # in words, empty when fine
    until: date | None = None  # the day on which the budget starts anew
    share: float = 0.0  # of that budget, 1 for all of it; 0 when fine

    @property
    def allowed(self) -> bool:
        return self.level is not SpendLevel.STOPPED


FINE: Final = SpendDecision(SpendLevel.FINE)


def totals_on(spent: SpendTotals, today: date) -> SpendTotals:
    """Carries the totals over to today; a clock that goes back changes nothing."""
    if today <= spent.day:
        return spent
    if (today.year, today.month) == (spent.day.year, spent.day.month):
        return replace(spent, day=today, day_usd=0.0)
    return SpendTotals(today)


def total_spend(rows: Iterable[KeySpend], today: date) -> SpendTotals:
    day_usd = month_usd = 0.0
    unpriced = 0
    for row in rows:
        if (row.day.year, row.day.month) == (today.year, today.month):
            day_usd += row.cost_usd if row.day == today else 0.0
            month_usd += row.cost_usd
            unpriced += row.unpriced
    return SpendTotals(today, day_usd, month_usd, unpriced)


def next_month(day: date) -> date:
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)


def check_budget(budget: SpendBudget, spent: SpendTotals, today: date) -> SpendDecision:
    """Whether another request may go; of day and month the worse, then the longer, decides."""
    now = spent if spent.day == today else totals_on(spent, today)
    daily_usd, monthly_usd, warn_share = budget.day_usd, budget.month_usd, budget.warn_share
    if (daily_usd is None or now.day_usd < daily_usd * warn_share) and (
        monthly_usd is None or now.month_usd < monthly_usd * warn_share
    ):
        return FINE
    day = now.day
    month = _judged("month", monthly_usd, now.month_usd, next_month(day), warn_share)
    daily = _judged("day", daily_usd, now.day_usd, day + timedelta(1), warn_share)
    return max(month, daily, key=lambda decision: decision.level)


def _judged(
    period: str, budget_usd: float | None, spent_usd: float, until: date, warn_share: float
) -> SpendDecision:
    if budget_usd is None or spent_usd < budget_usd * warn_share:
        return FINE
    stopped = spent_usd >= budget_usd
    level = SpendLevel.STOPPED if stopped else SpendLevel.WARNING
    reason = (
        f"this key spent {spent_usd:.2f} of its {budget_usd:.2f} US dollars per {period}; "
        f"the budget starts anew on {until.isoformat()} (UTC)"
    )
    share = spent_usd / budget_usd if budget_usd else 1.0
    return SpendDecision(level, reason, until, share)
