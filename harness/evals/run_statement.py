"""Statements of a results file about its run, and the rules for comparing two runs.

Each importer fills one RunStatement. A field that is None means: the file does not tell.
The rules never guess: a run that says that it is partial, a score whose good end is unknown
and two runs that were asked differently are refused until the user states a reason.
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
    """The good end of a score."""

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
        """Returns a digest of 16 characters. prompts: digests of the items' prompts."""
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


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The user's answers to what the files do not tell, with a reason for each exception."""

    direction: Direction | None = None
    asked_differently: str = ""
    partial: str = ""

    @property
    def reasons(self) -> dict[str, str]:
        named = {"asked_differently": self.asked_differently, "partial": self.partial}
        return {name: reason for name, reason in named.items() if reason}


DIRECTION_FLAGS: Final = "--lower-is-better or --higher-is-better"
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+")
# Beginnings of words in names of scores whose good end is usually 0.
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
# Words that state the good end, as in `error_free` and `hallucination_detection_accuracy`.
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
    """Tells whether scores of this name usually have their good end at 0.

    The last word counts: `error_handling` is good when high, `safety_violations` when low. A
    negation turns the next word. Only a statement of the file or of the user decides the
    direction. A name can only make Swapgate ask for it.
    """
    words = [word.lower() for word in _CAMEL.split(metric) if word]
    is_lower = False
    for before, word in zip(["", *words], words, strict=False):
        if word in _LOWER_WORDS or word.startswith(_LOWER_STEMS):
            is_lower = before not in _NEGATIONS
        elif before in _NEGATIONS:
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
    shared = thresholds.pop() if len(thresholds) == 1 else None
    if len(votes) > 1:
        return MetricStatement(
            source=f"{source} contradict each other between rows", threshold=shared
        )
    if not votes:
        return None if shared is None else MetricStatement(threshold=shared)
    return MetricStatement(votes.pop(), source, threshold=shared)


def resolve_direction(
    metric: str,
    statements: Sequence[MetricStatement | None],
    chosen: Direction | None,
) -> MetricStatement:
    """Returns the metric's direction and its source, and the range if a file tells it.

    Raises InputError if statements contradict each other or the user, and if a name that
    usually means "lower is better" has no statement.
    """
    known = [statement for statement in statements if statement is not None]
    directions = {statement.direction for statement in known if statement.direction is not None}
    if len(directions) > 1:
        raise InputError(
            f"the files contradict each other: {metric} is better when higher in one, and when "
            "lower in the other; export both runs with one version of the tool"
        )
    spans = {None if one is None else one.span for one in statements}
    if len(spans) > 1:
        listed = " and ".join(sorted(map(_span_text, spans)))
        raise InputError(
            f"the scores of {metric} have other ranges: {listed}; give both files one range"
        )
    span = next(iter(spans), None)
    source = next((one.source for one in known if one.direction is not None), "")
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
    unclear = next((one.source for one in known if one.source), "")
    if unclear or is_usually_lower(metric):
        reason = unclear or "the file does not tell the direction, and such a name is often"
        end = "" if unclear else " better when low"
        raise InputError(f"{metric}: {reason}{end}; say {DIRECTION_FLAGS}")
    usual = "the usual direction; the file does not tell"
    return MetricStatement(Direction.HIGHER, usual, span)


def _span_text(span: tuple[float, float] | None) -> str:
    return "one that the file does not tell" if span is None else f"{span[0]:g} to {span[1]:g}"


def setting_differences(
    ours: Mapping[str, str],
    theirs: Mapping[str, str],
) -> Iterator[str]:
    """Yields each setting that differs, with both values, by name; `–` for an absent one."""
    for name in sorted({*ours, *theirs}):
        pair = ours.get(name, "–"), theirs.get(name, "–")
        if pair[0] != pair[1]:
            yield f"{name}: {pair[0][:80]} against {pair[1][:80]}"


def check_completion(
    sides: Mapping[str, RunStatement],
    accepted: str,
) -> list[str]:
    """Returns remarks on partial runs. Raises InputError unless the user accepts them."""
    known = {side: one.completion for side, one in sides.items() if one.completion is not None}
    reasons = {side: one.partial for side, one in known.items() if one.partial}
    limits = {one.limit for one in known.values()}
    if len(known) == len(sides) and len(limits) > 1:
        for side, one in known.items():
            if one.limit and side not in reasons:
                reasons[side] = f"a limit ended it: {one.limit}; the other run had another"
    if reasons and not accepted:
        listed = "; ".join(f"{side}: {reason}" for side, reason in reasons.items())
        raise InputError(
            f"a run is partial ({listed}): finish it in your tool, or give --partial WHY, "
            "which counts their missing items as unknown"
        )
    remarks = [f"{side} is partial: {reason}" for side, reason in reasons.items()]
    if len(limits) == 1 and len(known) == len(sides) and (limit := limits.pop()):
        remarks.append(f"both runs measured a part of the data (limit {limit})")
    return remarks
