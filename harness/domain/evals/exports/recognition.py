"""Recognises by its content which tool wrote a file of results."""

import json
import re
from collections.abc import Mapping
from itertools import islice
from typing import Final

from harness.domain.errors import InputError
from harness.domain.evals.exports.scored_run import as_mapping
from harness.domain.evals.exports.table_formats import has_csv_scores
from harness.domain.evals.text_files import csv_rows, text_lines

# Rows that are looked at: a tool's first rows may be of another kind than those after them.
_ROWS: Final = 50
_LISTS: Final = ("item_results", "itemResults", "events", "rows", "data", "results")
# What files look like that hold no results.
_OTHERS: Final[Mapping[str, str]] = {
    "messages": "a data set of conversations",
    "expected_output": "a data set",
    "ideal": "a data set of OpenAI evals",
    "spans": "traces",
    "resourceSpans": "OpenTelemetry traces",
}
_PROMPTFOO_CONFIG: Final = re.compile(r"^(prompts|providers|tests|defaultTest):", re.MULTILINE)


def recognise_format(text: str) -> str:
    """Returns the format's name, as `EXPORT_FORMATS` has it; `pairs` for a file of pairs.

    Raises InputError that says what the file looks like.
    """
    if text.lstrip()[:1] in {"{", "["}:
        document, rows = _json_rows(text)
        return _of_document(document) or _of_rows(rows) or _refuse(document, rows)
    names = next((cells for _, cells in csv_rows(text, _fault)), [])
    columns = {name.strip().lower() for name in names}
    if {"item", "incumbent", "candidate"} <= columns:
        return "pairs"
    if any(name.startswith("feedback.") for name in columns):
        return "langsmith"
    if has_csv_scores(names):
        return "csv"
    if _PROMPTFOO_CONFIG.search(text):
        raise InputError(
            "looks like a promptfoo configuration: give its results, "
            "`promptfoo eval --output results.json`"
        )
    return _refuse({}, [dict.fromkeys(names)])


def _json_rows(text: str) -> tuple[Mapping[str, object], list[Mapping[str, object]]]:
    """The document and its first rows; of JSON lines the rows alone."""
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if value is None:
        lines = islice(text_lines(text), _ROWS)
        return {}, [as_mapping(_value(line)) for _, line in lines]
    if isinstance(value, list):
        return {}, [as_mapping(row) for row in value[:_ROWS]]
    document = as_mapping(value)
    listed = next((document[n] for n in _LISTS if isinstance(document.get(n), list)), None)
    rows = listed[:_ROWS] if isinstance(listed, list) else [document]
    return document, [as_mapping(row) for row in rows]


def _value(line: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _of_document(document: Mapping[str, object]) -> str:
    if "testCases" in document:
        return "deepeval"
    if "samples" in document and "eval" in document:
        return "inspect"
    if as_mapping(document.get("results")).get("results") is not None:
        return "promptfoo"
    return ""


def _of_rows(rows: list[Mapping[str, object]]) -> str:
    names = {name for row in rows for name in row}
    scored = next((row["scores"] for row in rows if row.get("scores")), None)
    if names & {"datasource_item_id", "spec"} or {"sample_id", "run_id", "type"} <= names:
        return "openai-evals"
    if "doc_id" in names:
        return "lm-eval"
    if "evaluations" in names or isinstance(scored, list):
        return "langfuse"
    if isinstance(scored, Mapping) or {"span_id", "scores"} <= names:
        return "braintrust"
    if names & {"promptIdx", "gradingResult", "testIdx"}:
        return "promptfoo"
    return ""


def _refuse(document: Mapping[str, object], rows: list[Mapping[str, object]]) -> str:
    names = [*document, *(name for row in rows for name in row)]
    looks = next((what for name, what in _OTHERS.items() if name in names), "")
    listed = ", ".join(dict.fromkeys(name[:40] for name in names[:200]))[:200]
    if not names:
        raise InputError("is neither JSON nor a table: give results that an eval tool wrote")
    raise InputError(
        f"{'looks like ' + looks if looks else 'is of no known eval tool'}, and holds no scores"
        f" that can be read; its fields are {listed or 'none'}"
    )


def _fault(line: int, wrong: str) -> InputError:
    return InputError(f"line {line}: {wrong}")
