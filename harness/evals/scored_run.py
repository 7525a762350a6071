"""Scores of one model from another tool's export, and the pairs of two such runs. Failed and
unscored samples count. These pairs give no verdict.

Nothing here knows a file format: `harness.evals.export_formats` and
`harness.evals.table_formats` do. `harness.evals.run_pairs` pairs two runs.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from harness.evals.run_statement import (
    Direction,
    RunStatement,
)
from harness.frame.canonical_text import canonical_value, single_spaced
from harness.frame.errors import InputError
from harness.frame.text_files import text_lines

# Cosines and means of floats leave the range by a few units of the last digit.
_ROUNDING: Final = 1e-9


@dataclass(frozen=True, slots=True)
class ScoredSample:
    """One answer. Samples with equal questions are repeats of one item, whatever their ids."""

    id: str  # the tool's id of the item
    scores: Mapping[str, float | None]  # by metric; None if not scored
    failed: bool = False  # the model or the tool gave an error instead of an answer
    question: str = ""  # key of question and expected answer; empty if the file has none
    revision: str = ""  # the tool's own hash of the item
    # Metric → value that is not a score.
    unread: Mapping[str, str] = field(default_factory=dict)
    cached: bool = False  # from a cache, without a call of the model
    usd: float | None = None  # cost and time of the answer, if the tool measured them
    latency_ms: float | None = None
    ungraded: frozenset[str] = frozenset()  # metrics whose grader failed
    doubtful: bool = False  # its reason reads like a grader's error, but the tool marked none
    invalidated: bool = False  # a person withdrew the answer
    prompt: str = ""  # digest of the whole text that the model got, if the file has it
    plain_prompt: str = ""  # the same without the marks of a chat template

    def score(self, metric: str) -> float | None:
        """Returns the sample's score of a metric.

        A sample has no score if it failed, if a person withdrew it, or if its grader failed.
        The file may have a number even then. A score beyond 0 or 1 by a rounding error is 0 or
        1.
        """
        if self.failed or self.invalidated or metric in self.ungraded:
            return None
        score = self.scores.get(metric)
        if score is None or 0.0 <= score <= 1.0:
            return score
        nearest = 0.0 if score < 0.0 else 1.0
        return nearest if abs(score - nearest) < _ROUNDING else score


@dataclass(frozen=True, slots=True)
class ScoredRun:
    """The results of one model, in the file's order; an item may have several samples."""

    model: str  # the model's name, or another name of the run in the file
    samples: Sequence[ScoredSample]
    metrics: tuple[str, ...] = field(default=())
    # Settings that must be equal in both runs, such as `task version` → `2`; a scorer's
    # settings by its name.
    terms: Mapping[str, str] = field(default_factory=dict)
    prompt: str = ""  # the template, if the file contains it
    statement: RunStatement = field(default_factory=RunStatement)

    @classmethod
    def from_samples(
        cls,
        model: str,
        samples: Sequence[ScoredSample],
        terms: Mapping[str, str] | None = None,
        prompt: str = "",
        statement: RunStatement | None = None,
    ) -> "ScoredRun":
        """Builds a run with the metrics of all its samples, in the order of their first use."""
        metrics = dict.fromkeys(metric for sample in samples for metric in sample.scores)
        stated = statement or RunStatement()
        return cls(model, tuple(samples), tuple(metrics), terms or {}, prompt, stated)


def _decode(text: str) -> Any:
    """Decodes JSON, with all its texts in NFC. Raises ValueError, and RecursionError."""
    value = json.loads(text)
    return value if text.isascii() and "\\u" not in text else canonical_value(value)


def parse_json(text: str) -> object:
    """Parses JSON. Raises InputError, with the line of a syntax error."""
    try:
        value: object = _decode(text)
    except json.JSONDecodeError as error:
        raise InputError(f"line {error.lineno}: not JSON: {error.msg}") from None
    except RecursionError:
        raise InputError("is nested too deep") from None
    except ValueError:
        raise InputError("contains a number with too many digits") from None
    return value


def parse_json_lines(text: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Yields (line, object) of JSON lines. Raises InputError for any other line."""
    for number, line in text_lines(text):
        try:
            value = _decode(line)
        except (ValueError, RecursionError):
            raise InputError(f"line {number}: not a JSON object") from None
        if not isinstance(value, dict):
            raise InputError(f"line {number}: not a JSON object")
        yield number, value


def parse_json_rows(text: str, *names: str) -> list[Mapping[str, object]]:
    """Parses rows in a list, in a list under one of `names`, or one row in each line.

    Raises InputError for anything else.
    """
    head = text.lstrip()[:1]
    value: object = None
    if head in {"[", "{"}:
        try:
            value = _decode(text)
        except (ValueError, RecursionError):
            value = None
    if isinstance(value, dict):
        value = next((value[name] for name in names if name in value), [value])
    if value is None:
        return [row for _, row in parse_json_lines(text)]
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise InputError("has no list of rows")
    return value


def as_mapping(value: object) -> Mapping[str, object]:
    """Returns a mapping as it is, and an empty one for any other value."""
    return value if isinstance(value, Mapping) else {}


def numeric_score(value: object) -> float | None:
    """Returns a number, or true and false as 1 and 0; None for any other value."""
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, int | float) and value == value and abs(value) < 1e300:  # noqa: PLR0124
        return float(value)
    return None


def numeric_scores(values: Mapping[str, object]) -> dict[str, float | None]:
    """Returns the numbers among named values; null marks a missing score."""
    return {
        str(name): numeric_score(value)
        for name, value in values.items()
        if value is None or numeric_score(value) is not None
    }


def read_scores(
    values: Mapping[str, object],
    read: Callable[[object], float | None] = numeric_score,
) -> tuple[dict[str, float | None], dict[str, str]]:
    """Returns the scores by name, and the values that cannot be read as scores.

    Args:
        read: turns a value into a score, None if it cannot.

    Null, an empty text and NaN are missing scores, so they are not reported as unreadable.
    """
    scores = {str(name): read(value) for name, value in values.items()}
    unread = {
        str(name): str(value)
        for name, value in values.items()
        if value not in (None, "") and scores[str(name)] is None and value == value  # noqa: PLR0124
    }
    return scores, unread


def single_value(
    values: Mapping[str, object],
    name: str,
    value: object,
) -> object:
    """Returns a score's value, or an unreadable text if its name has another value already.

    Swapproof cannot know which of two values with one name is right.
    """
    if name in values and values[name] != value:
        return f"two scores of one name: {values[name]} and {value}"
    return value


# Columns that distinguish rows with the same question.
_ROW_NAMES: Final = frozenset({"id", "_id", "idx", "index", "doc_id", "uuid", "row", "row_id"})


def question_key(*parts: object) -> str:
    """Builds a key of question and expected answer; empty if all parts are empty.

    Ignores a row's id and the width of spaces.
    """
    plain = [_drop_row_names(part) for part in parts]
    if not any(part not in (None, "", {}, []) for part in plain):
        return ""
    return json.dumps(single_spaced(canonical_value(plain)), sort_keys=True)


def _drop_row_names(part: object) -> object:
    if not isinstance(part, Mapping):
        return part
    return {name: value for name, value in part.items() if name.lower() not in _ROW_NAMES}


@dataclass(frozen=True, slots=True)
class PairRow:
    """Holds an item's scores by both models, by epoch; None for a missing score."""

    item: str
    incumbent: tuple[float | None, ...]
    candidate: tuple[float | None, ...]
    groups: tuple[str, ...] = ()  # values of a CSV file's group columns, or the found cluster
    question: str = field(default="", compare=False)  # its key; empty if the file has none


@dataclass(frozen=True, slots=True)
class GapCount:
    """Counts a run's missing scores by cause.

    `samples` is the number of all its samples, the other fields count parts of them, except
    `missing`.
    """

    samples: int
    failed: int  # gave an error instead of an answer
    unscored: int  # answered, without a score
    missing: int  # items that only the other run has
    grader_failed: int = 0  # answered, but the grader gave an error instead of a score
    invalidated: int = 0  # answered and withdrawn by a person

    @property
    def total(self) -> int:
        ungraded = self.grader_failed + self.invalidated
        return self.failed + self.unscored + self.missing + ungraded


@dataclass(frozen=True, slots=True)
class AnswerMeans:
    """Holds a run's means of cost and time; None without any value."""

    usd: float | None = None
    latency_ms: float | None = None


def mean_known(values: Iterable[float | None]) -> float | None:
    """Returns the mean of the known values; None without any."""
    known_values = [value for value in values if value is not None]
    return math.fsum(known_values) / len(known_values) if known_values else None


@dataclass(frozen=True, slots=True)
class ExportedPairs:
    """Holds the pairs of two exported runs, which are neither a verdict nor proof."""

    metric: str
    incumbent: str
    candidate: str
    pairs: tuple[PairRow, ...]
    incumbent_gaps: GapCount
    candidate_gaps: GapCount
    incumbent_mean: AnswerMeans
    candidate_mean: AnswerMeans
    notes: tuple[str, ...] = ()  # remarks for people about these pairs
    direction: Direction = Direction.HIGHER  # of the metric; the pairs are higher if better
    direction_source: str = ""
    # Digests of how the incumbent and the candidate were asked; empty if unknown.
    settings: tuple[str, str] = ("", "")
    accepted: Mapping[str, str] = field(default_factory=dict)  # the user's reasons, by option
    span: tuple[float, float] = (0.0, 1.0)  # the metric's lowest and highest score in the file
    cluster: str = (
        ""  # the kind of the clusters in `groups` of the pairs; empty without clusters
    )

    def file_score(self, score: float) -> float:
        """Returns a score of the pairs in the file's own range and direction."""
        low, high = self.span
        share = 1.0 - score if self.direction is Direction.LOWER else score
        return low + (high - low) * share
