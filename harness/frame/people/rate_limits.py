"""Bounds requests and tokens per minute by two leaky buckets, in monotonic seconds. Pure.
Source: the generic cell rate algorithm, ITU-T I.371, with a tolerance of one minute for keys.
"""

import math
from dataclasses import dataclass, fields, replace
from typing import Final, NamedTuple, Self

from harness.frame.errors import InputError
from harness.frame.people.spend import SpendBudget

MINUTE_S: Final = 60.0
# Who comes back after exactly the time told must not be a rounding error too early.
_ROUNDING_S: Final = 1e-7


@dataclass(frozen=True, slots=True)
class RateLimit:
    """Limits requests and tokens per minute; None for no limit. Raises InputError below 1."""

    requests_per_min: float | None = None
    tokens_per_min: float | None = None
    burst_s: float = MINUTE_S  # so many seconds' worth may come at once

    def __post_init__(self) -> None:
        for name, value in (
            ("requests_per_min", self.requests_per_min),
            ("tokens_per_min", self.tokens_per_min),
        ):
            if value is not None and not 1 <= value < math.inf:
                raise InputError(f"{name} is 1 or more, or absent for no limit; not {value}")

    def part(self, share: float) -> Self:
        """Returns a share, above 0, at most 1, of these limits, but at least one a minute."""
        requests, tokens = self.requests_per_min, self.tokens_per_min
        return replace(
            self,
            requests_per_min=None if requests is None else max(1.0, requests * share),
            tokens_per_min=None if tokens is None else max(1.0, tokens * share),
        )


class RateState(NamedTuple):
    """Monotonic seconds at which each bucket is empty; in the past for one that is."""

    requests_until: float = 0.0
    tokens_until: float = 0.0


class RateDecision(NamedTuple):
    state: RateState  # to keep, whatever was decided
    allowed: bool
    retry_after_s: float = 0.0  # 0 when allowed
    reason: str = ""  # in words


class LimitStatus(NamedTuple):
    kind: str  # requests or tokens
    per_minute: float
    remaining: float
    reset_s: float  # until all of it is free


def admit_request(
    state: RateState, limit: RateLimit, tokens: float, now: float
) -> RateDecision:
    """Takes a request's cost from both buckets, or from none."""
    requests_until, tokens_until = state
    # cost_s, tokens_s: how long a bucket takes to lose it. Every request asks: no calls.
    cost_s = tokens_s = for_requests = for_tokens = 0.0
    if limit.requests_per_min is not None:
        cost_s = MINUTE_S / limit.requests_per_min
        for_requests = requests_until - now - max(0.0, limit.burst_s - cost_s)
    if limit.tokens_per_min is not None:
        tokens_s = tokens * MINUTE_S / limit.tokens_per_min
        for_tokens = tokens_until - now - max(0.0, limit.burst_s - tokens_s)
    wait_s = max(for_requests, for_tokens)
    if wait_s > _ROUNDING_S:
        per_minute, what = (
            (limit.requests_per_min, "requests")
            if for_requests >= for_tokens
            else (limit.tokens_per_min, "tokens")
        )
        reason = f"this key's limit of {per_minute:.15g} {what} per minute is used up"
        return RateDecision(state, allowed=False, retry_after_s=wait_s, reason=reason)
    taken = RateState(max(requests_until, now) + cost_s, max(tokens_until, now) + tokens_s)
    return RateDecision(taken, allowed=True)


def settle_request(
    state: RateState, limit: RateLimit, *, estimated: float, actual: float, now: float
) -> RateState:
    """The state once a request's tokens are known. estimated: what was admitted."""
    until = max(state.tokens_until, now)
    if limit.tokens_per_min is not None:
        until = max(now, until + (actual - estimated) * MINUTE_S / limit.tokens_per_min)
    return RateState(state.requests_until, until)


def limit_statuses(state: RateState, limit: RateLimit, now: float) -> tuple[LimitStatus, ...]:
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


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """Limits what a data key may use, None for no limit. Budgets are in US dollars, by UTC days
    and months. Raises InputError.
    """

    requests_per_min: float | None = None
    tokens_per_min: float | None = None
    budget_day_usd: float | None = None
    budget_month_usd: float | None = None
    # Of a budget, above 0 and at most 1: from there on a warning is given.
    warn_share: float = 0.8

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
    def some(self) -> Self | None:
        """The limits, or None when nothing is limited, so that nothing needs to be checked."""
        limits = (getattr(self, field.name) for field in fields(self)[:-1])
        return self if any(limit is not None for limit in limits) else None


BURST_S: Final = 5.0
# With a burst, a minute may hold more than its rate: so the rate is a little lower.
_SHARE: Final = MINUTE_S / (MINUTE_S + BURST_S)


@dataclass(frozen=True, slots=True)
class EvalLimits:
    """Limits what eval workers ask of a provider, None for no limit. Judges' calls and retries
    count. At most five seconds' worth comes at once.
    """

    # The most requests at a time; null for no limit. Evals begin with 2 for each target.
    max_concurrent: int | None = None
    requests_per_min: float | None = None  # null for no limit
    tokens_per_min: float | None = None  # null for no limit

    @property
    def rate(self) -> RateLimit:
        """A rate that lets no minute, wherever it begins, have more requests than allowed."""
        return RateLimit(
            _paced(self.requests_per_min), _paced(self.tokens_per_min), burst_s=BURST_S
        )


def _paced(per_minute: float | None) -> float | None:
    return None if per_minute is None else max(1.0, per_minute * _SHARE)
