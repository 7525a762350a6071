"""Parses the results of other eval tools, as `gate decide --from` names them."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Final

from harness.domain.errors import InputError
from harness.domain.evals.exports.scored_run import (
    ScoredRun,
    ScoredSample,
    as_mapping,
    numeric_score,
    numeric_scores,
    parse_json,
    parse_json_lines,
    parse_json_rows,
)


def parse_openai_evals(text: str) -> list[ScoredRun]:
    """Parses a log, or a run's output items. Raises InputError for what is neither."""
    rows = parse_json_rows(text, "data")
    if any("datasource_item_id" in row for row in rows):
        return _parse_items(rows)
    if any("sample_id" in row and "type" in row for row in rows):
        return [_parse_events(rows)]
    raise InputError("has neither the events of oaieval nor the output items of a run")


def _parse_events(rows: Sequence[Mapping[str, object]]) -> ScoredRun:
    spec = as_mapping(next((row["spec"] for row in rows if "spec" in row), None))
    functions = spec.get("completion_fns")
    model = str(functions[0]) if isinstance(functions, list) and functions else ""
    scores: dict[str, dict[str, float | None]] = {}
    failed: set[str] = set()
    for row in rows:
        if "sample_id" not in row:
            continue
        item, data = str(row["sample_id"]), as_mapping(row.get("data"))
        own = scores.setdefault(item, {})  # an item that was asked, and perhaps never scored
        match row.get("type"):
            case "match":
                own["match"] = numeric_score(data.get("correct"))
            case "metrics":
                own |= numeric_scores(data)
            case "error":
                failed.add(item)
            case _:
                pass
    return ScoredRun.from_samples(
        model, [ScoredSample(item, own, item in failed) for item, own in scores.items()]
    )


def _parse_items(rows: Sequence[Mapping[str, object]]) -> list[ScoredRun]:
    runs: dict[str, list[ScoredSample]] = {}
    for row in rows:
        answer = as_mapping(row.get("sample"))
        results = row.get("results")
        scores: dict[str, float | None] = {}
        for result in map(as_mapping, results if isinstance(results, list) else ()):
            score = numeric_score(result.get("score"))
            passed = numeric_score(result.get("passed"))
            scores[str(result.get("name"))] = passed if score is None else score
        failed = row.get("status") == "error" or bool(answer.get("error"))
        sample = ScoredSample(str(row.get("datasource_item_id")), scores, failed)
        runs.setdefault(str(answer.get("model") or row.get("run_id")), []).append(sample)
    return [ScoredRun.from_samples(model, samples) for model, samples in runs.items()]


def parse_lm_eval(text: str) -> list[ScoredRun]:
    """Parses a task's samples. Raises InputError for a file that has none."""
    merged: dict[str, dict[str, float | None]] = {}
    for line, row in parse_json_lines(text):
        if "doc_id" not in row:
            raise InputError(f"line {line}: has no doc_id: give the file samples_TASK_….jsonl")
        # A filter has a row of its own for each document.
        merged.setdefault(str(row["doc_id"]), {}).update(_lm_eval_scores(row))
    return [
        ScoredRun.from_samples("", [ScoredSample(item, own) for item, own in merged.items()])
    ]


def _lm_eval_scores(row: Mapping[str, object]) -> dict[str, float | None]:
    """The metrics that the row names, with its filter where that is not the plain one."""
    names = row.get("metrics")
    known = [str(name) for name in names] if isinstance(names, list) else []
    filtered = str(row.get("filter", "none"))
    ending = "" if filtered == "none" else f",{filtered}"
    found = numeric_scores({name: row.get(name) for name in known})
    return {f"{name}{ending}": score for name, score in found.items()}


# How Inspect's own metrics read the grades of a scorer.
_GRADES: Final[Mapping[str, float]] = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}


def parse_inspect(text: str) -> list[ScoredRun]:
    """Parses a log. Raises InputError for one without samples."""
    document = as_mapping(parse_json(text))
    rows = document.get("samples")
    if not isinstance(rows, list) or not rows:
        raise InputError("has no samples: give the log of an eval that ran with log_samples")
    model = str(as_mapping(document.get("eval")).get("model", ""))
    return [ScoredRun.from_samples(model, [_inspect_sample(as_mapping(row)) for row in rows])]


def _inspect_sample(row: Mapping[str, object]) -> ScoredSample:
    scores: dict[str, float | None] = {}
    for scorer, score in as_mapping(row.get("scores")).items():
        value = as_mapping(score).get("value")
        if isinstance(value, Mapping):
            scores |= {f"{scorer}.{name}": _grade(part) for name, part in value.items()}
        else:
            scores[scorer] = _grade(value)
    return ScoredSample(str(row.get("id")), scores, bool(row.get("error")))


def _grade(value: object) -> float | None:
    return _GRADES.get(value) if isinstance(value, str) else numeric_score(value)


_FEEDBACK: Final = "feedback."
_EXAMPLES: Final = ("example_id", "reference_example_id", "example", "reference_example")
_INPUTS: Final = ("inputs.", "input.", "inputs", "input")


def parse_langsmith(text: str) -> list[ScoredRun]:
    """Parses a file of one experiment. Raises InputError for any other file."""
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        rows = list(reader)
    except csv.Error as error:
        raise InputError(f"line {reader.line_num}: not CSV: {error}") from None
    columns = [column for column in reader.fieldnames or () if column]
    metrics = [column for column in columns if column.startswith(_FEEDBACK)]
    if not metrics:
        raise InputError("has no columns feedback.NAME, which hold the scores")
    return [
        ScoredRun.from_samples("", [_langsmith_sample(row, columns, metrics) for row in rows])
    ]


def _langsmith_sample(
    row: Mapping[str, str], columns: list[str], metrics: list[str]
) -> ScoredSample:
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
