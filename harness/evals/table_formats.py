"""Parses results in tables: LangSmith, Ragas, and the CSV files of teams.

The parsers find columns by the names in the lists of this module. Nested formats are in
`harness.evals.export_formats`; pairing is in `harness.evals.scored_run`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from harness.evals.run_statement import (
    CallSettings,
    Direction,
    MetricStatement,
    RunStatement,
    direction_of_successes,
)
from harness.evals.scored_run import (
    ScoredRun,
    ScoredSample,
    numeric_score,
    question_key,
    read_scores,
)
from harness.evals.tool_statements import is_setting, reads_like_error, shared_settings
from harness.frame.canonical_text import canonical_value
from harness.frame.errors import InputError
from harness.frame.text_files import csv_records

_FEEDBACK: Final = "feedback."
_METADATA: Final = "metadata."
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
    rows = [canonical_value(row) for _, row in csv_records(text, _build_fault)]
    columns = list(dict.fromkeys(column for row in rows for column in row if column))
    metrics = [column for column in columns if column.startswith(_FEEDBACK)]
    if not metrics:
        raise InputError("has no columns feedback.NAME, which contain the scores")
    samples = [_build_langsmith_sample(row, columns, metrics) for row in rows]
    setting_columns = [name for name in columns if name.startswith(_METADATA)]
    settings = shared_settings(
        [
            {name.removeprefix(_METADATA): row.get(name) for name in setting_columns}
            for row in rows
        ]
    )
    statement = RunStatement("LangSmith", settings=settings)
    return [ScoredRun.from_samples("", samples, statement=statement)]


def _build_fault(line: int, wrong: str) -> InputError:
    return InputError(f"line {line}: {wrong}")


def _build_langsmith_sample(
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
    cells = {name.removeprefix(_FEEDBACK): clean_score(row.get(name)) for name in metrics}
    scores, unread = read_scores(cells, parse_score)
    failed = bool((row.get("error") or "").strip())
    return ScoredSample(example or str(inputs), scores, failed, question, unread=unread)


# Words and marks of a right and of a wrong answer. An `x` can mean both.
_MARKS: Final[Mapping[str, float]] = {
    **dict.fromkeys(("true", "yes", "pass", "passed", "correct", "right", "✓", "✔", "✅"), 1.0),
    **dict.fromkeys(("false", "no", "fail", "failed", "incorrect", "wrong"), 0.0),
    **dict.fromkeys(("✗", "✘", "✖", "❌"), 0.0),
}
# `0,85` and `1,5`; not `1,000`, which may be a thousand.
_COMMA_DECIMAL: Final = re.compile(r"[+-]?(0,\d+|\d+,(\d{1,2}|\d{4,}))")
_EMOJI_FORM: Final = "\ufe0f"  # asks for a mark's coloured form


def parse_score(text: object) -> float | None:
    """Reads a cell as a score: a number, a percentage, or words such as `✅ correct`.

    None for any other text.
    """
    plain = str(text or "").strip()
    marks = {_MARKS.get(word) for word in plain.lower().replace(_EMOJI_FORM, "").split()}
    if len(marks) == 1 and None not in marks:
        return marks.pop()
    number = plain.removesuffix("%").rstrip()
    if _COMMA_DECIMAL.fullmatch(number):
        number = number.replace(",", ".")
    try:
        score = None if "_" in number else numeric_score(float(number))
    except ValueError:
        return None
    return score / 100 if score is not None and plain.endswith("%") else score


def _check_percentages(
    rows: Sequence[Mapping[str, str]],
    metrics: Iterable[str],
    columns: Mapping[str, str],
    model: str,
) -> None:
    """Raises InputError for scores with a percent sign in some cells alone, or with a range of
    their own. `0` is the same in both ways.
    """
    has_span = bool({*SPAN_COLUMNS} & columns.keys())
    for name in metrics:
        cells = {clean_score(row.get(name)) for row in rows} - {"", "0"}
        numbers = [cell for cell in cells if cell[-1] in "0123456789.%"]
        signs = {cell.endswith("%") for cell in numbers}
        if len(signs) > 1 or (has_span and True in signs):
            owner = f" of {model!r}" if model else ""
            scores = f"the scores of {name!r}{owner}"
            raise InputError(
                f"{scores} have percent signs, and also numbers without one or a range in "
                "min_score and max_score: write all numbers in one way"
            )


IDS: Final = ("id", "item", "item_id", "case", "name")
QUESTIONS: Final = ("input", "question", "prompt", "query", "user_input")
TARGETS: Final = (
    "expected",
    "target",
    "expected_output",
    "reference",
    "label",
    "ground_truth",
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


# Columns of an error of the grader, which is not an error of the model.
GRADER_ERRORS: Final = (
    "grader_error",
    "judge_error",
    "scorer_error",
    "score_error",
    "evaluator_error",
    "eval_error",
)
_NO_NUMBER: Final = frozenset({"nan", "none", "null", "na", "n/a", "<na>", "-"})
# Columns of the reason for a score.
_REASONS: Final = ("reason", "comment", "explanation", "judge_reason", "judge_reasoning")
_YES_NO: Final = frozenset({"pass", "passed", "correct", "success", "is_correct"})
SPAN_COLUMNS: Final = ("min_score", "max_score")  # columns of the range of all scores
_SUCCESSES: Final = ("success", "passed", "pass")
# Columns of Ragas that are no scores; its metrics have names of their own.
_RAGAS_FIELDS: Final = frozenset(
    {
        "",
        "user_input",
        "retrieved_contexts",
        "reference_contexts",
        "retrieved_context_ids",
        "reference_context_ids",
        "response",
        "multi_responses",
        "reference",
        "rubrics",
        "question",
        "answer",
        "contexts",
        "ground_truth",
        "ground_truths",
        "reference_topics",
        "reference_tool_calls",
        "synthesizer_name",
        "persona_name",
        "query_style",
        "query_length",
        "evolution_type",
        "metadata",
        "episode_done",
        "model",
        "error",
        *IDS,
    }
)


def _is_ragas(columns: Sequence[str]) -> bool:
    """Tells whether a table has the columns of Ragas' results, of version 0.2 or before."""
    names = {*columns}
    return {"user_input", "response"} <= names or {"question", "answer", "contexts"} <= names


def has_csv_scores(names: Sequence[str]) -> bool:
    """Tells whether a header names an item and a score, in any case and with spaces around."""
    columns = [name.strip().lower() for name in names]
    has_item = any(name in {*IDS, *QUESTIONS} for name in columns)
    if _is_ragas(columns):
        return bool({*columns} - _RAGAS_FIELDS)
    return has_item and any(name in _SCORES or name.startswith("score") for name in columns)


def parse_csv_scores(text: str) -> list[ScoredRun]:
    """Parses one row for each answer, with its question or id, and its scores. A column
    `model` separates runs. Raises InputError."""
    rows = [canonical_value(row) for _, row in csv_records(text, _build_fault)]
    columns = {name.strip().lower(): name for row in rows[:1] for name in row}
    if not has_csv_scores([*columns]):
        raise InputError(
            "needs a column of questions or ids (input, question, prompt or id) and a column "
            f"of scores ({', '.join(_SCORES)} or score…)"
        )
    runs: dict[str, list[Mapping[str, str]]] = {}
    for row in rows:
        runs.setdefault(_read_cell(row, columns, "model"), []).append(row)
    return build_table_runs(runs, columns, _find_csv_metrics(rows, columns))


def build_table_runs(
    runs: Mapping[str, Sequence[Mapping[str, str]]],
    columns: Mapping[str, str],
    metrics: Sequence[str],
) -> list[ScoredRun]:
    """Builds a run for each model from its rows, one for each answer. Raises InputError.

    Args:
        columns: the columns' names by their plain forms.
        metrics: the columns of scores.
    """
    rows = [row for run_rows in runs.values() for row in run_rows]
    for model, run_rows in runs.items():
        _check_percentages(run_rows, metrics, columns, model)
    statement = _read_csv_statement(rows, columns, metrics)
    return [
        ScoredRun.from_samples(
            model,
            [_build_csv_sample(row, columns, metrics) for row in run_rows],
            statement=replace(
                statement, settings=_read_csv_settings(run_rows, columns, metrics)
            ),
        )
        for model, run_rows in runs.items()
    ]


def _build_csv_sample(
    row: Mapping[str, str],
    columns: Mapping[str, str],
    metrics: Sequence[str],
) -> ScoredSample:
    """Builds the sample of a row.

    Args:
        columns: the columns' names by their plain forms.
    """
    ids, questions, targets = (
        [columns[name] for name in names if name in columns]
        for names in (IDS, QUESTIONS, TARGETS)
    )
    cells = {name: clean_score(row.get(name)) for name in metrics}
    scores, unread = read_scores(cells, parse_score)
    question_texts = [row.get(name) or "" for name in questions]
    question = (
        question_key(question_texts, [row.get(name) for name in targets])
        if any(question_texts)
        else ""
    )
    id_ = next((row[name] for name in ids if row.get(name)), " ".join(question_texts))
    if not (id_ or question):
        raise InputError("has rows with neither a question nor an id")
    has_grader_error = any(_is_error(_read_cell(row, columns, name)) for name in GRADER_ERRORS)
    # Ragas leaves a score empty if its judge failed.
    is_judged = _is_ragas([*columns])
    ungraded = [
        name for name, cell in cells.items() if has_grader_error or (is_judged and not cell)
    ]
    return ScoredSample(
        id_,
        scores,
        _is_error(_read_cell(row, columns, "error")),
        question,
        question_key([row.get(name) for name in targets]),
        unread=unread,
        ungraded=frozenset(ungraded),
        doubtful=any(reads_like_error(_read_cell(row, columns, name)) for name in _REASONS),
    )


def _read_csv_settings(
    rows: Sequence[Mapping[str, str]],
    columns: Mapping[str, str],
    metrics: Sequence[str],
) -> CallSettings | None:
    """Reads the columns of settings that are equal in all rows of a run."""
    other_columns = {
        *IDS,
        *QUESTIONS,
        *TARGETS,
        *_RAGAS_FIELDS,
        *SPAN_COLUMNS,
        *map(str.lower, metrics),
    }
    names = [
        name
        for plain, name in columns.items()
        if plain not in other_columns and is_setting(plain)
    ]
    return shared_settings([{name: row.get(name) for name in names} for row in rows])


def _read_cell(row: Mapping[str, str], columns: Mapping[str, str], name: str) -> str:
    return (row.get(columns[name]) or "").strip() if name in columns else ""


def clean_score(text: str | None) -> str:
    """Returns a cell of a score; empty for the words that stand for a missing number."""
    plain = (text or "").strip()
    return "" if plain.lower() in _NO_NUMBER else plain


def _is_error(text: str) -> bool:
    return text.lower() not in _NO_ERROR


def _find_csv_metrics(
    rows: Sequence[Mapping[str, str]],
    columns: Mapping[str, str],
) -> list[str]:
    """Returns the columns of scores; in a file of Ragas, all other columns of numbers."""
    if not _is_ragas([*columns]):
        return [
            name
            for plain, name in columns.items()
            if plain in _SCORES or (plain.startswith("score") and plain not in GRADER_ERRORS)
        ]
    return [
        name
        for plain, name in columns.items()
        if plain not in _RAGAS_FIELDS
        and all(
            parse_score(cell) is not None
            for row in rows
            if (cell := clean_score(row.get(name)))
        )
    ]


def _read_span(
    rows: Sequence[Mapping[str, str]],
    columns: Mapping[str, str],
) -> tuple[float, float] | None:
    """Returns the range that a table states in each row; without `min_score`, it begins at 0.

    Raises InputError for rows with several ranges, and for a range that cannot be read.
    """
    if not {*SPAN_COLUMNS} & columns.keys():
        return None
    stated = {tuple(_read_cell(row, columns, name) for name in SPAN_COLUMNS) for row in rows}
    lowest, highest = next(iter(stated))
    low = parse_score(lowest) if "min_score" in columns else 0.0
    high = parse_score(highest) if "max_score" in columns else 1.0
    if len(stated) > 1 or low is None or high is None or low >= high:
        raise InputError(
            "has no single range in min_score and max_score: give all rows two numbers, the "
            "lowest possible score and the highest"
        )
    return low, high


def _check_direction(
    statement: MetricStatement,
    rows: Sequence[tuple[float | None, float | None, bool | None]],
    passed: str,
) -> MetricStatement:
    """Returns the direction, or the reason why Swapproof must ask for it.

    A success column with one value in all rows may describe the request. So it does not show
    that low scores are good.
    """
    if statement.direction is not Direction.LOWER or len({success for *_, success in rows}) > 1:
        return statement
    return MetricStatement(
        source=f"`{passed}` has one value, so it tells no direction",
        threshold=statement.threshold,
    )


def _read_csv_statement(
    rows: Sequence[Mapping[str, str]],
    columns: Mapping[str, str],
    metrics: Sequence[str],
) -> RunStatement:
    """Reads directions from columns of a threshold and of its success, if a table has them."""
    statements: dict[str, MetricStatement] = {}
    passed = next((columns[name] for name in _SUCCESSES if name in columns), "")
    if passed and "threshold" in columns:
        for name in metrics:
            outcomes = [
                (
                    parse_score(row.get(name)),
                    parse_score(row.get(columns["threshold"])),
                    None if (cell := parse_score(row.get(passed))) is None else bool(cell),
                )
                for row in rows
            ]
            statement = direction_of_successes(outcomes, f"`{passed}` and `threshold`")
            if statement is not None and name != passed:
                statements[name] = _check_direction(statement, outcomes, passed)
            elif statement is not None:
                statements[name] = MetricStatement(threshold=statement.threshold)
    if span := _read_span(rows, columns):
        graded = [name for name in metrics if name.strip().lower() not in _YES_NO]
        statements |= {
            name: replace(statements.get(name, MetricStatement()), span=span) for name in graded
        }
    ragas = _is_ragas([*columns])
    if ragas:
        lower = MetricStatement(Direction.LOWER, "Ragas documents it so")
        statements |= {name: lower for name in metrics if name.startswith("noise_sensitivity")}
    tells_failures = ragas or any(name in columns for name in GRADER_ERRORS)
    return RunStatement(
        "Ragas" if ragas else "", metrics=statements, tells_grader_failures=tells_failures
    )
