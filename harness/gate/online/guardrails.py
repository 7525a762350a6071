"""Guardrails are the closed list of measures that guard a canary: errors, latency, tokens,
refusals, invalid JSON and tool calls, cost, feedback, a judge (statistics.md §2.2, §2.4, §2.5).

`Guardrails` contains the policy's tolerated ratios. `FailureTally` and its subclasses contain a
block's counts by arm, and `ArmLevels` its mean values; all can be read back from stored JSON.
Each guardrail is a separate stream of evidence; all share one alpha over the rollout. Only the
exposure's first request decides whether a guardrail applies to the exposure, never an answer:
exposures that are selected by their outcome prove nothing.

`ExposureRule` defines a canary's exposures for the router (statistics.md §2.1): each caller's
first request of a day, the exposures per block, the guardrails and the judge. The router reads
the rule from the routing table; `rollout.build_exposure_rule` derives it from a policy.

`rank_block` turns one guardrail's values (latency, tokens, cost) into one rank in (0, 1) for
each scored exposure (statistics.md §2.4); ranks are uniform if the arms are alike. The block's
stored name seeds the draws. If the canary has most of the traffic, as in a bake, the roles are
exchanged: the function ranks control values among canary values and keeps 1 - u, which is also
uniform, and high for high canary values.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from enum import StrEnum
from random import Random
from typing import Any, Final, Literal, NamedTuple, Self

from harness.frame.configuration.setting import DOLLARS, WAIT_S, Range, number, required
from harness.frame.errors import InputError
from harness.frame.people.audience import StepAudience
from harness.frame.plain_data import read_fields
from harness.gate.online.prompt_cache import CacheLevels


class Guardrail(StrEnum):
    """A measure of a canary; for every guardrail, more is worse.

    An exposure is a caller's first request of a day. The request fails or not, or has a value.
    """

    ERRORS = "errors"  # every exposure; failure classes only explain
    LATENCY = "latency"  # seconds to the end of the answer, every exposure
    TIME_TO_FIRST_TOKEN = "time_to_first_token"  # noqa: S105 - seconds, exposures that stream
    INTER_TOKEN_LATENCY = "inter_token_latency"  # noqa: S105 - mean seconds, exposures that stream
    # Every exposure; for a failed request, the tokens that it received.
    OUTPUT_TOKENS = "output_tokens"
    TRUNCATION = "truncation"  # every exposure: finish_reason length
    REFUSALS = "refusals"  # every exposure: an answer that declines
    JSON_VALIDITY = "json_validity"  # exposures that ask for JSON: the answer is no such JSON
    TOOL_VALIDITY = "tool_validity"  # exposures that offer tools: an invalid call
    COST_PER_SUCCESS = "cost_per_success"  # US dollars, every exposure with priced targets
    FEEDBACK = "feedback"  # every exposure: bad feedback within `missing_s` of the answer
    JUDGE = "judge"  # exposures selected beforehand: the judge finds the answer bad
    LEAVING = "leaving"  # callers who left after a long wait without new output
    LIMITS = "limits"  # every sent exposure: the provider's rate limit or quota refused it
    REPEATS = "repeats"  # answers: one long text for unlike questions
    # Every exposure with a window: any of the caller's first requests in the window fails.
    CALLER_ERRORS = "caller_errors"


class GuardrailKind(StrEnum):
    COUNTS = "counts"  # an exposure fails or not; tolerated: an odds ratio
    RANKS = "ranks"  # a value per exposure; tolerated: a ratio of values
    SUMS = "sums"  # a bet on a mean; tolerated: a margin by which the canary's may exceed


RANK_GUARDRAILS: Final = frozenset(
    {
        Guardrail.LATENCY,
        Guardrail.TIME_TO_FIRST_TOKEN,
        Guardrail.INTER_TOKEN_LATENCY,
        Guardrail.OUTPUT_TOKENS,
        Guardrail.COST_PER_SUCCESS,
    }
)

SUM_GUARDRAILS: Final = frozenset({Guardrail.LIMITS})

ToleratedRatio = float | Literal[False]
RATIO: Final = Range(0.1, 100)  # of every tolerated ratio


def guardrail_kind(guardrail: Guardrail) -> GuardrailKind:
    """Returns how the guardrail compares the arms."""
    if guardrail in RANK_GUARDRAILS:
        return GuardrailKind.RANKS
    return GuardrailKind.SUMS if guardrail in SUM_GUARDRAILS else GuardrailKind.COUNTS


@dataclass(frozen=True, slots=True)
class Guardrails:
    """Sets the tolerated ratio of each guardrail, a margin for `limits`, False for off.

    The errors guardrail is always on, with `CanaryPolicy.rho`.
    A ratio of 1.25 tolerates failure odds up to 1.25 times the incumbent's, or values up to
    1.25 times as high.
    """

    latency: ToleratedRatio = 1.25  # seconds to the end of the answer
    time_to_first_token: ToleratedRatio = 1.25  # seconds to a stream's first output
    inter_token_latency: ToleratedRatio = 1.25  # mean seconds between a stream's outputs
    output_tokens: ToleratedRatio = 1.5  # tokens of the answer
    truncation: ToleratedRatio = 1.25  # answers that end at the token limit
    refusals: ToleratedRatio = 1.25  # answers that decline
    json_validity: ToleratedRatio = 1.0  # Answers that are not the requested JSON
    tool_validity: ToleratedRatio = 1.0  # calls of unknown tools, or with invalid arguments
    cost_per_success: ToleratedRatio = 1.5  # US dollars per success
    feedback: ToleratedRatio = 1.25  # bad feedback of callers
    judge: ToleratedRatio = False  # answers that the policy's judge finds bad
    leaving: ToleratedRatio = 1.25  # callers who left after a long wait without new output
    # By how much the canary's share of limited requests may exceed the incumbent's: 0.1 for 10
    # points, not a ratio.
    limits: ToleratedRatio = 0.10
    repeats: ToleratedRatio = 2.0  # one long text as the answer to unlike questions

    @classmethod
    def none(cls) -> Self:
        """Returns guardrails that are all off, except errors."""
        return cls(**dict.fromkeys((item.name for item in fields(cls)), False))

    def tolerated(self) -> dict[Guardrail, float]:
        """Returns the ratios of guardrails that are on, without errors."""
        ratios = (
            (guardrail, getattr(self, name)) for name, guardrail in _GUARDRAIL_BY_FIELD.items()
        )
        return {guardrail: float(r) for guardrail, r in ratios if r is not False}


_GUARDRAIL_BY_FIELD: Final = {item.name: Guardrail(item.name) for item in fields(Guardrails)}


@dataclass(frozen=True, slots=True)
class FailureTally:
    """Counts a block's exposures to which a guardrail applies, and the failed exposures."""

    units: int
    canary: int
    failures: int
    canary_failures: int

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "FailureTally":
        """Restores a tally of the class that its fields name. Raises as `read_fields`."""
        kind = next(
            (kind for name, kind in _TALLIES.items() if name in stored),
            FailureTally,
        )
        tally: FailureTally = read_fields(kind, stored)
        return tally

    def without(self, failures: int, *, canary: bool) -> Self:
        """Subtracts up to `failures` failures from one arm."""
        own = self.canary_failures if canary else self.failures - self.canary_failures
        less = min(failures, own)
        return replace(
            self,
            failures=self.failures - less,
            canary_failures=self.canary_failures - less * canary,
        )

    @property
    def fits(self) -> bool:
        """Tells whether the counts are possible: each arm's failures are part of its
        exposures.
        """
        return _failure_split(self).is_part_of(_exposure_split(self))


class ArmSplit(NamedTuple):
    failures: int
    canary: int

    def is_part_of(self, whole: "ArmSplit") -> bool:
        """Tells whether each arm's count is between 0 and the arm's count in `whole`."""
        control = self.failures - self.canary
        return (
            0 <= self.canary <= whole.canary and 0 <= control <= whole.failures - whole.canary
        )


NO_SPLIT: Final = ArmSplit(0, 0)


class SegmentCount(NamedTuple):
    """Counts exposures in one segment of the traffic, like `FailureTally` for all traffic."""

    units: int
    canary: int
    failures: int
    canary_failures: int


@dataclass(frozen=True, slots=True)
class ErrorTally(FailureTally):
    """Adds error classes and segments, which explain the evidence but are not part of it."""

    # By `ErrorClass`, for failures with a known class.
    classes: Mapping[str, ArmSplit] = field(default_factory=dict)
    # By `Segment`, for segments with exposures; an exposure is in several segments.
    segments: Mapping[str, SegmentCount] = field(default_factory=dict)
    # Exposures whose outcome is no evidence of errors (`outcome.READINGS`); both arms, canary.
    unknown: ArmSplit = NO_SPLIT

    @property
    def known(self) -> FailureTally:
        """Returns the counts without the exposures whose outcome is unknown."""
        return FailureTally(
            self.units - self.unknown.failures,
            self.canary - self.unknown.canary,
            self.failures,
            self.canary_failures,
        )

    @property
    def fits(self) -> bool:
        """Checks that segments fit into the block, and classes into the failures."""
        splits = self.classes.values()
        failed = _failure_split(self)
        known = ArmSplit(
            sum(split.failures for split in splits),
            sum(split.canary for split in splits),
        )
        return (
            failed.is_part_of(_exposure_split(self.known))
            and self.unknown.is_part_of(_exposure_split(self))
            and all(0 <= split.canary <= split.failures for split in splits)
            and known.is_part_of(failed)
            and all(
                _failure_split(count).is_part_of(_exposure_split(count))
                and _exposure_split(count).is_part_of(_exposure_split(self))
                and _failure_split(count).is_part_of(failed)
                for count in self.segments.values()
            )
        )


@dataclass(frozen=True, slots=True)
class JudgeTally(FailureTally):
    """Counts a block's exposures for the judge. Exposures without a judge's verdict are
    failures.
    """

    # The failures for which the judge gave no readable verdict in time.
    no_verdict: ArmSplit = NO_SPLIT
    cost_usd: float = 0.0  # the judge's cost since the previous block

    @property
    def fits(self) -> bool:
        return (
            _failure_split(self).is_part_of(_exposure_split(self))
            and self.no_verdict.is_part_of(_failure_split(self))
            and 0.0 <= self.cost_usd < math.inf
        )


@dataclass(frozen=True, slots=True)
class FeedbackTally(FailureTally):
    """Counts a block's exposures, and the exposures with a caller's opinion, good or bad."""

    # Exposures with an opinion. They are not evidence, because silence is not a good opinion.
    opinions: ArmSplit = NO_SPLIT
    missing: ArmSplit = NO_SPLIT  # the failures without an outcome

    @property
    def fits(self) -> bool:
        whole = _exposure_split(self)
        return (
            _failure_split(self).is_part_of(whole)
            and self.opinions.is_part_of(whole)
            and self.missing.is_part_of(_failure_split(self))
        )


@dataclass(frozen=True, slots=True)
class WindowTally(FailureTally):
    """Counts a block's callers, and those with a failed request in their window."""

    missing: ArmSplit = NO_SPLIT  # the failures whose window is not known
    # The requests of the windows, and the sum over callers of their squared numbers: both arms,
    # canary. They are not evidence.
    requests: ArmSplit = NO_SPLIT
    squares: ArmSplit = NO_SPLIT

    @property
    def fits(self) -> bool:
        return (
            _failure_split(self).is_part_of(_exposure_split(self))
            and self.missing.is_part_of(_failure_split(self))
            and self.requests.is_part_of(self.squares)
        )

    @property
    def is_lost(self) -> bool:
        """Tells whether no window is known, as after the end of the router's process."""
        return 0 < self.units == self.missing.failures


_TALLIES: Final[Mapping[str, type[FailureTally]]] = {
    "no_verdict": JudgeTally,
    "opinions": FeedbackTally,
    "squares": WindowTally,
    "classes": ErrorTally,
}


def _exposure_split(tally: FailureTally | SegmentCount) -> ArmSplit:
    return ArmSplit(tally.units, tally.canary)


def _failure_split(tally: FailureTally | SegmentCount) -> ArmSplit:
    return ArmSplit(tally.failures, tally.canary_failures)


@dataclass(frozen=True, slots=True)
class ArmLevels:
    """Holds geometric means of a block's values in both arms: for texts, not for decisions.

    cache: the effect of the prompt cache; None if it read no input.
    """

    canary: float
    control: float
    cache: CacheLevels | None = None


# The most requests of a caller that its window counts.
WINDOW_REQUESTS: Final = 8


@dataclass(frozen=True, slots=True)
class CanaryJudge:
    """The model that judges a canary's answers, and its limits.

    Routers stop calling the judge once its calls have cost `max_usd`, over all workers.
    """

    model: str  # PROVIDER/MODEL
    criteria: str  # description of a good answer
    max_usd: float = field(
        metadata=required("Maximum cost for the whole rollout.", range=DOLLARS)
    )
    share_bps: int = number(
        10_000,
        "Judged share of the smaller arm's callers.",
        Range(1, 10_000),
    )
    timeout_s: float = number(30.0, "Limit for the judge, from the answer's end.", WAIT_S)


@dataclass(frozen=True, slots=True)
class ExposureRule:
    """Defines exposures and blocks for the router (statistics.md §2.1)."""

    block_size: int = 100  # admitted exposures
    # Outcomes still open this long after the block closed are missing. A caller's feedback
    # counts if it arrives within this time after the answer.
    missing_s: float = 600.0
    period_s: float = 86_400.0  # after this time, every sticky key can count again
    began_s: float = 0.0  # start of the rollout, in seconds since 1970 UTC; 0 if unknown
    # rho, guardrails: tolerated ratios, of errors and of the other guardrails.
    rho: float = 1.0
    local_alpha: float = 0.0  # for the guards of all router workers together; 0 for no guard
    guardrails: Mapping[Guardrail, float] = field(default_factory=dict)
    judge: CanaryJudge | None = None
    # Secret salt of the rollout's key ledger (see `observation`); empty without a ledger.
    ledger_salt: str = ""
    # The wait in seconds after which leaving counts as harm, until the rollout's first complete
    # block; 0 if unknown. See `outcome.WaitLimits`.
    first_wait_s: float = 0.0
    stream_wait_s: float = 0.0
    gap_wait_s: float = 0.0
    # The ids of targets whose answers in evals reported tokens: a usage of 0 tokens is then a
    # malformed answer.
    counts_usage: tuple[str, ...] = ()
    # A caller's window: its first window_requests requests that arrive within window_s of its
    # first one (statistics.md §2.1). 0 without windows, as in rules of older rollouts.
    window_s: float = 0.0
    window_requests: int = WINDOW_REQUESTS
    # The route's limit for a request in seconds: every window is known this long after its end.
    total_timeout_s: float = 120.0

    @property
    def has_windows(self) -> bool:
        return self.window_s > 0.0

    @property
    def window_known_s(self) -> float:
        """Returns when a caller's window is known, in seconds after its first request."""
        return self.window_s + self.total_timeout_s

    # Caps of the bets on means, by guardrail of ranks; a guardrail without a cap has ranks
    # only. See `capped_sums`.
    caps: Mapping[Guardrail, float] = field(default_factory=dict)
    # How often the incumbent usually fails, at most, by stream of errors; a stream without a
    # known rate is left out. See `usual_rate`.
    usual_rates: Mapping[Guardrail, float] = field(default_factory=dict)
    # The audience of each step, by its share; empty if the share draws all callers.
    audiences: tuple[StepAudience, ...] = ()

    @property
    def keeps_ledger(self) -> bool:
        return bool(self.ledger_salt)

    def age_s(self, at: datetime) -> float:
        """Returns the rollout's age in seconds; 0 if it began later or at an unknown time."""
        return max(0.0, at.timestamp() - self.began_s) if self.began_s else 0.0

    def find_period(self, at: datetime) -> int:
        """Returns the rollout's period at a time, from 1."""
        return 1 + int(self.age_s(at) // self.period_s)


DEFAULT_EXPOSURE_RULE = ExposureRule()


MIN_CONTROLS: Final = 9
MAX_CONTROLS: Final = 99


class MeasuredExposure(NamedTuple):
    """Holds one exposure's arm and value. value None: the exposure failed, or never ended, and
    ranks as worse than any value.

    observed: the measured value, if `value` is adjusted for the comparison (`prompt_cache`).
    bounded: the value is a lower bound, so levels leave it out.
    """

    canary: bool
    value: float | None
    observed: float | None = None
    bounded: bool = False


@dataclass(frozen=True, slots=True)
class BlockRanks:
    """One guardrail's ranks in a block; without ranks if an arm has no values."""

    # In (0, 1), for each scored exposure of the smaller arm; high for high canary values.
    u: tuple[float, ...]
    level: ArmLevels | None


def rank_among(
    value: float,
    controls: Sequence[float],
    tie_breaker: float,
) -> float:
    """Ranks the value among the controls, in [0, 1]: `(less + U·(equal + 1))/(K + 1)`.

    Args:
        controls: from the same time window, each one used once.
        tie_breaker: U, uniform on (0, 1).

    The rank is uniform if canary and control are alike.
    """
    ordered = sorted(controls)
    below = bisect_left(ordered, value)
    equal = bisect_right(ordered, value) - below
    return (below + tie_breaker * (equal + 1)) / (len(ordered) + 1)


def scored_count(fewer: int, more: int) -> int:
    """Counts the smaller arm's exposures that get a rank, each among MIN_CONTROLS or more."""
    if not fewer or not more:
        return 0
    return fewer // math.ceil(MIN_CONTROLS * fewer / more)


def rank_block(
    values: Sequence[MeasuredExposure],
    *,
    guardrail: Guardrail,
    tolerated: float,
    block: tuple[str, str, int],
) -> BlockRanks:
    """Ranks one guardrail's values in one complete block.

    Args:
        values: of all exposures to which the guardrail applies, in the order of admission.
        tolerated: a ratio that divides canary values.
        block: rollout, worker and sequence. They seed the draw of canary values and controls,
            so that outcomes cannot influence the pairing.

    Because arms are assigned at random, the ranks of equal arms are independent and uniform at
    any time of day. Raises InputError for a value that is negative or not finite.
    """
    for value in values:
        if value.value is not None and not 0.0 <= value.value < math.inf:
            raise InputError(
                f"{guardrail.value} of a caller is {value.value}: it must be finite, >= 0"
            )
    # Only `random()` returns the same numbers in every version of Python.
    draw = Random(":".join((*map(str, block), guardrail.value)))  # noqa: S311
    canaries = _shuffle(
        [_value_or_worst(exposure.value) / tolerated for exposure in values if exposure.canary],
        draw,
    )
    controls = _shuffle(
        [_value_or_worst(exposure.value) for exposure in values if not exposure.canary], draw
    )
    # Choose the roles by the arms' sizes, which are fixed before any answer.
    exchanged = len(canaries) > len(controls)
    fewer, more = (controls, canaries) if exchanged else (canaries, controls)
    wanted = scored_count(len(fewer), len(more))
    if not wanted:
        return BlockRanks((), None)
    size = min(MAX_CONTROLS, len(more) // wanted)
    ranks = (
        rank_among(value, more[index * size : (index + 1) * size], draw.random())
        for index, value in enumerate(fewer[:wanted])
    )
    return BlockRanks(
        tuple(1.0 - u if exchanged else u for u in ranks),
        mean_levels(
            (
                exposure.canary,
                exposure.value if exposure.observed is None else exposure.observed,
            )
            for exposure in values
            if not exposure.bounded
        ),
    )


def draw_pairs(
    values: Sequence[tuple[bool, float]],
    *,
    guardrail: Guardrail,
    block: tuple[str, str, int],
) -> list[tuple[float, float]]:
    """Draws pairs of a canary's and a control's value for bets on means.

    Args:
        values: arm and value, in the order of admission.
        block: see `rank_block`.

    Each exposure of the smaller arm has a pair with the mean of up to MAX_CONTROLS exposures of
    the larger arm. Each of these is used only once, so that the pairs of a block are
    independent.
    """
    draw = Random(":".join((*map(str, block), guardrail.value)))  # noqa: S311
    canaries = _shuffle([value for canary, value in values if canary], draw)
    controls = _shuffle([value for canary, value in values if not canary], draw)
    exchanged = len(canaries) > len(controls)
    fewer, more = (controls, canaries) if exchanged else (canaries, controls)
    if not fewer:
        return []
    size = min(MAX_CONTROLS, len(more) // len(fewer))
    means = [
        math.fsum(more[index * size : (index + 1) * size]) / size for index in range(len(fewer))
    ]
    pairs = zip(means, fewer, strict=True) if exchanged else zip(fewer, means, strict=True)
    return list(pairs)


def bets_block(
    values: Sequence[tuple[bool, float]],
    *,
    guardrail: Guardrail,
    margin: float,
    block: tuple[str, str, int],
) -> tuple[float, ...]:
    """Returns the values y of a bet that the canary's mean is at most the control's plus a
    margin (`evidence_paths.sums_path`).

    Args:
        values: arm and value in [0, 1] of all exposures whose outcome is known.

    See `draw_pairs`.
    """
    pairs = draw_pairs(values, guardrail=guardrail, block=block)
    return tuple(canary - control - margin for canary, control in pairs)


def _value_or_worst(value: float | None) -> float:
    return math.inf if value is None else value


def _shuffle(values: list[float], draw: Random) -> list[float]:
    keys = [draw.random() for _ in values]
    return [values[index] for index in sorted(range(len(values)), key=keys.__getitem__)]


def mean_levels(values: Iterable[tuple[bool, float | None]]) -> ArmLevels | None:
    """Returns each arm's geometric mean of values above 0; None if an arm lacks them."""
    logs: dict[bool, list[float]] = {True: [], False: []}
    for canary, value in values:
        if value and value > 0.0:
            logs[canary].append(math.log(value))
    if not (logs[True] and logs[False]):
        return None
    means = {arm: math.exp(math.fsum(log) / len(log)) for arm, log in logs.items()}
    return ArmLevels(means[True], means[False])
