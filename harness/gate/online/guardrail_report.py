"""Sums up one guardrail's counts in a rollout, as figures and as a sentence.

The sums explain the evidence and are not part of it: `harness.gate.online.evidence_paths`
computes the evidence from the blocks. Rows for tables are in `harness.gate.guardrail_rows`.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import reduce
from typing import Final

from harness.frame.failures import describe_failures
from harness.frame.formatting import (
    format_answer_price,
    format_number,
    format_percent,
    format_price_pair,
    format_span,
)
from harness.gate.online.capped_sums import CappedTotals
from harness.gate.online.evidence_paths import block_tally
from harness.gate.online.guardrails import (
    ArmLevels,
    ErrorTally,
    FailureTally,
    FeedbackTally,
    Guardrail,
    GuardrailKind,
    JudgeTally,
    guardrail_kind,
)
from harness.gate.online.late_outcomes import WindowRequests, compare_requests
from harness.gate.online.observation import ObservationBlock
from harness.gate.online.one_key import CALLER_DECIDED, sole_key
from harness.gate.online.outcome import READINGS, Reading, split_key
from harness.gate.online.prompt_cache import CacheLevels
from harness.gate.online.segment_harm import SegmentHarm
from harness.gate.online.usual_rate import MIN_DAYS, MIN_FAILURES, USUAL_WINDOW_S

# Figures of a guardrail's evidence that the JSON contains without conversion.
_PLAIN_FIELDS = (
    "tolerated",
    "weight",
    "log_e",
    "log_e_max",
    "distance_to_trip",
    "canary",
    "control",
    "canary_failures",
    "control_failures",
    "canary_level",
    "control_level",
)
GUARDRAIL_NAMES: Final[Mapping[Guardrail, str]] = {
    Guardrail.ERRORS: "Errors",
    Guardrail.LATENCY: "Time for an answer",
    Guardrail.TIME_TO_FIRST_TOKEN: "Time to first token",
    Guardrail.INTER_TOKEN_LATENCY: "Time between tokens",
    Guardrail.OUTPUT_TOKENS: "Output tokens",
    Guardrail.TRUNCATION: "Cut off at the token limit",
    Guardrail.REFUSALS: "Refusals",
    Guardrail.JSON_VALIDITY: "Invalid JSON",
    Guardrail.TOOL_VALIDITY: "Wrong tool calls",
    Guardrail.COST_PER_SUCCESS: "Cost per answer",
    Guardrail.FEEDBACK: "Disliked by callers",
    Guardrail.JUDGE: "Found bad by the judge",
    Guardrail.LEAVING: "Callers who left after a long wait",
    Guardrail.LIMITS: "Limited by the provider",
    Guardrail.REPEATS: "One text for unlike questions",
    Guardrail.CALLER_ERRORS: "Callers with an error in their window",
}
# What the usual rate of each stream of errors counts. Windows of another length have no usual
# rate.
_USUAL_FAILURES: Final = {
    Guardrail.ERRORS: "failed first requests",
    Guardrail.CALLER_ERRORS: f"failed windows of {format_span(USUAL_WINDOW_S)}",
}
# The canary's fault if a guardrail of counts trips.
_COUNT_FAULTS = {
    Guardrail.ERRORS: "fails more often than the incumbent",
    Guardrail.TRUNCATION: "breaks off at its token limit more often than the incumbent",
    Guardrail.REFUSALS: "refuses more often than the incumbent",
    Guardrail.JSON_VALIDITY: "gives invalid JSON more often than the incumbent",
    Guardrail.TOOL_VALIDITY: "calls tools wrongly more often than the incumbent",
    Guardrail.FEEDBACK: "is disliked by callers more often than the incumbent",
    Guardrail.JUDGE: "is found bad by the judge more often than the incumbent",
    Guardrail.LEAVING: "keeps callers waiting until they leave more often than the incumbent",
    Guardrail.LIMITS: "is limited by its provider more often than the incumbent",
    Guardrail.REPEATS: "answers unlike questions with one text more often than the incumbent",
    Guardrail.CALLER_ERRORS: "fails more of its callers than the incumbent, first and later "
    "requests together",
}


def _seconds_pair(canary: float, control: float) -> str:
    return f"{format_number(canary)} s against {format_number(control)} s"


def _number_pair(canary: float, control: float) -> str:
    return f"{format_number(canary)} against {format_number(control)}"


# The canary's fault if a guardrail of values trips ({}: the ratio), and the function that
# writes both values.
_VALUE_FAULTS = {
    Guardrail.LATENCY: (
        "takes {} as long as the incumbent for an answer",
        _seconds_pair,
    ),
    Guardrail.TIME_TO_FIRST_TOKEN: (
        "takes {} as long as the incumbent to begin its answer",
        _seconds_pair,
    ),
    Guardrail.INTER_TOKEN_LATENCY: (
        "takes {} as long as the incumbent between pieces of its answer",
        _seconds_pair,
    ),
    Guardrail.OUTPUT_TOKENS: (
        "answers with {} as many tokens as the incumbent",
        _number_pair,
    ),
    Guardrail.COST_PER_SUCCESS: (
        "costs {} as much as the incumbent for an answer",
        format_price_pair,
    ),
}


@dataclass(frozen=True, slots=True)
class JudgeTotals:
    """Failures without a judge's verdict, by arm, and the judge's cost so far."""

    canary_unjudged: int = 0
    control_unjudged: int = 0
    cost_usd: float = 0.0

    def as_json(self) -> dict[str, object]:
        unjudged = {
            "canary": self.canary_unjudged,
            "control": self.control_unjudged,
        }
        return {"no_verdict": unjudged, "cost_usd": self.cost_usd}


@dataclass(frozen=True, slots=True)
class OpinionTotals:
    """Counts each arm's exposures with a caller's opinion, good or bad."""

    canary: int
    control: int

    def as_json(self) -> dict[str, object]:
        return {"canary": self.canary, "control": self.control}


@dataclass(frozen=True, slots=True)
class GuardrailTotals:
    """Holds one guardrail's sums over blocks."""

    canary: int  # exposures or ranked values
    # control: exposures of the comparison arm. level: share of failed exposures, or the
    # geometric mean of values; None without exposures. classes: errors by class, if the blocks
    # contain classes; they explain the evidence, but are not part of it.
    control: int
    canary_failures: int
    control_failures: int
    canary_level: float | None
    control_level: float | None
    canary_classes: Mapping[str, int] = field(default_factory=dict)
    control_classes: Mapping[str, int] = field(default_factory=dict)
    judging: JudgeTotals | None = None  # only for the judge
    opinions: OpinionTotals | None = None  # only for feedback; None if a block has no count
    cache: CacheLevels | None = None  # None if the prompt cache read no input
    # Exposures whose value is a lower bound, so that the levels leave them out.
    canary_bounds: int = 0
    control_bounds: int = 0
    # The client key of all exposures, for guardrails that callers decide; empty for several
    # keys.
    sole_key: str = ""
    requests: WindowRequests | None = None  # only for callers' windows
    # Only for errors: the usual rate of the newest block, 0 if it has none.
    usual_rate: float = 0.0
    # Only for values with a cap: the exposures of the bets on the capped mean.
    capped: CappedTotals | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardrailEvidence(GuardrailTotals):
    """Holds the evidence of one guardrail of one rollout."""

    guardrail: Guardrail
    tolerated: float
    weight: float
    log_e: float  # log_e, log_e_max: in the current period
    log_e_max: float
    distance_to_trip: float  # share of the rollback level for this guardrail alone; 1 trips
    # The segment of the errors that rolled the canary back; None without a clear one.
    segment: SegmentHarm | None = None

    @property
    def ratio(self) -> float | None:
        """Divides the canary's level by the incumbent's, at an equal share of cached tokens;
        None if a level is missing, or the incumbent's is 0.
        """
        if self.canary_level is None or not self.control_level:
            return None
        if self.cache is not None:
            return self.cache.ratio
        return self.canary_level / self.control_level

    @property
    def is_cold(self) -> bool:
        """Tells whether only the canary's colder cache puts it beyond its limit."""
        if self.cache is None or self.canary_level is None or not self.control_level:
            return False
        observed = self.canary_level / self.control_level
        return self.cache.is_colder and observed > self.tolerated >= self.cache.ratio

    @property
    def cache_text(self) -> str:
        """Describes the part of a difference that the cold cache explains; empty without a
        cache or a level.
        """
        if self.cache is None or self.canary_level is None or not self.control_level:
            return ""
        pair = _VALUE_FAULTS[self.guardrail][1](self.canary_level, self.control_level)
        return self.cache.describe(self.canary_level / self.control_level, pair)

    @property
    def bounds_text(self) -> str:
        """Describes how many values are lower bounds; empty without such values."""
        if not (self.canary_bounds or self.control_bounds):
            return ""
        return (
            f"lower bounds, which the mean leaves out: candidate {self.canary_bounds:,}, "
            f"incumbent {self.control_bounds:,} (stopped, or without the provider's count)"
        )

    @property
    def text(self) -> str:
        """Writes a predicate of the canary, without the subject and the full stop."""
        if guardrail_kind(self.guardrail) is not GuardrailKind.RANKS:
            return (
                f"{_COUNT_FAULTS[self.guardrail]}: {self.canary_failures:,} of {self.canary:,}"
                f"{_in_brackets(self.canary_classes)} against {self.control_failures:,} of "
                f"{self.control:,}{_in_brackets(self.control_classes)}{self._unlike_requests}"
            )
        what, write_pair = _VALUE_FAULTS[self.guardrail]
        if self.is_harm_of_sums:
            return f"{what.format(self._sums_ratio_text)}, as a {self.sums_text}"
        if self.ratio is None or self.canary_level is None or self.control_level is None:
            return what.format("more than once") + ", or fails"
        cache = self.cache
        levels = write_pair(
            self.canary_level if cache is None else cache.canary,
            self.control_level if cache is None else cache.control,
        )
        if cache is not None:
            levels += f" {cache.basis} ({self.cache_text})"
        if self.ratio <= 1.0:
            # Levels exclude failed requests, which rank above all values.
            behaviour = what.format("more than once")
            return f"{behaviour}, failed requests included; without them {levels}"
        return f"{what.format(f'{format_number(self.ratio, 2)} ×')}: {levels}"

    @property
    def _unlike_requests(self) -> str:
        """Names a difference of the requests per caller beyond chance; else empty."""
        if self.requests is None or not self.requests.is_beyond_chance:
            return ""
        return f" ({self.requests.text})"

    @property
    def is_harm_of_sums(self) -> bool:
        """Tells whether the capped mean is beyond the limit, and the geometric mean is not."""
        ratio = None if self.capped is None else self.capped.ratio
        return ratio is not None and ratio > self.tolerated >= (self.ratio or 0.0)

    @property
    def _sums_ratio_text(self) -> str:
        ratio = 0.0 if self.capped is None else self.capped.ratio or 0.0
        return f"{format_number(ratio, 2)} ×"

    @property
    def sums_text(self) -> str:
        """Describes the capped means, and the part of the values above the cap; empty without
        exposures.

        A failed request counts with the incumbent's usual mean. An incumbent's value that is a
        lower bound counts with the cap.
        """
        totals = self.capped
        if totals is None or totals.means is None:
            return ""
        write_pair = _VALUE_FAULTS[self.guardrail][1]
        cap = _cap_text(self.guardrail, totals.cap)
        text = (
            f"mean of values up to {cap}, with failed requests as usual ones: "
            f"{write_pair(*totals.means)}"
        )
        shares = [totals.share_above(canary=canary) for canary in (True, False)]
        if not any(shares):
            return text
        candidate, incumbent = (format_percent(share, significant=2) for share in shares)
        return (
            f"{text}; above it, and left out: {candidate} of the candidate's sum, {incumbent} "
            "of the incumbent's"
        )

    @property
    def usual_text(self) -> str:
        """Describes whether the evidence of errors also uses the incumbent's usual rate; empty
        for other guardrails.
        """
        failures = _USUAL_FAILURES.get(self.guardrail)
        if failures is None:
            return ""
        if not self.usual_rate:
            return (
                "compared at the same time only: the incumbent's usual rate needs "
                f"{MIN_DAYS} days and {MIN_FAILURES} {failures} before the canary"
            )
        percent = format_percent(self.usual_rate, significant=2)
        return (
            "compared at the same time, and with the incumbent's usual rate of at most "
            f"{percent}: the lesser evidence counts"
        )

    def as_json(self) -> dict[str, object]:
        """Writes the evidence as JSON without NaN and infinity."""
        known = self.canary_classes or self.control_classes
        classes = {
            "canary": self.canary_classes,
            "control": self.control_classes,
        }
        bounds = {
            "canary": self.canary_bounds,
            "control": self.control_bounds,
        }
        return {
            **({"classes": classes} if known else {}),
            **({"judging": self.judging.as_json()} if self.judging else {}),
            **({"opinions": self.opinions.as_json()} if self.opinions else {}),
            **({"segment": self.segment.as_json()} if self.segment else {}),
            **({"bounds": bounds} if any(bounds.values()) else {}),
            **({"sole_key": self.sole_key} if self.sole_key else {}),
            **({"requests": asdict(self.requests)} if self.requests else {}),
            **({"usual_rate": self.usual_rate} if self.usual_rate else {}),
            **({"capped": self.capped._asdict()} if self.capped else {}),
            **(
                {"cache": asdict(self.cache), "cache_words": self.cache_text}
                if self.cache
                else {}
            ),
            **{name: getattr(self, name) for name in _PLAIN_FIELDS},
            "ratio": self.ratio,
            "words": self.text,
        }


def guardrail_totals(
    blocks: Sequence[ObservationBlock], guardrail: Guardrail
) -> GuardrailTotals:
    """Sums up one guardrail over these blocks: counts, values, or limited requests.

    Levels are shares of failed exposures for counts, and geometric means for values. A level is
    None without exposures, because a rate of 0 would look measured.
    """
    kind = guardrail_kind(guardrail)
    if kind is GuardrailKind.RANKS:
        return _sum_values(blocks, guardrail)
    if kind is GuardrailKind.SUMS:
        tallies = [_tally_limits(block) for block in blocks]
    else:
        tallies = [tally for block in blocks if (tally := block_tally(block, guardrail))]
    canary = sum(t.canary for t in tallies)
    exposures = sum(t.units for t in tallies)
    failed = sum(t.canary_failures for t in tallies)
    failures = sum(t.failures for t in tallies)
    control = exposures - canary
    return GuardrailTotals(
        canary,
        control,
        failed,
        failures - failed,
        failed / canary if canary else None,
        (failures - failed) / control if control else None,
        *(_count_classes(blocks) if guardrail is Guardrail.ERRORS else ({}, {})),
        _sum_judging(tallies) if guardrail is Guardrail.JUDGE else None,
        _sum_opinions(tallies) if guardrail is Guardrail.FEEDBACK else None,
        sole_key=sole_key(blocks, guardrail) if guardrail in CALLER_DECIDED else "",
        requests=compare_requests(blocks) if guardrail is Guardrail.CALLER_ERRORS else None,
        usual_rate=blocks[-1].usual_rates.get(guardrail, 0.0) if blocks else 0.0,
    )


def _tally_limits(block: ObservationBlock) -> FailureTally:
    """Counts a block's requests that reached the provider, and the limited ones."""
    readings = READINGS[Guardrail.LIMITS]
    exposures = canary = failures = canary_failures = 0
    for key, split in block.outcomes.items():
        reading = readings[split_key(key)[0]]
        if reading is not Reading.UNKNOWN:
            exposures = exposures + split.failures
            canary = canary + split.canary
        if reading is Reading.BAD:
            failures += split.failures
            canary_failures += split.canary
    return FailureTally(exposures, canary, failures, canary_failures)


def _count_classes(
    blocks: Sequence[ObservationBlock],
) -> tuple[Mapping[str, int], Mapping[str, int]]:
    """Counts the canary's and the incumbent's errors by class."""
    canary = Counter[str]()
    control = Counter[str]()
    for block in blocks:
        tally = block.counts.get(Guardrail.ERRORS)
        if isinstance(tally, ErrorTally):
            for name, split in tally.classes.items():
                canary[name] += split.canary
                control[name] += split.failures - split.canary
    return dict(+canary), dict(+control)


def _sum_judging(tallies: Sequence[FailureTally]) -> JudgeTotals:
    judge_tallies = [tally for tally in tallies if isinstance(tally, JudgeTally)]
    canary = sum(tally.no_verdict.canary for tally in judge_tallies)
    unjudged = sum(tally.no_verdict.failures for tally in judge_tallies)
    return JudgeTotals(
        canary,
        unjudged - canary,
        math.fsum(tally.cost_usd for tally in judge_tallies),
    )


def _sum_opinions(tallies: Sequence[FailureTally]) -> OpinionTotals | None:
    """Sums up feedback; None if an old block has no opinion count."""
    opinions = [tally.opinions for tally in tallies if isinstance(tally, FeedbackTally)]
    if not opinions or len(opinions) < len(tallies):
        return None
    canary = sum(split.canary for split in opinions)
    return OpinionTotals(canary, sum(split.failures for split in opinions) - canary)


def _in_brackets(classes: Mapping[str, int]) -> str:
    return f" ({describe_failures(classes)})" if classes else ""


def _sum_values(blocks: Sequence[ObservationBlock], guardrail: Guardrail) -> GuardrailTotals:
    """Weights the levels of a block by its number of ranked values."""
    measured = [
        (len(block.ranks[guardrail]), level)
        for block in blocks
        if guardrail in block.ranks and (level := block.levels.get(guardrail))
    ]
    canary = sum(len(block.ranks.get(guardrail, ())) for block in blocks)
    control = sum(
        block.units - block.canary_units for block in blocks if block.ranks.get(guardrail)
    )
    means: tuple[float | None, float | None] = (None, None)
    cache: CacheLevels | None = None
    if any(n for n, _ in measured):
        means = _weighted_means([(n, level.canary, level.control) for n, level in measured])
        cache = _average_cache(measured)
    bounded = [block.bounds[guardrail] for block in blocks if guardrail in block.bounds]
    of_canary = sum(split.canary for split in bounded)
    return GuardrailTotals(
        canary,
        control,
        0,
        0,
        *means,
        cache=cache,
        canary_bounds=of_canary,
        control_bounds=sum(split.failures for split in bounded) - of_canary,
        capped=_sum_capped(blocks, guardrail),
    )


def _cap_text(guardrail: Guardrail, cap: float) -> str:
    if guardrail is Guardrail.COST_PER_SUCCESS:
        return format_answer_price(cap)
    return f"{format_number(cap)} {'tokens' if guardrail is Guardrail.OUTPUT_TOKENS else 's'}"


def _sum_capped(
    blocks: Sequence[ObservationBlock], guardrail: Guardrail
) -> CappedTotals | None:
    """Adds up the exposures of bets on a capped mean; None if the rollout has no cap for it."""
    found = [block.capped[guardrail] for block in blocks if guardrail in block.capped]
    return reduce(CappedTotals.plus, found) if found else None


def _weighted_means(levels: Sequence[tuple[int, float, float]]) -> tuple[float, float]:
    total = sum(n for n, _, _ in levels)
    log_canary = math.fsum(n * math.log(canary) for n, canary, _ in levels) / total
    log_control = math.fsum(n * math.log(control) for n, _, control in levels) / total
    return math.exp(log_canary), math.exp(log_control)


def _average_cache(measured: Sequence[tuple[int, ArmLevels]]) -> CacheLevels | None:
    """Averages the cache levels; None if no block has any."""
    if not any(level.cache for _, level in measured):
        return None
    known = [
        (
            n,
            level.cache or CacheLevels(0.0, 0.0, level.canary, level.control),
        )
        for n, level in measured
    ]
    means = _weighted_means([(n, cache.canary, cache.control) for n, cache in known])
    return CacheLevels.averaged(known, *means)
