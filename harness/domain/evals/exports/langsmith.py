"""Parses LangSmith's results of an experiment as CSV: `ExperimentResults.to_pandas().to_csv()`,
`Client.get_test_results`, or the page's download. Each example is an item.

Parses a Braintrust experiment's rows, as its API and its export give them: a list, `events`,
or one in a line. Rows of one input are one item, asked several times.

Parses promptfoo's results (`promptfoo eval --output results.json`): each provider with each
prompt is a run, each test an item.
"""

import csv
import io
import json
from collections.abc import Mapping
from typing import Final

from harness.domain.errors import InputError
from harness.domain.evals.exports.scored_run import (
    ScoredRun,
    ScoredSample,
    as_mapping,
    numeric_score,
    numeric_scores,
    parse_json,
    parse_json_rows,
)

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


def parse_braintrust(text: str) -> list[ScoredRun]:
    """Parses an export. Raises InputError for another file."""
    rows = [row for row in parse_json_rows(text, "events", "rows", "data") if _is_root(row)]
    if not any("scores" in row for row in rows):
        raise InputError("has no rows with `scores`: export the experiment's rows as JSON")
    runs: dict[str, list[ScoredSample]] = {}
    for row in rows:
        name = str(row.get("experiment_name") or row.get("experiment_id") or "")
        scores = numeric_scores(as_mapping(row.get("scores")))
        sample = ScoredSample(_braintrust_item(row), scores, bool(row.get("error")))
        runs.setdefault(name, []).append(sample)
    return [ScoredRun.from_samples(name, samples) for name, samples in runs.items()]


def _is_root(row: Mapping[str, object]) -> bool:
    """Whether a row is a test case, and not a span within one."""
    if isinstance(row.get("is_root"), bool):
        return bool(row["is_root"])
    parents = row.get("span_parents")
    return not parents and row.get("span_id") == row.get("root_span_id", row.get("span_id"))


def _braintrust_item(row: Mapping[str, object]) -> str:
    """The dataset's record, or else the input: by these Braintrust compares experiments."""
    origin = as_mapping(row.get("origin"))
    record = row.get("dataset_record_id") or origin.get("id")
    return str(record) if record else json.dumps(row.get("input"), sort_keys=True)


# Of `failureReason`: 1 is an assertion that failed, which is a score.
_ERROR: Final = 2


def parse_promptfoo(text: str) -> list[ScoredRun]:
    """Parses a results file. Raises InputError for another file."""
    document = as_mapping(parse_json(text))
    results = document.get("results")
    rows = as_mapping(results).get("results") if isinstance(results, dict) else results
    if not isinstance(rows, list):
        raise InputError("has no results.results: write it by `promptfoo eval --output`")
    runs: dict[tuple[str, str], list[ScoredSample]] = {}
    for row in map(as_mapping, rows):
        key = (_provider(row), str(row.get("promptIdx", 0)))
        runs.setdefault(key, []).append(_promptfoo_sample(row))
    providers = [provider for provider, _ in runs]
    return [
        ScoredRun.from_samples(
            provider if providers.count(provider) == 1 else f"{provider} prompt {prompt}",
            samples,
        )
        for (provider, prompt), samples in runs.items()
    ]


def _provider(row: Mapping[str, object]) -> str:
    provider = row.get("provider")
    if isinstance(provider, str):
        return provider
    named = as_mapping(provider)
    return str(named.get("label") or named.get("id") or "provider")


def _promptfoo_sample(row: Mapping[str, object]) -> ScoredSample:
    reason = row.get("failureReason")
    # Before there were reasons, an error was told by the grade that is missing.
    failed = reason == _ERROR or (
        reason is None and bool(row.get("error")) and not row.get("gradingResult")
    )
    scores = {
        "score": numeric_score(row.get("score")),
        "pass": numeric_score(row.get("success")),
        **numeric_scores(as_mapping(row.get("namedScores"))),
    }
    return ScoredSample(str(row.get("testIdx")), scores, failed)
