"""Parses logs of OpenAI's evals: the events that `oaieval` records, a JSON object in a line,
and the output items of a run of the Evals API.
"""

from collections.abc import Mapping, Sequence

from harness.domain.errors import InputError
from harness.domain.evals.exports.scored_run import (
    ScoredRun,
    ScoredSample,
    as_mapping,
    numeric_score,
    numeric_scores,
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
