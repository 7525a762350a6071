"""What one data key may take: how fast, and for how much money."""

from dataclasses import dataclass, fields
from typing import Self

from harness.domain.reliability.rate_limits import RateLimit
from harness.domain.reliability.spend import SpendBudget


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """None for no limit. Budgets in US dollars, by UTC days and months.

    warn_share: of a budget, above 0 and at most 1: from there on a warning is given. Raises
    InputError for what is no limit.
    """

    requests_per_min: float | None = None
    tokens_per_min: float | None = None
    budget_day_usd: float | None = None
    budget_month_usd: float | None = None
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
        """None when nothing is limited: then nothing needs to be looked at."""
        limits = (getattr(self, each.name) for each in fields(self)[:-1])
        return self if any(limit is not None for limit in limits) else None
