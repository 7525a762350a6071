"""Reads the tests of promptfoo's files, CSV, JSON lines and YAML, and assertions in short form.

Source: promptfoo 0.121.20, `src/csv.ts`. Pure: `promptfoo` reads the files and checks the
tests.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from evals.scorers.assertions import CHECKS, RUBRIC
from evals.suites.items import DECODER
from harness.frame.configuration.core_yaml import parse_core_yaml
from harness.frame.errors import InputError
from harness.frame.text_files import csv_records, text_lines

Test = Mapping[str, Any]
PROGRAMS: Final = ("javascript", "python", "ruby", "webhook")
_EXPECTED: Final = re.compile(
    r"(?P<type>(?:not-)?(?P<base>[a-z][a-z0-9:-]*?))"
    r"(?:\((?P<threshold>\d+(?:\.\d+)?)\))?(?::(?P<value>.*))?",
    re.DOTALL,
)
_NUMBER: Final = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?", re.IGNORECASE)
# promptfoo's assertions without a counterpart here. A text in short form may name them.
_UNSUPPORTED: Final = re.compile(
    r"agent-rubric|answer-relevance|bleu|classifier|contains-(?:html|sql|xml)|"
    r"context-(?:faithfulness|recall|relevance)|conversation-relevance|cost|factuality|"
    r"finish-reason|g-eval|gleu|guardrails|is-(?:html|refusal|sql|xml)|latency|"
    r"is-valid-(?:openai-)?(?:function|tools)-call|meteor|"
    r"model-graded-(?:closedqa|factuality)|moderation|perplexity(?:-score)?|pi|rouge-n|"
    r"search-rubric|similar(?::cosine|:dot|:euclidean)?|skill-used|tool-call-f1|"
    r"trace-(?:error-spans|span-count|span-duration)|"
    r"trajectory:(?:goal-success|step-count|tool-args-match|tool-sequence|tool-used)"
)
_SHORT_DISTANCE: Final = 0.75  # threshold of a `levenshtein` in short form


def parse_expected(text: str) -> Mapping[str, Any]:
    """Reads an assertion in promptfoo's short form. Another text becomes an `equals`."""
    stripped = text.strip()
    if stripped.startswith(("fn:", "eval:")):
        return {"type": "javascript", "value": stripped}
    if stripped.startswith("grade:"):
        return {
            "type": RUBRIC,
            "value": stripped.removeprefix("grade:").strip(),
        }
    short_form = _EXPECTED.fullmatch(stripped)
    is_assertion = short_form and (
        short_form["base"] in {*CHECKS, *PROGRAMS, RUBRIC}
        or _UNSUPPORTED.fullmatch(short_form["base"])
    )
    if not (short_form and is_assertion):
        return {"type": "equals", "value": text}
    check: dict[str, Any] = {"type": short_form["type"]}
    if short_form["value"] is not None:
        check["value"] = short_form["value"].strip()
    if short_form["base"] == "levenshtein":
        check["threshold"] = float(short_form["threshold"] or _SHORT_DISTANCE)
    return check


def parse_yaml(text: str, name: str) -> Any:
    try:
        return parse_core_yaml(text)
    except InputError as error:
        raise InputError(f"cannot read {name}: {error}") from None


def file_records(text: str, name: str) -> Iterator[tuple[int, object]]:
    """Yields each test of a file, with its line or place. Raises InputError."""
    if name.lower().endswith(".csv"):
        for line, row in csv_records(text, lambda at, what: InputError(f"{name}:{at}: {what}")):
            yield line, _read_csv_test(row)
        return
    if name.lower().endswith((".jsonl", ".ndjson")):
        try:
            yield from ((number, DECODER.decode(line)) for number, line in text_lines(text))
        except ValueError as error:
            raise InputError(f"{name}: not JSON lines: {error}") from None
        return
    tests = parse_yaml(text, name)
    if not isinstance(tests, list):
        raise InputError(f"{name} does not contain a list of tests")
    yield from enumerate(tests, start=1)


def _read_csv_test(row: Mapping[str, str]) -> Test:
    """Reads a row: columns with `__` have a meaning, each other column is a variable."""
    cells = {name.strip(): cell for name, cell in row.items()}
    special_cells = {name[2:]: cell for name, cell in cells.items() if name.startswith("__")}
    filled = {name: cell for name, cell in special_cells.items() if cell.strip()}
    checks = [
        dict(parse_expected(cell))
        for name, cell in filled.items()
        if name.startswith("expected")
    ]
    for name, cell in filled.items():
        if setting := re.fullmatch(r"config:__expected([1-9]\d*)?:threshold", name):
            number = int(setting[1] or 1)
            if number <= len(checks):
                checks[number - 1]["threshold"] = _parse_number(cell)
    return {
        "vars": {name: cell for name, cell in cells.items() if not name.startswith("__")},
        "assert": checks,
        "description": filled.get("description", ""),
        "metadata": dict(_read_csv_metadata(filled)),
        "options": {
            name: special_cells[name]
            for name in ("prefix", "suffix")
            if special_cells.get(name)
        },
        "threshold": _parse_number(filled.get("threshold", "")),
        "providerOutput": filled.get("providerOutput"),
    }


def _read_csv_metadata(cells: Mapping[str, str]) -> Iterator[tuple[str, object]]:
    """Yields the metadata of a row. A key that ends in `[]` has a list, separated by commas."""
    for name, cell in cells.items():
        if name.startswith("metadata:"):
            key = name.removeprefix("metadata:")
            parts = [part.strip().replace("\\,", ",") for part in re.split(r"(?<!\\),", cell)]
            yield (key[:-2], parts) if key.endswith("[]") else (key, cell)


def _parse_number(cell: str) -> float | None:
    """Reads a number; promptfoo ignores another text."""
    return float(cell) if _NUMBER.fullmatch(cell.strip()) else None
