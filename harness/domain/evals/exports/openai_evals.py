"""Parses logs of OpenAI's evals: the events that `oaieval` records, a JSON object in a line,
and the output items of a run of the Evals API.

Parses the samples of lm-evaluation-harness (`lm_eval --log_samples --output_path …`), a file
for each task: `samples_TASK_DATE.jsonl`.

Parses logs of Inspect, as JSON (`inspect log convert --to json`, or `.eval` files, which are
archives of the same).
"""

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
    return [ScoredRun.from_samples(model, [_sample(as_mapping(row)) for row in rows])]


def _sample(row: Mapping[str, object]) -> ScoredSample:
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
