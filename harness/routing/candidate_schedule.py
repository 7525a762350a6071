"""The schedule on which Swapproof measures further models for a route. Pure.

A schedule selects models by name and price; it gives no model traffic.
`harness.proposals.candidates` runs the rounds, and `harness.proposals.driver` follows
`OnBetter` after a pass.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Final

from harness.frame.configuration.setting import Range, required
from harness.frame.configuration.setting_values import check_settings
from harness.frame.cron import check_cron
from harness.frame.errors import InputError
from harness.frame.formatting import format_usd
from harness.frame.plain_data import short_hash
from harness.gate.suite_plan import Claim

_PRICE_CEILING: Final = re.compile(r"^(?P<name>.+):price<(?P<usd>\d+(\.\d+)?)$")
_MISSPELT_CEILING: Final = re.compile(r":[^:<]*<=?")
_WILDCARDS: Final = "*?["
MOST_USD: Final = 1_000_000.0  # for a round


class OnBetter(StrEnum):
    """The step after a candidate passes the gate."""

    NOTIFY = "notify"  # an alert; a person proposes it
    PROPOSE = "propose"  # the candidate waits for a person's approval
    CANARY = "canary"  # the canary opens, if the policy requires no approval


class Preference(StrEnum):
    BETTER = "better"  # superior
    CHEAPER = "cheaper"  # not worse, and cheaper
    NOT_WORSE = "not_worse"  # not worse, as a spare must be

    @property
    def claim(self) -> Claim:
        return {
            Preference.BETTER: Claim.SUPERIOR,
            Preference.CHEAPER: Claim.CHEAPER,
            Preference.NOT_WORSE: Claim.NON_INFERIOR,
        }[self]


@dataclass(frozen=True, slots=True)
class CandidateSchedule:
    models: tuple[str, ...]  # provider/model; may contain `*` and end with `:price<USD`
    every: str  # cron expression, UTC
    budget_usd: float = field(
        metadata=required(
            "Maximum for each round; other candidates wait for the next round.",
            range=Range(0, MOST_USD, above=True),
        )
    )
    on_better: OnBetter = OnBetter.PROPOSE  # the step after a candidate passes
    prefer: Preference = Preference.BETTER  # claim that a candidate must show

    @property
    def text(self) -> str:
        return (
            f"{', '.join(self.models)}; {self.every} (UTC), up to "
            f"{format_usd(self.budget_usd)} a round; "
            f"{self.prefer.value}: {self.on_better.value}"
        )


def check_schedule(schedule: CandidateSchedule) -> None:
    """Checks a schedule's values. Raises InputError."""
    try:
        check_cron(schedule.every)
    except InputError as error:
        raise InputError(f"every: {error}") from None
    check_selection(schedule)


def check_selection(schedule: CandidateSchedule) -> None:
    """Checks a schedule's values without its times. Raises InputError."""
    if not schedule.models:
        raise InputError("candidates need at least one name or pattern under `models`")
    check_settings(schedule)
    parse_patterns(schedule.models)


@dataclass(frozen=True, slots=True)
class CandidatePattern:
    """One parsed name or pattern of a schedule."""

    text: str
    name: str  # provider/model, with the wildcards of `fnmatch`
    ceiling_usd: float | None = None  # US dollars a million tokens, of input and of output

    @property
    def is_exact(self) -> bool:
        """Tells whether the pattern names one model, without wildcards."""
        return not any(sign in self.name for sign in _WILDCARDS)

    @property
    def provider(self) -> str:
        return self.name.partition("/")[0]

    def takes_provider(self, name: str) -> bool:
        """Tells whether models of this provider may match, before their names are known."""
        return fnmatchcase(name, self.provider)

    def takes(self, name: str, usd_per_mtok: float | None) -> bool:
        """Tells whether the pattern selects a model. A pattern with a ceiling selects no model
        without a price.

        Args:
            usd_per_mtok: the higher of its prices for input and output.
        """
        if not fnmatchcase(name, self.name):
            return False
        if self.ceiling_usd is None:
            return True
        return usd_per_mtok is not None and usd_per_mtok < self.ceiling_usd


def parse_patterns(models: Iterable[str]) -> Sequence[CandidatePattern]:
    """Parses names and patterns such as `openrouter/*:price<0.5`. Raises InputError."""
    return [_parse_pattern(model.strip()) for model in models]


def _parse_pattern(text: str) -> CandidatePattern:
    """Parses one pattern. Raises InputError, which suggests `:price<` for a near miss."""
    match = _PRICE_CEILING.match(text)
    name = match["name"] if match else text
    provider, slash, model = name.partition("/")
    is_ceiling = ":price" in text or "<" in text
    if not (slash and provider and model) or (is_ceiling and not match):
        correction = _MISSPELT_CEILING.sub(":price<", text)
        hint = (
            f"; did you mean {correction!r}?"
            if correction != text and _PRICE_CEILING.match(correction)
            else ""
        )
        raise InputError(
            f"{text!r} selects no models: write provider/model, with `*` for any text, and "
            f"`:price<0.5` for a ceiling in US dollars a million tokens{hint}"
        )
    return CandidatePattern(text, name, float(match["usd"]) if match else None)


@dataclass(frozen=True)
class CandidateRound:
    """One round of a schedule.

    Route and time identify a round, so that two control processes begin it only once.
    """

    id: str
    route: str
    due_at: datetime  # the schedule's time, or the time of another cause
    started_at: datetime
    incumbent: str  # target id
    because: str  # `schedule`, or the cause that started it earlier
    proposals: tuple[str, ...] = ()  # ids, the cheapest candidate first
    waiting: tuple[str, ...] = ()  # names that did not fit into the budget
    cost_usd: float | None = 0.0  # upper estimate; None if a candidate's price is unknown


def build_start_round(
    route: str,
    incumbent: str,
    now: datetime,
) -> CandidateRound:
    """Builds a round that marks a new schedule's start. The first real round follows at the
    schedule's first time after `now`.
    """
    return CandidateRound(round_id(route, now), route, now, now, incumbent, REGISTERED)


def round_id(route: str, at: datetime) -> str:
    """Derives a round's id from route and time."""
    return f"round_{short_hash(f'{route} {at.isoformat()}').hex()}"


BY_SCHEDULE: Final = "schedule"
REGISTERED: Final = "the schedule was set"
# Largest probability that a useless candidate passes in 90 days, over all rounds of a route.
# Each round takes ROUND_SHARE of the remaining alpha (statistics.md §1.18).
QUARTER_ALPHA: Final = 0.05
ROUND_SHARE: Final = 0.125


def round_alpha(spent_alpha: float, candidates: int) -> float:
    """Returns each candidate's alpha.

    Args:
        spent_alpha: the alpha of all rounds in the last 90 days.
    """
    return max(0.0, QUARTER_ALPHA - spent_alpha) * ROUND_SHARE / max(1, candidates)
