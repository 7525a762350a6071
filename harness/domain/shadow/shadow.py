"""A shadow sends a share of a route's requests to a candidate as well, and discards its answers
(F8). Pure. It needs no verdict; its provider must be cleared for the route's data class (D8),
and it has limits and a budget of its own.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Final

from harness.domain.errors import InputError
from harness.domain.routing.target import Target

MAX_SHARE_BPS: Final = 10_000
MAX_AT_ONCE: Final = 64
MAX_PER_DAY: Final = 10_000_000
MIRRORED: Final = "mirrored"
UNPRICED: Final = "unpriced"
COST_USD: Final = "candidate.cost_usd"


@dataclass(frozen=True, slots=True)
class ShadowLimits:
    """How much of a route's traffic a shadow may mirror, and at what cost."""

    share_bps: int = 100  # of the sticky keys, 1 to 10 000
    at_once: int = 4  # of one worker. Days are UTC
    requests_per_day: int = 1000
    # usd_per_day, usd_in_all: None for no limit in money, of a day and of its whole life.
    usd_per_day: float | None = 1.0
    usd_in_all: float | None = None

    @property
    def in_money(self) -> bool:
        return self.usd_per_day is not None or self.usd_in_all is not None


@dataclass(frozen=True, slots=True)
class Shadow:
    """Describes a shadow of a route, which ends when that changes: see `shadow.mirroring`."""

    id: str
    route: str
    incumbent: str  # target id
    candidate: Target
    data_class: str
    limits: ShadowLimits
    proposal: str | None  # the one that it was started for, None for an approver's act
    reason: str
    started_by: str
    started_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class ShadowRecord:
    """A shadow as it is stored."""

    shadow: Shadow
    ended_at: datetime | None = None  # ended_at, ended_by: None until it ends
    ended_by: str | None = None
    ended_because: str | None = None


@dataclass(frozen=True, slots=True)
class ShadowTally:
    """Holds what a worker added up of a shadow on one day (UTC): numbers, never content."""

    shadow: str
    day: date
    worker: str
    # Requests mirrored and left out, by why, and pairs by check (`domain.shadow.pairs`).
    counts: Mapping[str, int] = field(default_factory=dict)
    # Of the pairs, by side and measure, and the candidate's whole cost.
    sums: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ShadowUsage:
    """What is used of a day's budget, and of the whole one."""

    requests: int = 0
    cost_usd: float = 0.0
    in_all_usd: float = 0.0  # of every day

    def __add__(self, other: "ShadowUsage") -> "ShadowUsage":
        return ShadowUsage(
            self.requests + other.requests,
            self.cost_usd + other.cost_usd,
            self.in_all_usd + other.in_all_usd,
        )


def check_shadow_limits(limits: ShadowLimits) -> None:
    """Checks the limits of a shadow. Raises InputError for limits that make no sense."""
    if not 1 <= limits.share_bps <= MAX_SHARE_BPS:
        raise InputError("a shadow mirrors more than nothing, and 100 % at the most")
    if not 1 <= limits.at_once <= MAX_AT_ONCE:
        raise InputError(f"a shadow asks 1 to {MAX_AT_ONCE} at once, not {limits.at_once}")
    if not 1 <= limits.requests_per_day <= MAX_PER_DAY:
        raise InputError(f"a shadow mirrors 1 to {MAX_PER_DAY} requests a day")
    for usd, of in ((limits.usd_per_day, "a day"), (limits.usd_in_all, "in all")):
        if usd is not None and not 0 < usd < 1e9:
            raise InputError(f"a shadow's budget is above 0 US dollars {of}, not {usd}")


def within_budget(limits: ShadowLimits, used: ShadowUsage, *, priced: bool) -> bool:
    """Whether one more may be asked. An unknown cost keeps within no budget in money."""
    if used.requests >= limits.requests_per_day:
        return False
    if limits.in_money and not priced:
        return False
    of_day, whole = limits.usd_per_day, limits.usd_in_all
    in_day = of_day is None or used.cost_usd < of_day
    return in_day and (whole is None or used.in_all_usd < whole)


def sum_usage(rows: Iterable[ShadowTally], today: date) -> ShadowUsage:
    """Sums up what a shadow has used. rows: of all days, for the total budget."""
    usage = ShadowUsage()
    for row in rows:
        usd, is_today = row.sums.get(COST_USD, 0.0), row.day == today
        asked = row.counts.get(MIRRORED, 0) if is_today else 0
        usage += ShadowUsage(asked, usd if is_today else 0.0, usd)
    return usage


def add_tallies(one: ShadowTally, more: ShadowTally) -> ShadowTally:
    """Adds two tallies, under the first one's name."""
    counts = Counter(one.counts)
    counts.update(more.counts)
    sums = dict(one.sums)
    for name, value in more.sums.items():
        sums[name] = sums.get(name, 0.0) + value
    return ShadowTally(one.shadow, one.day, one.worker, dict(counts), sums)
