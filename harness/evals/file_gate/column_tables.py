"""Parses a table with a row for each question and a column of scores for each model.

Column names are free: `gpt-6-sol`, `gpt-6-sol score`, `accuracy_claude`. So the parser finds
the columns of scores by their cells. It never guesses which model is the incumbent.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NoReturn

from harness.evals.run_statement import is_usually_lower
from harness.evals.scored_run import ScoredRun
from harness.evals.table_formats import (
    GRADER_ERRORS,
    IDS,
    QUESTIONS,
    SPAN_COLUMNS,
    TARGETS,
    build_table_runs,
    clean_score,
    parse_score,
)
from harness.frame.canonical_text import canonical_value
from harness.frame.errors import InputError
from harness.frame.text_files import csv_records, csv_rows

WANTED: Final = (
    "a column of questions or ids (question, input, prompt or id) and a column of scores for "
    "each model, such as `question,gpt-6-sol,claude` with 0, 1, 85% or pass in the cells"
)
_DEFAULT_METRIC: Final = "score"
_SEPARATORS: Final = r"[\s_\-.:/|(\[]+"
_NAME_END: Final = re.compile(rf"(.+?){_SEPARATORS}([^\s_\-.:/|()\[\]]+)[\])]?")
_NAME_START: Final = re.compile(rf"([^\s_\-.:/|()\[\]]+){_SEPARATORS}(.+?)[\])]?")
# Names of scores beside a model's name. Other names belong to the model: `gpt-6-sol new`.
_METRICS: Final = frozenset(
    {
        "score",
        "scores",
        "pass",
        "passed",
        "correct",
        "correctness",
        "success",
        "grade",
        "rating",
        "result",
        "verdict",
        "accuracy",
        "acc",
        "match",
        "f1",
        "em",
        "bleu",
        "quality",
        "faithfulness",
        "relevance",
        "relevancy",
        "similarity",
        "helpfulness",
        "groundedness",
        "eval",
        "points",
        "mark",
    }
)
# Columns of numbers that are no scores of a model.
_OTHER_COLUMNS: Final = frozenset(
    {
        *SPAN_COLUMNS,
        *GRADER_ERRORS,
        "threshold",
        "error",
        "weight",
        "difficulty",
        "epoch",
        "temperature",
        "cost",
        "tokens",
        "latency",
        "#",
        "nr",
        "no",
        "index",
        "row",
    }
)
# Columns of one model's answers: such a table has several scores of this model.
_ANSWERS: Final = frozenset(
    {"response", "output", "completion", "prediction", "generation", "actual_output"}
)
_TOTALS: Final = frozenset(
    {"average", "avg", "mean", "total", "totals", "sum", "overall", "summary", "median"}
)


@dataclass(frozen=True, slots=True)
class _Table:
    """A table's rows by column name, with the rows' lines."""

    names: tuple[str, ...]
    lines: tuple[int, ...]
    rows: tuple[Mapping[str, str], ...]

    def cells(self, name: str) -> list[str]:
        return [(row.get(name) or "").strip() for row in self.rows]


@dataclass(frozen=True, slots=True)
class _ScoreColumn:
    column: str
    model: str
    metric: str


def is_column_table(text: str) -> bool:
    """Tells whether a text is a table with scores of two or more models."""
    try:
        table = _read_table(text)
    except InputError:
        return False
    columns = _find_score_columns(table)
    names = {name.lower() for name in table.names}
    is_split = any(column.model != column.column for column in columns)
    # Beside an expected answer, `answer` is a model's; alone, it is often the expected one.
    has_answers = bool(names & _ANSWERS) or ("answer" in names and bool(names & {*TARGETS}))
    own_columns = [column.column for column in columns]
    has_items = _has_known_item(table) or bool(_find_distinct_column(table, own_columns))
    is_wide = len({column.model for column in columns}) > 1
    return is_wide and has_items and (is_split or not has_answers)


def refuse_table(text: str) -> NoReturn:
    """Raises InputError for a table without readable scores of two models. Names its own fault,
    or the columns that a table needs.
    """
    table = _read_table(text)
    columns = _find_score_columns(table)
    _check_unnamed(text)
    if len({column.model for column in columns}) > 1:
        _find_item_column(table, columns)
    shown_names = ", ".join(name[:40] for name in table.names[:200])[:200]
    raise InputError(
        "is not from a known eval tool, and has no readable scores; its columns are "
        f"{shown_names}. A table needs {WANTED}. A table with a row for each answer needs a "
        "column `score` instead. To have answers scored, see `swapproof try --suite`"
    )


def parse_columns(text: str) -> list[ScoredRun]:
    """Parses a table into one run for each model. Raises InputError, which says which columns
    a table needs.
    """
    table = _read_table(text)
    columns = _find_score_columns(table)
    if not columns:
        raise InputError(f"has no column of scores; a table needs {WANTED}")
    _check_unnamed(text)
    _check_names(columns)
    _check_totals(table, columns)
    item_column = _find_item_column(table, columns)
    by_model: dict[str, dict[str, str]] = {}
    for column in columns:
        by_model.setdefault(column.model, {})[column.metric] = column.column
    metrics = list(dict.fromkeys(column.metric for column in columns))
    shared_names = [
        name for name in table.names if name not in {column.column for column in columns}
    ]
    runs = {
        model: list(_build_rows(table, shared_names, metric_columns, item_column))
        for model, metric_columns in by_model.items()
    }
    plain_names = {name.lower(): name for name in (*shared_names, *metrics)}
    if item_column:
        plain_names["id"] = "id"
    parsed = build_table_runs(runs, plain_names, metrics)
    own_metrics = [replace(run, metrics=tuple(by_model[run.model])) for run in parsed]
    return [_add_remark(run, item_column) for run in own_metrics]


def _add_remark(run: ScoredRun, item_column: str) -> ScoredRun:
    if not item_column:
        return run
    remark = (
        f"the column {item_column!r} tells the questions apart; name a column `question`, so "
        "that repeats of one question count once"
    )
    return replace(run, statement=replace(run.statement, remarks=(remark,)))


def _build_rows(
    table: _Table,
    shared_names: Sequence[str],
    metric_columns: Mapping[str, str],
    item_column: str,
) -> Iterator[Mapping[str, str]]:
    """Yields one model's rows, one for each answer.

    Args:
        metric_columns: columns by metric.
    """
    for row in table.rows:
        answer = {name: row.get(name) or "" for name in shared_names}
        answer |= {metric: row.get(name) or "" for metric, name in metric_columns.items()}
        if item_column:
            answer["id"] = row.get(item_column) or ""
        yield answer


def _read_table(text: str) -> _Table:
    records = list(csv_records(text, _build_fault))
    rows = [canonical_value(row) for _, row in records]
    names = tuple(dict.fromkeys(name for row in rows for name in row if name))
    return _Table(names, tuple(line for line, _ in records), tuple(rows))


def _build_fault(line: int, wrong: str) -> InputError:
    return InputError(f"line {line}: {wrong}")


def _find_score_columns(table: _Table) -> list[_ScoreColumn]:
    """Finds the columns whose cells are scores from 0 to 1; if there are fewer than two, the
    columns with other numbers, whose range the user must state.
    """
    known = {*IDS, *QUESTIONS, *TARGETS, *_OTHER_COLUMNS}
    columns = [name for name in table.names if name.lower() not in known]
    scores = [name for name in columns if _has_scores(table.cells(name), limit=1.0)]
    if len(scores) < 2:
        scores = [name for name in columns if _has_scores(table.cells(name), limit=None)]
        item_column = _find_distinct_column(table, ())
        if not _has_known_item(table) and len(scores) > 2 and item_column in scores:
            scores.remove(item_column)
    others = [name.lower() for name in table.names if name not in scores]
    return _split_names(scores, others)


def _has_scores(cells: Sequence[str], limit: float | None) -> bool:
    """Tells whether most filled cells are scores, at most `limit`.

    A few other texts stay: the comparison refuses them by name, and drops no model silently.
    """
    filled = [cell for cell in map(clean_score, cells) if cell]
    scores = [score for score in map(parse_score, filled) if score is not None]
    is_in_range = limit is None or all(0.0 <= score <= limit for score in scores)
    return bool(filled) and 2 * len(scores) > len(filled) and is_in_range


def _split_names(names: Sequence[str], others: Sequence[str]) -> list[_ScoreColumn]:
    """Splits names such as `gpt-6-sol score` into model and metric, if two models have one.

    Args:
        others: the other columns, in lower case; a model's answers may have its name.
    """
    split = [_split_name(name, others) or _ScoreColumn(name, name, "") for name in names]
    models = {column.model for column in split if column.metric}
    if len(models) < 2:
        return [_ScoreColumn(name, name, _DEFAULT_METRIC) for name in names]
    return [
        column if column.metric else replace(column, metric=_DEFAULT_METRIC) for column in split
    ]


def _split_name(name: str, others: Sequence[str]) -> _ScoreColumn | None:
    if match := _NAME_END.fullmatch(name):
        model, metric = match.groups()
        if _is_metric(metric) or model.lower() in others:
            return _ScoreColumn(name, model, metric.lower())
    if match := _NAME_START.fullmatch(name):
        metric, model = match.groups()
        if _is_metric(metric) or model.lower() in others:
            return _ScoreColumn(name, model, metric.lower())
    return None


def _is_metric(word: str) -> bool:
    return word.lower() in _METRICS or is_usually_lower(word)


def _has_known_item(table: _Table) -> bool:
    return any(name.lower() in {*IDS, *QUESTIONS} for name in table.names)


def _find_item_column(table: _Table, columns: Sequence[_ScoreColumn]) -> str:
    """Returns the first other column with another text in each row, if no column has the name
    of an id or a question; else empty. Raises InputError if there is no such column.
    """
    if _has_known_item(table):
        return ""
    if name := _find_distinct_column(table, [column.column for column in columns]):
        return name
    raise InputError(
        "has no column that tells the questions apart: give the column of questions the name "
        "`question`, or add a column `id`"
    )


def _find_distinct_column(table: _Table, excluded: Sequence[str]) -> str:
    for name in table.names:
        cells = table.cells(name)
        if name not in excluded and all(cells) and len({*cells}) == len(cells):
            return name
    return ""


def _check_names(columns: Sequence[_ScoreColumn]) -> None:
    """Raises InputError for two columns of one model and score."""
    seen: dict[tuple[str, str], str] = {}
    for column in columns:
        earlier = seen.setdefault((column.model, column.metric), column.column)
        if earlier != column.column:
            raise InputError(
                f"columns {earlier!r} and {column.column!r} are one score of one model: rename "
                "or remove one"
            )


def _check_unnamed(text: str) -> None:
    """Raises InputError for a column of scores without a name; the first may be an index."""
    numbered = csv_rows(text, _build_fault)
    line, header = next(numbered, (1, []))
    cells_by_place: dict[int, list[str]] = {}
    for _, cells in numbered:
        for place, cell in enumerate(cells[1:], start=1):
            if place < len(header) and not header[place].strip():
                cells_by_place.setdefault(place, []).append(cell)
    for place, cells in cells_by_place.items():
        if _has_scores(cells, limit=None):
            raise InputError(
                f"line {line}: column {place + 1} has scores and no name: write the model's "
                "name into the first row"
            )


def _check_totals(table: _Table, columns: Sequence[_ScoreColumn]) -> None:
    """Raises InputError if the last row is a mean or a sum, which is no question."""
    scores = {column.column for column in columns}
    last = {name: (cell or "").strip() for name, cell in table.rows[-1].items()}
    labels = [cell for name, cell in last.items() if name not in scores and cell]
    if any(label.lower().rstrip(":") in _TOTALS for label in labels[:1]):
        raise InputError(
            f"line {table.lines[-1]}: the row {labels[0]!r} looks like a mean or a sum of the "
            "rows above, not like a question: remove or rename it"
        )
