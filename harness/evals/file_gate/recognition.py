"""Recognises the tool that wrote a results file, by the file's content."""

import json
import re
from collections.abc import Mapping
from itertools import islice
from typing import Final

from harness.evals.file_gate.column_tables import is_column_table, refuse_table
from harness.evals.file_gate.lm_eval_files import WANTED, is_totals
from harness.evals.openai_evals import is_output_items
from harness.evals.scored_run import as_mapping, parse_json
from harness.evals.table_formats import has_csv_scores
from harness.frame.errors import InputError
from harness.frame.text_files import csv_rows, text_lines

# Examines several rows, because a tool's first rows may lack fields that later rows have.
_MAX_EXAMINED_ROWS: Final = 50
_ROW_FIELDS: Final = (
    "item_results",
    "itemResults",
    "events",
    "rows",
    "data",
    "results",
)
# Descriptions of files without results, by a field of such a file.
_WITHOUT_RESULTS: Final[Mapping[str, str]] = {
    "messages": "a data set of conversations",
    "expected_output": "a data set",
    "ideal": "a data set of OpenAI evals",
    "testing_criteria": "the configuration of an OpenAI eval",
    "spans": "traces",
    "resourceSpans": "OpenTelemetry traces",
    "testRunLink": "a link to DeepEval's hosted test run (export the test run as JSON)",
}
_PROMPTFOO_CONFIG: Final = re.compile(r"^(prompts|providers|tests|defaultTest):", re.MULTILINE)
_PROMPTFOO_YAML: Final = re.compile(r"\s*evalId:.*\nresults:\s*\n")
# The starts of promptfoo's results as CSV, XML and HTML, which lack the assertions.
_PROMPTFOO_OTHER: Final = re.compile(
    r"[^\n]*,Status,Score,Named Scores,|\s*<promptfoo>|"
    r"\s*<!doctype html>(?s:.){0,99999}promptfoo",
    re.IGNORECASE,
)


def recognise_format(text: str) -> str:
    """Returns a key of `EXPORT_FORMATS`, or `pairs` for a file of pairs.

    Raises InputError, whose message describes the file.
    """
    if text.lstrip()[:1] in {"{", "["}:
        document, rows = _read_json_rows(text)
        if not (document or any(rows)):
            parse_json(text)  # its error names the line of a fault
            raise InputError("has no results: give results that an eval tool wrote")
        if is_output_items([document, *rows]):
            return "openai-evals"
        return _recognise_document(document) or _recognise_rows(rows) or _refuse(document, rows)
    if _PROMPTFOO_YAML.match(text):
        return "promptfoo"
    if _PROMPTFOO_OTHER.match(text):
        raise InputError(
            "looks like promptfoo's results as a page or table, which have no assertions: "
            "write them as JSON, `promptfoo export eval ID --output results.json`"
        )
    return _recognise_table(text)


def _recognise_table(text: str) -> str:
    names = next((cells for _, cells in csv_rows(text, _build_line_fault)), [])
    columns = {name.strip().lower() for name in names}
    if {"item", "incumbent", "candidate"} <= columns:
        return "pairs"
    if any(name.startswith("feedback.") for name in columns):
        return "langsmith"
    if has_csv_scores(names):
        return "csv"
    if is_column_table(text):
        return "columns"
    if _PROMPTFOO_CONFIG.search(text):
        raise InputError(
            "looks like a promptfoo configuration: give its results, "
            "`promptfoo eval --output results.json`"
        )
    return refuse_table(text) if len(names) > 1 else _refuse({}, [dict.fromkeys(names)])


def _read_json_rows(text: str) -> tuple[Mapping[str, object], list[Mapping[str, object]]]:
    """Returns the document and its first rows; JSON lines have no document."""
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if value is None:
        lines = islice(text_lines(text), _MAX_EXAMINED_ROWS)
        return {}, [as_mapping(_parse_line(line)) for _, line in lines]
    if isinstance(value, list):
        return {}, [as_mapping(row) for row in value[:_MAX_EXAMINED_ROWS]]
    document = as_mapping(value)
    row_list = next(
        (document[n] for n in _ROW_FIELDS if isinstance(document.get(n), list)),
        None,
    )
    rows = row_list[:_MAX_EXAMINED_ROWS] if isinstance(row_list, list) else [document]
    return document, [as_mapping(row) for row in rows]


def _parse_line(line: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _recognise_document(document: Mapping[str, object]) -> str:
    if "testCases" in document or "testRunData" in document:
        return "deepeval"
    if is_totals(document):
        raise InputError(
            f"has totals of lm-eval, without a row for each document: give {WANTED}"
        )
    first = as_mapping(next(iter(document.values()), None))
    if isinstance(document.get("samples"), Mapping) or "doc_id" in first:
        return "lm-eval"
    if "samples" in document and "eval" in document:
        return "inspect"
    if as_mapping(document.get("results")).get("results") is not None:
        return "promptfoo"
    return ""


def _recognise_rows(rows: list[Mapping[str, object]]) -> str:
    names = {name for row in rows for name in row}
    scores = next((row["scores"] for row in rows if row.get("scores")), None)
    if "spec" in names or {"sample_id", "run_id", "type"} <= names:
        return "openai-evals"
    if "doc_id" in names:
        return "lm-eval"
    if "evaluations" in names or isinstance(scores, list):
        return "langfuse"
    if isinstance(scores, Mapping) or {"span_id", "scores"} <= names:
        return "braintrust"
    if names & {"promptIdx", "gradingResult", "testIdx"}:
        return "promptfoo"
    return ""


def _refuse(document: Mapping[str, object], rows: list[Mapping[str, object]]) -> str:
    names = [*document, *(name for row in rows for name in row)]
    likeness = next(
        (description for name, description in _WITHOUT_RESULTS.items() if name in names),
        "",
    )
    fields = ", ".join(dict.fromkeys(name[:40] for name in names[:200]))[:200]
    if not names:
        raise InputError("is neither JSON nor a table: give results that an eval tool wrote")
    origin = f"looks like {likeness}" if likeness else "is not from a known eval tool"
    raise InputError(
        f"{origin}, and has no readable scores; its fields are {fields or 'none'}. Write rows "
        "of your own as CSV or .xlsx, with a column for the item and one for the score"
    )


def _build_line_fault(line: int, fault: str) -> InputError:
    return InputError(f"line {line}: {fault}")
