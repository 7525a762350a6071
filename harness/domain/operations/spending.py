"""The spending cap bounds what Swapgate itself spends on models in a month (UTC): evals,
judges, shadows, drift checks and the turns of agents, together. What clients send through
routes is not in it. Pure.

Each call adds its cost to a sum. A call is refused where the sum and the most that the call can
cost (`estimate_most_usd`) would pass the cap.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from harness.domain.errors import InputError
from harness.domain.formatting import format_date, format_usd
from harness.domain.routing.target import Price

# Where a request names no limit of its own.
ASSUMED_OUTPUT_TOKENS: Final = 8_192
# Work that waits goes on once so many of its calls fit: for one alone no worker starts.
CALLS_TO_GO_ON: Final = 4
# Sums of floats differ in their last digits by the order of adding.
ROUNDING_USD: Final = 1e-9
# Fields by which a request bounds its answer.
OUTPUT_LIMITS: Final = ("max_completion_tokens", "max_output_tokens", "max_tokens")


class SpendingPurpose(StrEnum):
    """Names what money is spent on."""

    EVALS = "evals"
    JUDGES = "judges"  # of evals and of canaries
    SHADOW = "shadow"
    DRIFT = "drift"
    AGENTS = "agents"  # what their turns ask

    @property
    def at_the_cap(self) -> str:
        """What becomes of it where the cap leaves too little, in the singular."""
        return "refused" if self is SpendingPurpose.AGENTS else "waits"


@dataclass(frozen=True, slots=True)
class PurposeSpending:
    """Holds what a purpose spent in a month."""

    purpose: SpendingPurpose
    spent_usd: float = 0.0
    calls: int = 0
    unpriced: int = 0  # of the calls, those whose price nobody knew; they are not in the sum
    # What a call needed that was refused last, and when; None once another was granted.
    refused_usd: float | None = None
    refused_at: datetime | None = None

    def plus(self, other: "PurposeSpending") -> "PurposeSpending":
        """Adds what another part of the same month spent."""
        return replace(
            self,
            spent_usd=self.spent_usd + other.spent_usd,
            calls=self.calls + other.calls,
            unpriced=self.unpriced + other.unpriced,
        )


@dataclass(frozen=True, slots=True)
class MonthSpending:
    """Holds what was spent in a month, against the cap."""

    month: date  # its first day
    cap_usd: float | None  # None for no cap
    purposes: tuple[PurposeSpending, ...]  # each one, in SpendingPurpose's order

    @property
    def spent_usd(self) -> float:
        return math.fsum(row.spent_usd for row in self.purposes)

    @property
    def unpriced(self) -> int:
        return sum(row.unpriced for row in self.purposes)

    @property
    def left_usd(self) -> float | None:
        """What may still be spent; None without a cap."""
        return None if self.cap_usd is None else max(0.0, self.cap_usd - self.spent_usd)

    def fits(self, usd: float) -> bool:
        """Tells whether a call that costs so much at the most may be made."""
        return self.cap_usd is None or self.spent_usd + usd <= self.cap_usd + ROUNDING_USD

    def is_refused(self, purpose: SpendingPurpose) -> bool:
        """Tells whether the last call for this purpose was refused."""
        return any(row.refused_at for row in self.purposes if row.purpose is purpose)

    def waits(self, purpose: SpendingPurpose) -> bool:
        """Tells whether a purpose waits: what it needed last does not fit a few times over."""
        row = next(row for row in self.purposes if row.purpose is purpose)
        return row.refused_usd is not None and not self.fits(row.refused_usd * CALLS_TO_GO_ON)

    @property
    def waiting(self) -> tuple[SpendingPurpose, ...]:
        """Lists the purposes that wait; turns of agents are refused instead."""
        return tuple(row.purpose for row in self.purposes if self.waits(row.purpose))


def check_cap(usd: float | None) -> float | None:
    """Checks a cap. Raises InputError for what is none."""
    if usd is not None and not 0 <= usd < math.inf:
        raise InputError(f"monthly_cap_usd is 0 or more, or absent for no cap; not {usd}")
    return usd


def month_of(now: datetime) -> date:
    return now.date().replace(day=1)


def next_month(month: date) -> date:
    return (month + timedelta(days=32)).replace(day=1)


def fill_purposes(rows: Sequence[PurposeSpending]) -> tuple[PurposeSpending, ...]:
    """Adds the purposes that spent nothing."""
    known = {row.purpose: row for row in rows}
    return tuple(known.get(purpose, PurposeSpending(purpose)) for purpose in SpendingPurpose)


def estimate_most_usd(price: Price, request_bytes: int, body: Mapping[str, Any]) -> float:
    """Estimates the most that a call costs: no tokenizer makes more tokens than there are
    bytes, and an answer ends at the request's limit, or at ASSUMED_OUTPUT_TOKENS without one.
    """
    limits = [body[name] for name in OUTPUT_LIMITS if isinstance(body.get(name), int)]
    answers = body.get("n")
    count = answers if isinstance(answers, int) and answers > 1 else 1
    output = max(limits, default=ASSUMED_OUTPUT_TOKENS) * count
    return price.cost_usd(request_bytes, output)


def describe_waiting(purposes: Sequence[SpendingPurpose]) -> str:
    """Says what the cap does to each: `evals, judges wait, turns of agents are refused`."""
    waits = [purpose for purpose in purposes if purpose is not SpendingPurpose.AGENTS]
    parts = [f"{', '.join(waits)} wait"] if waits else []
    refused = len(waits) < len(purposes)
    return ", ".join([*parts, *(["turns of agents are refused"] if refused else [])])


def describe_refusal(month: MonthSpending) -> str:
    """Says why nothing more is spent: `the monthly cap of $50.00 is reached: …`."""
    return (
        f"the monthly cap of {format_usd(month.cap_usd or 0.0)} leaves too little: "
        f"{format_usd(month.spent_usd)} spent; it starts anew on "
        f"{format_date(next_month(month.month))} (UTC), or raise spending.monthly_cap_usd"
    )


def describe_unpriced(model: str, cap_usd: float) -> str:
    """Says why a model without a price is not asked below a cap."""
    return (
        f"the price of {model} is not known, so that the monthly cap of {format_usd(cap_usd)} "
        "cannot be kept: give its provider a price"
    )


def extrapolate_usd(
    usd: float | None, begun: datetime, now: datetime, end: datetime
) -> float | None:
    """Carries what was spent since the month's begin on to its end at the same rate; None where
    less than a day has passed, or nobody knows what was spent.
    """
    passed = now - begun
    if usd is None or passed < timedelta(days=1):
        return None
    return usd * ((end - begun) / passed)


def measure_extra_usd(
    new_usd: float, new_requests: int, old_usd: float, old_requests: int
) -> float:
    """Measures what requests cost more with one model than they would have with another, by
    what a request of the other really cost.
    """
    return new_usd - new_requests * old_usd / old_requests
