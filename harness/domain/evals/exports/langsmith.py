"""Parses LangSmith's results of an experiment as CSV: `ExperimentResults.to_pandas().to_csv()`,
`Client.get_test_results`, or the page's download. Each example is an item.
"""

import csv
import io
from collections.abc import Mapping
from typing import Final

from harness.domain.errors import InputError
from harness.domain.evals.exports.scored_run import ScoredRun, ScoredSample, numeric_score

_FEEDBACK: Final = "feedback."
_EXAMPLES: Final = ("example_id", "reference_example_id", "example", "reference_example")
_INPUTS: Final = ("inputs.", "input.", "inputs", "input")


def parse_langsmith(text: str) -> list[ScoredRun]:
    """Parses a file of one experiment. Raises InputError for one that is none."""
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        rows = list(reader)
    except csv.Error as error:
        raise InputError(f"line {reader.line_num}: not CSV: {error}") from None
    columns = [column for column in reader.fieldnames or () if column]
    metrics = [column for column in columns if column.startswith(_FEEDBACK)]
    if not metrics:
        raise InputError("has no columns feedback.NAME, which hold the scores")
    return [ScoredRun.from_samples("", [_sample(row, columns, metrics) for row in rows])]


def _sample(row: Mapping[str, str], columns: list[str], metrics: list[str]) -> ScoredSample:
    example = next((row[name] for name in _EXAMPLES if row.get(name)), "")
    if not example:
        example = "\x1f".join(row[name] or "" for name in columns if name.startswith(_INPUTS))
    if not example:
        raise InputError("has rows with neither an example_id nor inputs")
    scores = {name.removeprefix(_FEEDBACK): _number(row[name]) for name in metrics}
    return ScoredSample(example, scores, bool((row.get("error") or "").strip()))


def _number(text: str | None) -> float | None:
    plain = (text or "").strip()
    if plain.lower() in {"true", "false"}:
        return float(plain.lower() == "true")
    try:
        return numeric_score(float(plain))
    except ValueError:
        return None
