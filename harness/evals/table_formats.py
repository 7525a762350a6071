"""Parses results in tables: LangSmith's experiments, and a team's own CSV files.

Columns are found by name, as the lists in this module say. Nested formats are in
`harness.evals.export_formats`; pairing is in `harness.evals.scored_run`.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from harness.evals.scored_run import (
    ScoredRun,
    ScoredSample,
    numeric_score,
    question_key,
    read_scores,
)
from harness.frame.canonical_text import canonical_value
from harness.frame.errors import InputError
from harness.frame.text_files import csv_records

_FEEDBACK: Final = "feedback."
_EXAMPLES: Final = (
    "example_id",
    "reference_example_id",
    "example",
    "reference_example",
)
_INPUTS: Final = ("inputs.", "input.", "inputs", "input")
_REFERENCES: Final = ("reference.", "reference_outputs")


def parse_langsmith(text: str) -> list[ScoredRun]:
    """Parses the CSV export of one experiment, whose columns `feedback.NAME` are the metrics.

    Raises InputError without such a column, and for a row with neither an example nor inputs.
    """
    rows = [canonical_value(row) for _, row in csv_records(text, _line_fault)]
    columns = list(dict.fromkeys(column for row in rows for column in row if column))
    metrics = [column for column in columns if column.startswith(_FEEDBACK)]
    if not metrics:
        raise InputError("has no columns feedback.NAME, which contain the scores")
    return [
        ScoredRun.from_samples("", [_langsmith_sample(row, columns, metrics) for row in rows])
    ]


def _line_fault(line: int, wrong: str) -> InputError:
    return InputError(f"line {line}: {wrong}")


def _langsmith_sample(
    row: Mapping[str, str],
    columns: list[str],
    metrics: list[str],
) -> ScoredSample:
    """Builds a sample; columns of inputs and references together are its question."""
    example = next((row[name] for name in _EXAMPLES if row.get(name)), "")
    inputs = {name: row.get(name) for name in columns if name.startswith(_INPUTS)}
    expected = {name: row.get(name) for name in columns if name.startswith(_REFERENCES)}
    question = question_key(inputs, expected) if any(inputs.values()) else ""
    if not (example or question):
        raise InputError("has rows with neither an example_id nor inputs")
    named = {name.removeprefix(_FEEDBACK): row.get(name) for name in metrics}
    scores, unread = read_scores(named, _number)
    failed = bool((row.get("error") or "").strip())
    return ScoredSample(example or str(inputs), scores, failed, question, unread=unread)


def _number(text: object) -> float | None:
    """Reads a cell as a score: a number, `true` or `false`; None for any other text."""
    plain = str(text or "").strip()
    if plain.lower() in {"true", "false"}:
        return float(plain.lower() == "true")
    try:
        return numeric_score(float(plain))
    except ValueError:
        return None


_IDS: Final = ("id", "item", "item_id", "case", "name")
_QUESTIONS: Final = ("input", "question", "prompt", "query")
_TARGETS: Final = (
    "expected",
    "target",
    "expected_output",
    "reference",
    "label",
)
_NO_ERROR: Final = (
    "",
    "0",
    "false",
    "no",
    "none",
    "null",
    "nan",
    "n/a",
    "-",
    "[]",
    "{}",
)
_SCORES: Final = (
    "score",
    "pass",
    "passed",
    "correct",
    "success",
    "is_correct",
    "grade",
)


def has_csv_scores(names: Sequence[str]) -> bool:
    """Tells whether a header names an item and a score, in any case and with spaces around."""
    columns = [name.strip().lower() for name in names]
    has_item = any(name in {*_IDS, *_QUESTIONS} for name in columns)
    return has_item and any(name in _SCORES or name.startswith("score") for name in columns)


def parse_csv_scores(text: str) -> list[ScoredRun]:
    """Parses one row for each answer, with its question or id, and its scores. A column
    `model` separates runs. Raises InputError."""
    rows = [canonical_value(row) for _, row in csv_records(text, _line_fault)]
    columns = {name.strip().lower(): name for row in rows[:1] for name in row}
    if not has_csv_scores([*columns]):
        raise InputError(
            "needs a column of questions or ids (input, question, prompt or id) and a column "
            f"of scores ({', '.join(_SCORES)} or score…)"
        )
    ids = [columns[name] for name in _IDS if name in columns]
    questions = [columns[name] for name in _QUESTIONS if name in columns]
    targets = [columns[name] for name in _TARGETS if name in columns]
    metrics = [
        name for plain, name in columns.items() if plain in _SCORES or plain.startswith("score")
    ]
    runs: dict[str, list[ScoredSample]] = {}
    for row in rows:
        scores, unread = read_scores({name: row.get(name) for name in metrics}, _number)
        given = [row.get(name) or "" for name in questions]
        question = (
            question_key(given, [row.get(name) for name in targets]) if any(given) else ""
        )
        id_ = next((row[name] for name in ids if row.get(name)), " ".join(given))
        if not (id_ or question):
            raise InputError("has rows with neither a question nor an id")
        model, error = (
            (row.get(columns[name]) or "").strip() if name in columns else ""
            for name in ("model", "error")
        )
        failed = error.lower() not in _NO_ERROR
        runs.setdefault(model, []).append(
            ScoredSample(id_, scores, failed, question, unread=unread)
        )
    return [ScoredRun.from_samples(model, samples) for model, samples in runs.items()]
