"""The spending cap limits Swapproof's own spending on models in a month (UTC): evals, judges,
shadows, drift checks and the turns of agents, together. It excludes clients' requests through
routes. Pure.

Each call adds its cost to a sum. Once the sum reaches the cap, Swapproof makes no call.

`harness.evals.spending_meter` checks the cap before each call; `harness.evals.spending` sets it
and reports the sums.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from enum import StrEnum
from typing import Final, Protocol

from harness.frame.errors import InputError
from harness.frame.formatting import format_date, format_usd
from harness.frame.people.limits import next_month
from harness.providers.target_price import describe_missing

# Sums of the same costs, added in different orders, may differ by less than this.
ROUNDING_USD: Final = 1e-9
EFFECTS_OF_CAP: Final = (
    "evals, judges, shadows and drift checks wait, and Swapproof refuses turns of agents"
)


class SpendingPurpose(StrEnum):
    """The purposes that share the cap. Stored sums are separate for each."""

    EVALS = "evals"
    JUDGES = "judges"  # of evals, canaries and shadows
    SHADOW = "shadow"
    DRIFT = "drift"
    AGENTS = "agents"  # calls of their turns

    @property
    def state_at_cap(self) -> str:
        """The verb for a call of this purpose at the cap: `refused` or `waits`."""
        return "refused" if self is SpendingPurpose.AGENTS else "waits"


@dataclass(frozen=True, slots=True)
class PurposeSpending:
    """The spending of one purpose in a month, or in a part of it."""

    purpose: SpendingPurpose
    spent_usd: float = 0.0
    calls: int = 0
    unpriced: int = 0  # calls of unknown cost, which the sum excludes

    def plus(self, other: "PurposeSpending") -> "PurposeSpending":
        """Adds the spending of another part of the month, for the same purpose."""
        return replace(
            self,
            spent_usd=self.spent_usd + other.spent_usd,
            calls=self.calls + other.calls,
            unpriced=self.unpriced + other.unpriced,
        )


@dataclass(frozen=True, slots=True)
class MonthSpending:
    """The spending of one month, against the cap."""

    month: date  # its first day
    cap_usd: float | None  # None for no cap
    purposes: tuple[PurposeSpending, ...]  # all purposes, in SpendingPurpose's order

    @property
    def spent_usd(self) -> float:
        return math.fsum(row.spent_usd for row in self.purposes)

    @property
    def unpriced(self) -> int:
        """Counts the calls of unknown cost, which `spent_usd` excludes."""
        return sum(row.unpriced for row in self.purposes)

    @property
    def left_usd(self) -> float | None:
        """Returns the rest of the cap; None without a cap."""
        return None if self.cap_usd is None else max(0.0, self.cap_usd - self.spent_usd)

    def find_obstacle(self, more_usd: float = 0.0, unpriced_model: str = "") -> str:
        """Explains why the cap forbids a further call; empty if it allows one.

        Args:
            more_usd: spending that no stored sum contains yet.
            unpriced_model: the called model's name if its price is unknown.
        """
        if self.cap_usd is None:
            return ""
        cap = format_usd(self.cap_usd)
        if unpriced_model:
            return describe_missing(
                unpriced_model,
                effect=f", so Swapproof cannot enforce the monthly cap of {cap}",
            )
        spent_usd = self.spent_usd + more_usd
        if spent_usd < self.cap_usd - ROUNDING_USD:
            return ""
        return (
            f"the monthly cap of {cap} is reached: {format_usd(spent_usd)} spent; "
            f"a new month starts on {format_date(next_month(self.month))} (UTC); wait, "
            "or raise spending.monthly_cap_usd"
        )


class SpendingSums(Protocol):
    """The stored sums of a month. Every method raises StoreUnavailable."""

    def month(self, month: date) -> MonthSpending:
        """Reads a month's spending."""
        ...

    def add(self, costs: dict[date, PurposeSpending], month: date) -> MonthSpending:
        """Adds costs by month, and returns the new spending of `month`."""
        ...


def check_cap(usd: float | None) -> float | None:
    """Checks a cap. Raises InputError for a sum that is negative or not finite."""
    if usd is not None and not 0 <= usd < math.inf:
        raise InputError(f"monthly_cap_usd must be 0 or more, or absent for no cap, not {usd}")
    return usd


def month_of(now: datetime) -> date:
    """Returns the first day of the time's month.

    Args:
        now: in UTC.
    """
    return now.date().replace(day=1)


def fill_purposes(rows: Sequence[PurposeSpending]) -> tuple[PurposeSpending, ...]:
    """Returns a row for each purpose, in SpendingPurpose's order. A purpose without calls gets
    zeros.
    """
    row_by_purpose = {row.purpose: row for row in rows}
    return tuple(
        row_by_purpose.get(purpose, PurposeSpending(purpose)) for purpose in SpendingPurpose
    )
