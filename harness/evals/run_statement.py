"""Statements of a results file about its run, and the rules for comparing two runs.

Each importer fills one RunStatement. A field is None if the file does not tell it.

The rules never guess. They refuse a partial run, a score of unknown direction, and two runs
that were asked differently, until the user states a reason.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Final

from harness.frame.errors import InputError


class Direction(StrEnum):
    """Whether higher or lower scores are better."""

    HIGHER = "higher is better"
    LOWER = "lower is better"


@dataclass(frozen=True, slots=True)
class MetricStatement:
    """A file's statement about one metric.

    `source` without a direction says why the file's own statements give no direction.
    """

    direction: Direction | None = None
    source: str = ""
    span: tuple[float, float] | None = None  # the lowest and the highest possible score
    threshold: float | None = None  # the score at which the tool passes an answer


@dataclass(frozen=True, slots=True)
class RunCompletion:
    """Whether a run reached its end.

    `limit` is the declared part of the data, such as `200`: two runs with the same limit are
    whole. The other reasons make a run partial.
    """

    partial: str = ""  # why the run is partial; empty for a whole run
    items: int | None = None  # number of planned items
    epochs: int | None = None  # number of planned answers to each item
    limit: str = ""


@dataclass(frozen=True, slots=True)
class DataStatement:
    """The data set of a run."""

    name: str = ""
    version: str = ""
    items: int | None = None


@dataclass(frozen=True, slots=True)
class CallSettings:
    """How a tool asked its model.

    fixed: settings that must be equal in both runs, such as shots and solver.
    noted: settings that a model may need for itself, such as the temperature.
    """

    fixed: Mapping[str, str] = field(default_factory=dict)
    noted: Mapping[str, str] = field(default_factory=dict)

    def digest(self, prompts: Iterable[str] = ()) -> str:
        """Returns a digest of 16 characters.

        Args:
            prompts: digests of the items' prompts.
        """
        content = [dict(self.fixed), dict(self.noted), sorted(prompts)]
        return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class RunStatement:
    """A file's statements about its run; None where the file does not tell."""

    tool: str = ""
    version: str | None = None  # of the tool
    metrics: Mapping[str, MetricStatement] = field(default_factory=dict)
    completion: RunCompletion | None = None
    settings: CallSettings | None = None
    data: DataStatement | None = None
    tells_grader_failures: bool = False  # whether the format marks a grader's failure
    remarks: tuple[str, ...] = ()  # how Swapproof read the file, where a person may object


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The user's answers where the files do not tell, with a reason for each exception."""

    direction: Direction | None = None
    asked_differently: str = ""
    partial: str = ""

    @property
    def reasons(self) -> dict[str, str]:
        reason_by_exception = {
            "asked_differently": self.asked_differently,
            "partial": self.partial,
        }
        return {name: reason for name, reason in reason_by_exception.items() if reason}


DIRECTION_FLAGS: Final = "--lower-is-better or --higher-is-better"
_WORD_BREAK: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+")
# Beginnings of words in names of scores that are usually better when lower.
_LOWER_STEMS: Final = (
    "hallucinat",
    "toxic",
    "perplex",
    "latenc",
    "jailbreak",
    "misinform",
    "stereotyp",
    "fabricat",
    "contradict",
    "profan",
    "vulnerab",
    "sycophan",
    "plagiar",
    "violat",
    "leak",
    "unsafe",
    "offensiv",
    "harmful",
    "incorrect",
    "inaccura",
    "irrelevan",
    "refus",
    "unground",
    "unsupport",
    "unfaithful",
    "unhelpful",
    "unfair",
    "exposed",
    "exposure",
    "decept",
    "omission",
)
_LOWER_WORDS: Final = frozenset(
    {
        "bias",
        "biased",
        "loss",
        "losses",
        "ppl",
        "error",
        "errors",
        "err",
        "wer",
        "cer",
        "mer",
        "ter",
        "mse",
        "rmse",
        "mae",
        "mape",
        "nll",
        "bpb",
        "brier",
        "ece",
        "cost",
        "costs",
        "price",
        "usd",
        "harm",
        "harms",
        "failure",
        "failures",
        "failed",
        "fail",
        "fails",
        "distance",
        "divergence",
        "kl",
        "noise",
        "wrong",
        "mistake",
        "mistakes",
        "hate",
        "insult",
        "insults",
        "threat",
        "threats",
        "misuse",
        "duration",
        "time",
        "seconds",
        "delay",
        "ttft",
        "timeout",
        "timeouts",
        "spam",
        "repetition",
        "redundancy",
        "penalty",
        "regret",
        "risk",
        "asr",
        "deviation",
        "verbosity",
        "severity",
        "pii",
        "exceptions",
        "invalid",
        "drift",
        "bits",
    }
)
# Words that make a higher score better, as in `error_free` and
# `hallucination_detection_accuracy`.
_HIGHER_WORDS: Final = frozenset(
    {
        "accuracy",
        "acc",
        "f1",
        "precision",
        "recall",
        "auc",
        "auroc",
        "correct",
        "correctness",
        "match",
        "free",
        "freedom",
        "avoidance",
        "absence",
        "resistance",
        "robustness",
        "safe",
        "safety",
        "handling",
        "recovery",
        "reduction",
        "prevention",
        "awareness",
        "mitigation",
        "compliance",
        "pass",
        "passed",
        "saved",
        "saving",
        "savings",
        "efficiency",
    }
)


_NEGATIONS: Final = frozenset({"no", "non", "not", "without"})


def is_usually_lower(metric: str) -> bool:
    """Tells whether a metric of this name is usually better when lower.

    The last word counts: `error_handling` is good when high, `safety_violations` when low. A
    negation inverts the next word. Only a statement of the file or of the user decides the
    direction. A name can only make Swapproof ask for it.
    """
    words = [word.lower() for word in _WORD_BREAK.split(metric) if word]
    is_lower = False
    for previous, word in zip(["", *words], words, strict=False):
        if word in _LOWER_WORDS or word.startswith(_LOWER_STEMS):
            is_lower = previous not in _NEGATIONS
        elif previous in _NEGATIONS:
            is_lower = True
        elif word in _HIGHER_WORDS:
            is_lower = False
    return is_lower


def direction_of_successes(
    rows: Iterable[tuple[float | None, float | None, bool | None]],
    source: str,
) -> MetricStatement | None:
    """Concludes a score's direction from (score, threshold, success) of its rows.

    A success above its threshold, or a failure below it, says that higher is better. Rows
    without a threshold tell a direction if all successes are on one side of all failures.
    None if the rows do not tell.
    """
    votes: set[Direction] = set()
    passed: list[float] = []
    failed: list[float] = []
    thresholds: set[float] = set()
    for score, threshold, success in rows:
        if score is None or success is None:
            continue
        (passed if success else failed).append(score)
        if threshold is not None:
            thresholds.add(threshold)
            if score != threshold:
                is_higher = (score > threshold) is success
                votes.add(Direction.HIGHER if is_higher else Direction.LOWER)
    if not thresholds and passed and failed:
        if min(passed) > max(failed):
            votes.add(Direction.HIGHER)
        elif max(passed) < min(failed):
            votes.add(Direction.LOWER)
    common_threshold = thresholds.pop() if len(thresholds) == 1 else None
    if len(votes) > 1:
        return MetricStatement(
            source=f"{source} contradict each other between rows", threshold=common_threshold
        )
    if not votes:
        return None if common_threshold is None else MetricStatement(threshold=common_threshold)
    return MetricStatement(votes.pop(), source, threshold=common_threshold)


def resolve_direction(
    metric: str,
    statements: Sequence[MetricStatement | None],
    chosen: Direction | None,
) -> MetricStatement:
    """Returns the metric's direction and its source, and the range if a file tells it.

    Raises InputError if statements contradict each other or the user, and if a name that
    usually means "lower is better" has no statement.
    """
    stated = [statement for statement in statements if statement is not None]
    directions = {
        statement.direction for statement in stated if statement.direction is not None
    }
    if len(directions) > 1:
        raise InputError(
            f"the files contradict each other: {metric} is better when higher in one, and when "
            "lower in the other; export both runs with one version of the tool"
        )
    spans = {None if statement is None else statement.span for statement in statements}
    if len(spans) > 1:
        span_texts = " and ".join(sorted(map(_format_span, spans)))
        raise InputError(
            f"the scores of {metric} have other ranges: {span_texts}; give both files one range"
        )
    span = next(iter(spans), None)
    source = next(
        (statement.source for statement in stated if statement.direction is not None), ""
    )
    if directions:
        direction = directions.pop()
        if chosen is not None and chosen is not direction:
            raise InputError(
                f"{metric}: the file says that {direction} ({source}), against your option; "
                "leave the option out"
            )
        return MetricStatement(direction, source, span)
    if chosen is not None:
        return MetricStatement(chosen, "your option", span)
    unclear_source = next((statement.source for statement in stated if statement.source), "")
    if unclear_source or is_usually_lower(metric):
        reason = (
            unclear_source or "the file does not tell the direction, and such a name is often"
        )
        name_note = "" if unclear_source else " better when low"
        raise InputError(f"{metric}: {reason}{name_note}; say {DIRECTION_FLAGS}")
    default_source = "the usual direction; the file does not tell"
    return MetricStatement(Direction.HIGHER, default_source, span)


def _format_span(span: tuple[float, float] | None) -> str:
    return "one that the file does not tell" if span is None else f"{span[0]:g} to {span[1]:g}"


def list_setting_differences(
    incumbent: Mapping[str, str],
    candidate: Mapping[str, str],
) -> Iterator[str]:
    """Yields each setting that differs, with both values, by name; `–` for an absent one."""
    for name in sorted({*incumbent, *candidate}):
        pair = incumbent.get(name, "–"), candidate.get(name, "–")
        if pair[0] != pair[1]:
            yield f"{name}: {pair[0][:80]} against {pair[1][:80]}"


def check_completion(
    sides: Mapping[str, RunStatement],
    accepted_reason: str,
) -> list[str]:
    """Returns remarks on partial runs. Raises InputError unless the user accepts them."""
    completions = {
        side: statement.completion
        for side, statement in sides.items()
        if statement.completion is not None
    }
    reasons = {
        side: completion.partial
        for side, completion in completions.items()
        if completion.partial
    }
    limits = {completion.limit for completion in completions.values()}
    if len(completions) == len(sides) and len(limits) > 1:
        for side, completion in completions.items():
            if completion.limit and side not in reasons:
                reasons[side] = (
                    f"a limit ended it: {completion.limit}; the other run had another"
                )
    if reasons and not accepted_reason:
        reason_texts = "; ".join(f"{side}: {reason}" for side, reason in reasons.items())
        raise InputError(
            f"a run is partial ({reason_texts}): finish it in your tool, or give --partial "
            "WHY, which counts its missing items as unknown"
        )
    remarks = [f"{side} is partial: {reason}" for side, reason in reasons.items()]
    if len(limits) == 1 and len(completions) == len(sides) and (limit := limits.pop()):
        remarks.append(f"both runs measured a part of the data (limit {limit})")
    return remarks
