"""Limits on keys and evals: spending per UTC day and month, requests and tokens per minute.
Pure.

Requests in progress may exceed a budget. Two leaky buckets, in monotonic seconds, bound
requests and tokens. Source: the generic cell rate algorithm, ITU-T I.371, with a tolerance of
one minute for keys.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from datetime import date, timedelta
from enum import IntEnum
from typing import Final, NamedTuple, Self

from harness.frame.configuration.setting import (
    COUNT,
    Declaration,
    FormEntry,
    Range,
    number,
    setting,
)
from harness.frame.errors import InputError
from harness.frame.formatting import format_usd


@dataclass(frozen=True, slots=True)
class SpendBudget:
    """Budgets in US dollars; None for no budget, 0 for no spending. Raises InputError."""

    day_usd: float | None = None
    month_usd: float | None = None
    warn_share: float = 0.8  # the share of a budget, 0 to 1, that starts a warning

    def __post_init__(self) -> None:
        for name, value in (
            ("day_usd", self.day_usd),
            ("month_usd", self.month_usd),
        ):
            if value is not None and not 0 <= value < math.inf:
                raise InputError(f"{name} is 0 or more, or absent for no budget; not {value}")
        if not 0 < self.warn_share <= 1:
            raise InputError(f"warn_share is above 0 and at most 1, not {self.warn_share}")


@dataclass(frozen=True, slots=True)
class KeySpend:
    key: str
    day: date
    worker: str  # the router worker's name, new for each process
    requests: int
    tokens: int
    cost_usd: float
    unpriced: int  # the number of requests whose cost is unknown
    bounded: int = 0  # requests whose tokens and cost are lower bounds; the sums include them

    def plus(self, other: "KeySpend") -> "KeySpend":
        return KeySpend(
            self.key,
            self.day,
            self.worker,
            self.requests + other.requests,
            self.tokens + other.tokens,
            self.cost_usd + other.cost_usd,
            self.unpriced + other.unpriced,
            self.bounded + other.bounded,
        )


@dataclass(frozen=True, slots=True)
class SpendTotals:
    day: date
    day_usd: float = 0.0
    month_usd: float = 0.0
    unpriced: int = 0  # the month's requests of unknown cost, which the sums omit
    bounded: int = 0  # the month's requests whose cost is a lower bound, in the sums

    def plus(self, other: "SpendTotals") -> "SpendTotals":
        return SpendTotals(
            self.day,
            self.day_usd + other.day_usd,
            self.month_usd + other.month_usd,
            self.unpriced + other.unpriced,
            self.bounded + other.bounded,
        )


class SpendLevel(IntEnum):
    """How much of a budget is spent, in rising order. An alert is due when the level rises."""

    FINE = 0
    WARNING = 1
    STOPPED = 2


@dataclass(frozen=True, slots=True)
class SpendDecision:
    level: SpendLevel
    reason: str = ""  # in words, empty when fine
    until: date | None = None  # the first day of the next budget
    share: float = 0.0  # the spent share of the budget, 1 for all of it; 0 when fine

    @property
    def allowed(self) -> bool:
        return self.level is not SpendLevel.STOPPED


FINE: Final = SpendDecision(SpendLevel.FINE)


def totals_on(spent: SpendTotals, today: date) -> SpendTotals:
    """Carries the totals over to today. A clock that goes back does not change them."""
    if today <= spent.day:
        return spent
    if (today.year, today.month) == (spent.day.year, spent.day.month):
        return replace(spent, day=today, day_usd=0.0)
    return SpendTotals(today)


def total_spend(rows: Iterable[KeySpend], today: date) -> SpendTotals:
    day_usd = month_usd = 0.0
    unpriced = bounded = 0
    for row in rows:
        if (row.day.year, row.day.month) == (today.year, today.month):
            day_usd += row.cost_usd if row.day == today else 0.0
            month_usd += row.cost_usd
            unpriced += row.unpriced
            bounded += row.bounded
    return SpendTotals(today, day_usd, month_usd, unpriced, bounded)


def next_month(day: date) -> date:
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)


def check_budget(
    budget: SpendBudget,
    spent: SpendTotals,
    today: date,
) -> SpendDecision:
    """Decides whether another request may run. The budget with the worse level decides; at
    equal levels, the month's budget.
    """
    today_spent = spent if spent.day == today else totals_on(spent, today)
    daily_usd = budget.day_usd
    monthly_usd = budget.month_usd
    warn_share = budget.warn_share
    if (daily_usd is None or today_spent.day_usd < daily_usd * warn_share) and (
        monthly_usd is None or today_spent.month_usd < monthly_usd * warn_share
    ):
        return FINE
    day = today_spent.day
    month = _decide_for_period(
        "month", monthly_usd, today_spent.month_usd, next_month(day), warn_share
    )
    daily = _decide_for_period(
        "day", daily_usd, today_spent.day_usd, day + timedelta(1), warn_share
    )
    return max(month, daily, key=lambda decision: decision.level)


def _decide_for_period(
    period: str,
    budget_usd: float | None,
    spent_usd: float,
    until: date,
    warn_share: float,
) -> SpendDecision:
    if budget_usd is None or spent_usd < budget_usd * warn_share:
        return FINE
    stopped = spent_usd >= budget_usd
    level = SpendLevel.STOPPED if stopped else SpendLevel.WARNING
    reason = (
        f"this key spent {spent_usd:.2f} of its {budget_usd:.2f} US dollars per {period}; "
        f"the next budget starts on {until.isoformat()} (UTC)"
    )
    share = spent_usd / budget_usd if budget_usd else 1.0
    return SpendDecision(level, reason, until, share)


MINUTE_S: Final = 60.0

# Without this margin, a rounding error could refuse a client that returns after exactly
# `retry_after_s`.
_ROUNDING_S: Final = 1e-7


@dataclass(frozen=True, slots=True)
class RateLimit:
    """Limits requests and tokens per minute; None for no limit. Raises InputError below 1."""

    requests_per_min: float | None = None
    tokens_per_min: float | None = None
    burst_s: float = MINUTE_S  # how many seconds' requests may arrive at the same time

    def __post_init__(self) -> None:
        for name, value in (
            ("requests_per_min", self.requests_per_min),
            ("tokens_per_min", self.tokens_per_min),
        ):
            if value is not None and not 1 <= value < math.inf:
                raise InputError(f"{name} is 1 or more, or absent for no limit; not {value}")

    def part(self, share: float) -> Self:
        """Returns a share (above 0, at most 1) of these limits, but at least 1 per minute."""
        requests = self.requests_per_min
        tokens = self.tokens_per_min
        return replace(
            self,
            requests_per_min=None if requests is None else max(1.0, requests * share),
            tokens_per_min=None if tokens is None else max(1.0, tokens * share),
        )


class RateState(NamedTuple):
    """Monotonic seconds at which each bucket is empty; in the past for an empty bucket."""

    requests_until: float = 0.0
    tokens_until: float = 0.0


class RateDecision(NamedTuple):
    state: RateState  # the state to keep, also after a refusal
    allowed: bool
    retry_after_s: float = 0.0  # 0 when allowed
    reason: str = ""  # in words


class LimitStatus(NamedTuple):
    kind: str  # requests or tokens
    per_minute: float
    remaining: float
    reset_s: float  # seconds until the whole limit is available


def admit_request(
    state: RateState,
    limit: RateLimit,
    tokens: float,
    now: float,
) -> RateDecision:
    """Adds a request's cost to both buckets; to neither bucket if a limit refuses the request.

    Args:
        now: monotonic seconds.
    """
    requests_until, tokens_until = state
    # cost_s, tokens_s: the seconds in which a bucket drains the request's cost. No further
    # functions, because each request runs this code.
    cost_s = tokens_s = requests_wait_s = tokens_wait_s = 0.0
    if limit.requests_per_min is not None:
        cost_s = MINUTE_S / limit.requests_per_min
        requests_wait_s = requests_until - now - max(0.0, limit.burst_s - cost_s)
    if limit.tokens_per_min is not None:
        tokens_s = tokens * MINUTE_S / limit.tokens_per_min
        tokens_wait_s = tokens_until - now - max(0.0, limit.burst_s - tokens_s)
    wait_s = max(requests_wait_s, tokens_wait_s)
    if wait_s > _ROUNDING_S:
        per_minute, counted = (
            (limit.requests_per_min, "requests")
            if requests_wait_s >= tokens_wait_s
            else (limit.tokens_per_min, "tokens")
        )
        reason = f"this key's limit of {per_minute:.15g} {counted} per minute is used up"
        return RateDecision(
            state,
            allowed=False,
            retry_after_s=wait_s,
            reason=reason,
        )
    next_state = RateState(max(requests_until, now) + cost_s, max(tokens_until, now) + tokens_s)
    return RateDecision(next_state, allowed=True)


def settle_request(
    state: RateState,
    limit: RateLimit,
    *,
    estimated: float,
    actual: float,
    now: float,
) -> RateState:
    """Returns the state with a request's actual tokens.

    Args:
        estimated: the admitted tokens.
    """
    until = max(state.tokens_until, now)
    if limit.tokens_per_min is not None:
        until = max(
            now,
            until + (actual - estimated) * MINUTE_S / limit.tokens_per_min,
        )
    return RateState(state.requests_until, until)


def limit_statuses(
    state: RateState,
    limit: RateLimit,
    now: float,
) -> tuple[LimitStatus, ...]:
    statuses: tuple[LimitStatus, ...] = ()
    for kind, per_minute, until in (
        ("requests", limit.requests_per_min, state.requests_until),
        ("tokens", limit.tokens_per_min, state.tokens_until),
    ):
        if per_minute is not None:
            reset_s = max(0.0, until - now)
            remaining = max(0.0, per_minute * (1 - reset_s / MINUTE_S))
            statuses += (LimitStatus(kind, per_minute, remaining, reset_s),)
    return statuses


NO_LIMIT: Final = "no limit"
REMOVAL: Final = "none"  # the word that removes a limit on the command line
_RATE: Final = Range(1, 1e12)
_BUDGET_USD: Final = Range(0, 1e12)
_write_rate: Final = "{:.15g}".format


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """Limits of a client key; None for no limit. Budgets are in US dollars, by UTC days and
    months. Raises InputError.
    """

    requests_per_min: float | None = setting(
        None,
        Declaration(
            meaning="Requests per minute, across one machine's workers.",
            caption="requests/min",
            format=_write_rate,
            range=_RATE,
            unset=NO_LIMIT,
            removal=REMOVAL,
            metavar="N",
            form=FormEntry(label="Requests per minute", column="right", advanced=False),
        ),
    )
    tokens_per_min: float | None = setting(
        None,
        Declaration(
            meaning="Tokens per minute, of input and output.",
            caption="tokens/min",
            format=_write_rate,
            range=_RATE,
            unset=NO_LIMIT,
            removal=REMOVAL,
            metavar="N",
            form=FormEntry(label="Tokens per minute", column="right", advanced=False),
        ),
    )
    budget_day_usd: float | None = setting(
        None,
        Declaration(
            meaning="US dollars per day (UTC).",
            caption="a day",
            format=format_usd,
            range=_BUDGET_USD,
            unset=NO_LIMIT,
            removal=REMOVAL,
            metavar="USD",
            form=FormEntry(label="Budget per day (UTC), US dollars", advanced=False),
        ),
    )
    budget_month_usd: float | None = setting(
        None,
        Declaration(
            meaning="US dollars per month (UTC).",
            caption="a month",
            format=format_usd,
            range=_BUDGET_USD,
            unset=NO_LIMIT,
            removal=REMOVAL,
            metavar="USD",
            form=FormEntry(label="Budget per month (UTC), US dollars", advanced=False),
        ),
    )
    warn_share: float = setting(
        0.8,
        Declaration(
            meaning="Share of a budget at which Swapproof warns.",
            caption="warned at",
            format="{:g}".format,
            range=Range(0, 1, above=True),
            flags="--warn-at",
            metavar="SHARE",
            form=FormEntry(label="Warn at this share of a budget", advanced=False, step=0.05),
        ),
    )

    def __post_init__(self) -> None:
        _ = self.rate, self.budget

    @property
    def rate(self) -> RateLimit:
        return RateLimit(self.requests_per_min, self.tokens_per_min)

    @property
    def budget(self) -> SpendBudget:
        return SpendBudget(self.budget_day_usd, self.budget_month_usd, self.warn_share)

    @property
    def budgeted(self) -> bool:
        return self.budget_day_usd is not None or self.budget_month_usd is not None

    @property
    def or_none(self) -> Self | None:
        """The limits; None if no limit is set."""
        limit_values = (getattr(self, field.name) for field in fields(self)[:-1])
        return self if any(limit is not None for limit in limit_values) else None


BURST_S: Final = 5.0

# The rate is lower than the limit, because a burst adds requests to a minute.
_RATE_SHARE: Final = MINUTE_S / (MINUTE_S + BURST_S)


@dataclass(frozen=True, slots=True)
class EvalLimits:
    """Limits of eval workers' calls to a provider, including judges' calls and retries; None
    for no limit. At most the calls of BURST_S seconds may arrive at once.
    """

    max_concurrent: int | None = number(
        None,
        "The most requests at a time; null for no limit. Evals begin with 1 for each run.",
        COUNT,
    )
    requests_per_min: float | None = number(None, "Null for no limit.", Range(0.000001, 1e9))
    tokens_per_min: float | None = number(None, "Null for no limit.", Range(0.000001, 1e12))

    @property
    def rate(self) -> RateLimit:
        """Returns a rate that keeps every period of one minute within the limit."""
        return RateLimit(
            _lower_rate(self.requests_per_min),
            _lower_rate(self.tokens_per_min),
            burst_s=BURST_S,
        )


def _lower_rate(per_minute: float | None) -> float | None:
    return None if per_minute is None else max(1.0, per_minute * _RATE_SHARE)
