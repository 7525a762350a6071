"""Scores of one model as another tool exported them. Samples that failed or have no score are
part of them: they count. No verdict is made of them.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from harness.domain.errors import InputError
from harness.domain.evals.text_files import text_lines


@dataclass(frozen=True, slots=True)
class ScoredSample:
    """Holds an answer's scores. What was asked makes the item: samples of equal questions are
    repeats of one, whatever their ids are.
    """

    id: str  # as the tool calls the item
    scores: Mapping[str, float | None]  # by metric; None where it was not scored
    failed: bool = False  # the model or the tool gave an error instead of an answer
    question: str = ""  # key of all that is asked and wanted; empty where the file has none
    revision: str = ""  # the tool's own hash of the item
    unread: Mapping[str, str] = field(default_factory=dict)  # metric → what is no score
    cached: bool = False  # a repeat of an earlier answer: no model was asked

    def score(self, metric: str) -> float | None:
        return None if self.failed else self.scores.get(metric)


@dataclass(frozen=True, slots=True)
class ScoredRun:
    """Holds what one model got, in the order of the file. An item that is there several times
    was asked several times.
    """

    model: str  # or whatever else the file calls it by
    samples: Sequence[ScoredSample]
    metrics: tuple[str, ...] = field(default=())
    # What both runs have to have alike, as `task version` → `2`; a scorer's by its metric.
    terms: Mapping[str, str] = field(default_factory=dict)
    prompt: str = ""  # the template, where the file has one

    @classmethod
    def from_samples(
        cls,
        model: str,
        samples: Sequence[ScoredSample],
        terms: Mapping[str, str] | None = None,
        prompt: str = "",
    ) -> "ScoredRun":
        metrics = dict.fromkeys(metric for sample in samples for metric in sample.scores)
        return cls(model, tuple(samples), tuple(metrics), terms or {}, prompt)


def parse_json(text: str) -> object:
    """Parses a JSON document. Raises InputError with the line of a fault."""
    try:
        value: object = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"line {error.lineno}: not JSON: {error.msg}") from None
    except RecursionError:
        raise InputError("is nested too deep") from None
    except ValueError:
        raise InputError("has a number of more digits than can be read") from None
    return value


def parse_json_lines(text: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Yields (line, object) of JSON lines. Raises InputError for a line that is none."""
    for number, line in text_lines(text):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            raise InputError(f"line {number}: not a JSON object") from None
        if not isinstance(value, dict):
            raise InputError(f"line {number}: not a JSON object")
        yield number, value


def parse_json_rows(text: str, *names: str) -> list[Mapping[str, object]]:
    """Parses rows that stand in a list, in a list below one of `names`, or one in a line.

    Raises InputError for anything else.
    """
    head = text.lstrip()[:1]
    value: object = None
    if head in {"[", "{"}:
        try:
            value = json.loads(text)
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
    """A mapping, or an empty one for what is none."""
    return value if isinstance(value, Mapping) else {}


def numeric_score(value: object) -> float | None:
    """A number, or true and false as 1 and 0; None for what is no score."""
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, int | float) and value == value and abs(value) < 1e300:  # noqa: PLR0124
        return float(value)
    return None


def numeric_scores(values: Mapping[str, object]) -> dict[str, float | None]:
    """The numbers among named values; what is null was to be scored and was not."""
    return {
        str(name): numeric_score(value)
        for name, value in values.items()
        if value is None or numeric_score(value) is not None
    }


def read_scores(
    values: Mapping[str, object], read: Callable[[object], float | None] = numeric_score
) -> tuple[dict[str, float | None], dict[str, str]]:
    """The scores by name, and the values that are there and are none."""
    scores = {str(name): read(value) for name, value in values.items()}
    unread = {
        str(name): str(value)
        for name, value in values.items()
        if value not in (None, "") and scores[str(name)] is None and value == value  # noqa: PLR0124
    }
    return scores, unread


# What tells rows apart that ask the same.
_ROW_NAMES: Final = frozenset({"id", "_id", "idx", "index", "doc_id", "uuid", "row", "row_id"})


def question_key(*parts: object) -> str:
    """Names a question and its wanted answer by their content, without a row's number or id.
    Empty for no content.
    """
    plain = [_content(part) for part in parts]
    if not any(part not in (None, "", {}, []) for part in plain):
        return ""
    return json.dumps(plain, sort_keys=True)


def _content(part: object) -> object:
    if not isinstance(part, Mapping):
        return part
    return {name: value for name, value in part.items() if name.lower() not in _ROW_NAMES}
