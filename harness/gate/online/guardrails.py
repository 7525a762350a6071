"""Guardrails are the closed list of measures that guard a canary: errors, latency, tokens,
refusals, invalid JSON and tool calls, cost, feedback, a judge (statistics.md §2.2, §2.4, §2.5).

`Guardrails` holds the policy's tolerated ratio of each; `FailureTally` and its subclasses hold
a block's counts by arm, `ArmLevels` its mean values, and all are read back from stored JSON.
Each guardrail is a stream of evidence of its own; they share one alpha over the rollout.
Whether one applies to a unit depends on the unit's first request alone, never on an answer:
what is chosen by its outcome proves nothing.

The unit rule tells a router what it counts for a canary (statistics.md §2.1): each caller's
first request of a day; how many units make a block, which guardrails are measured, and who
judges a sample of the answers.

The router has it from the routing table. `rollout.build_unit_rule` makes it of a policy.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Literal, NamedTuple, Self

from harness.frame.plain_data import read_fields
from harness.gate.online.prompt_cache import CacheLevels


class Guardrail(StrEnum):
    """A measure of a canary; for every guardrail, more is worse.

    A unit is a caller's first request of a day: that one fails, or has the value.
    """

    ERRORS = "errors"  # every unit; classes of failure are shown, not tested
    LATENCY = "latency"  # seconds to the end of the answer, every unit
    TIME_TO_FIRST_TOKEN = "time_to_first_token"  # noqa: S105 - seconds, units that stream
    INTER_TOKEN_LATENCY = "inter_token_latency"  # noqa: S105 - mean seconds, units that stream
    OUTPUT_TOKENS = "output_tokens"  # every unit; of a failed one, what it got
    TRUNCATION = "truncation"  # every unit: finish_reason length
    REFUSALS = "refusals"  # every unit: an answer that declines
    JSON_VALIDITY = "json_validity"  # units that ask for JSON: it does not parse, or fit
    TOOL_VALIDITY = "tool_validity"  # units that offer tools: a call of none, or misfitting
    COST_PER_SUCCESS = "cost_per_success"  # US dollars, every unit with priced targets
    FEEDBACK = "feedback"  # every unit: thumb down or low score before its block is out
    JUDGE = "judge"  # units drawn beforehand: the judge finds the answer bad


class GuardrailKind(StrEnum):
    COUNTS = "counts"  # a unit fails or not; tolerated: an odds ratio
    RANKS = "ranks"  # a value per unit; tolerated: a ratio of values


RANK_GUARDRAILS: Final = frozenset(
    {
        Guardrail.LATENCY,
        Guardrail.TIME_TO_FIRST_TOKEN,
        Guardrail.INTER_TOKEN_LATENCY,
        Guardrail.OUTPUT_TOKENS,
        Guardrail.COST_PER_SUCCESS,
    }
)

ToleratedRatio = float | Literal[False]


def guardrail_kind(guardrail: Guardrail) -> GuardrailKind:
    return GuardrailKind.RANKS if guardrail in RANK_GUARDRAILS else GuardrailKind.COUNTS


@dataclass(frozen=True, slots=True)
class Guardrails:
    """Sets the tolerated ratio of each guardrail, False for off. Errors are always on:
    `CanaryPolicy.rho`.

    A canary whose failures have odds 1.25 times the incumbent's, or whose values are 1.25
    times as high, is at the limit of a ratio of 1.25.
    """

    latency: ToleratedRatio = 1.25  # seconds to the end of the answer
    time_to_first_token: ToleratedRatio = 1.25  # seconds to a stream's first output
    inter_token_latency: ToleratedRatio = 1.25  # mean seconds between a stream's outputs
    output_tokens: ToleratedRatio = 1.5  # of the answer
    truncation: ToleratedRatio = 1.25  # answers that were cut off at their length
    refusals: ToleratedRatio = 1.25  # answers that decline
    json_validity: ToleratedRatio = 1.0  # asked for JSON, and it does not parse or fit
    # Calls of a tool that was not offered, or that do not fit it.
    tool_validity: ToleratedRatio = 1.0
    cost_per_success: ToleratedRatio = 1.5  # US dollars
    feedback: ToleratedRatio = 1.25  # bad words of users
    judge: ToleratedRatio = False  # answers that the policy's judge finds bad

    @classmethod
    def none(cls) -> Self:
        return cls(**dict.fromkeys((item.name for item in fields(cls)), False))

    def tolerated(self) -> dict[Guardrail, float]:
        ratios = ((guardrail, getattr(self, name)) for name, guardrail in _NAMED.items())
        return {guardrail: float(r) for guardrail, r in ratios if r is not False}


_NAMED: Final = {item.name: Guardrail(item.name) for item in fields(Guardrails)}


@dataclass(frozen=True, slots=True)
class FailureTally:
    """Counts a block's units that a guardrail applies to, and the failed ones."""

    units: int
    canary: int
    failures: int
    canary_failures: int

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "FailureTally":
        kind = next((kind for name, kind in _TALLIES.items() if name in stored), FailureTally)
        tally: FailureTally = read_fields(kind, stored)
        return tally

    def without(self, failures: int, *, canary: bool) -> Self:
        """Returns the counts with so many failures less, as far as the arm has them."""
        own = self.canary_failures if canary else self.failures - self.canary_failures
        less = min(failures, own)
        return replace(
            self,
            failures=self.failures - less,
            canary_failures=self.canary_failures - less * canary,
        )

    @property
    def fits(self) -> bool:
        return _failed(self).is_part_of(_counted(self))


class ArmSplit(NamedTuple):
    failures: int
    canary: int

    def is_part_of(self, whole: "ArmSplit") -> bool:
        """Tells whether neither arm has more than it has of the whole, or less than none."""
        control = self.failures - self.canary
        return (
            0 <= self.canary <= whole.canary and 0 <= control <= whole.failures - whole.canary
        )


class SegmentCount(NamedTuple):
    """Counts units in one segment of the traffic, as `FailureTally` does in all of it."""

    units: int
    canary: int
    failures: int
    canary_failures: int


@dataclass(frozen=True, slots=True)
class ErrorTally(FailureTally):
    """Which errors they were, and in which segments, explains the evidence, and adds none."""

    # By `ErrorClass`, of the failures whose class is known.
    classes: Mapping[str, ArmSplit] = field(default_factory=dict)
    # By `Segment`, of those that any unit was in; a unit is in several.
    segments: Mapping[str, SegmentCount] = field(default_factory=dict)

    @property
    def fits(self) -> bool:
        """A segment has no more than the block, and the classes have no more failures."""
        splits, failed = self.classes.values(), _failed(self)
        known = ArmSplit(
            sum(split.failures for split in splits), sum(split.canary for split in splits)
        )
        return (
            failed.is_part_of(_counted(self))
            and all(0 <= split.canary <= split.failures for split in splits)
            and known.is_part_of(failed)
            and all(
                _failed(count).is_part_of(_counted(count))
                and _counted(count).is_part_of(_counted(self))
                and _failed(count).is_part_of(failed)
                for count in self.segments.values()
            )
        )


NO_SPLIT: Final = ArmSplit(0, 0)


@dataclass(frozen=True, slots=True)
class JudgeTally(FailureTally):
    """A block's units that a judge was to read. The failures hold those without a verdict."""

    # Of the failures, where the judge gave none that can be read, or none in time.
    no_verdict: ArmSplit = NO_SPLIT
    cost_usd: float = 0.0  # what the judge cost since the block before

    @property
    def fits(self) -> bool:
        return (
            _failed(self).is_part_of(_counted(self))
            and self.no_verdict.is_part_of(_failed(self))
            and 0.0 <= self.cost_usd < math.inf
        )


@dataclass(frozen=True, slots=True)
class FeedbackTally(FailureTally):
    """Counts a block's units, and of how many a user said anything at all, good or bad."""

    # Units. It explains the evidence, and adds none: silence is no praise.
    opinions: ArmSplit = NO_SPLIT

    @property
    def fits(self) -> bool:
        whole = _counted(self)
        return _failed(self).is_part_of(whole) and self.opinions.is_part_of(whole)


_TALLIES: Final[Mapping[str, type[FailureTally]]] = {
    "no_verdict": JudgeTally,
    "opinions": FeedbackTally,
    "classes": ErrorTally,
}


def _counted(tally: FailureTally | SegmentCount) -> ArmSplit:
    return ArmSplit(tally.units, tally.canary)


def _failed(tally: FailureTally | SegmentCount) -> ArmSplit:
    return ArmSplit(tally.failures, tally.canary_failures)


@dataclass(frozen=True, slots=True)
class ArmLevels:
    """Holds geometric means of a block's values in both arms: for words, not for decisions.

    cache: what the prompt cache did, where it had any of the input.
    """

    canary: float
    control: float
    cache: CacheLevels | None = None


# For so long after its answer a unit's feedback counts, and its block waits for it, once any
# was given.
FEEDBACK_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class CanaryJudge:
    model: str  # PROVIDER/MODEL
    criteria: str  # description of a good answer
    max_usd: float  # in all, of a rollout
    share_bps: int = 10_000  # of the units of the smaller arm
    timeout_s: float = 30.0  # for a verdict, from the user's answer on


@dataclass(frozen=True, slots=True)
class UnitRule:
    """What the router counts as one unit, and how many make a block (statistics.md §2.1)."""

    block_size: int = 100  # admitted units
    missing_s: float = 600.0  # after a block closed, outcomes still out are missing
    period_s: float = 86_400.0  # then every sticky key counts once more
    began_s: float = 0.0  # when the rollout began, in seconds since 1970 UTC, 0 for not known
    # rho, guardrails: tolerated ratios, of errors and of what else is measured.
    rho: float = 1.0
    local_alpha: float = 0.0  # of the workers' own guards together, 0 for none
    guardrails: Mapping[Guardrail, float] = field(default_factory=dict)
    judge: CanaryJudge | None = None  # who reads a sample of the answers
    # Of the rollout's key ledger (`key_ledger`), a secret; empty for none.
    ledger_salt: str = ""

    @property
    def keeps_ledger(self) -> bool:
        return bool(self.ledger_salt)

    def age_s(self, at: datetime) -> float:
        return max(0.0, at.timestamp() - self.began_s) if self.began_s else 0.0


DEFAULT_UNIT_RULE = UnitRule()
