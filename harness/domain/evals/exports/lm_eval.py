"""Parses the samples of lm-evaluation-harness (`lm_eval --log_samples --output_path …`), a file
for each task: `samples_TASK_DATE.jsonl`.
"""

from collections.abc import Mapping

from harness.domain.errors import InputError
from harness.domain.evals.exports.scored_run import (
    ScoredRun,
    ScoredSample,
    numeric_scores,
    parse_json_lines,
)


def parse_lm_eval(text: str) -> list[ScoredRun]:
    """Parses a task's samples. Raises InputError for a file that has none."""
    merged: dict[str, dict[str, float | None]] = {}
    for line, row in parse_json_lines(text):
        if "doc_id" not in row:
            raise InputError(f"line {line}: has no doc_id: give the file samples_TASK_….jsonl")
        # A filter has a row of its own for each document.
        merged.setdefault(str(row["doc_id"]), {}).update(_scores(row))
    return [
        ScoredRun.from_samples("", [ScoredSample(item, own) for item, own in merged.items()])
    ]


def _scores(row: Mapping[str, object]) -> dict[str, float | None]:
    """The metrics that the row names, with its filter where that is not the plain one."""
    names = row.get("metrics")
    known = [str(name) for name in names] if isinstance(names, list) else []
    filtered = str(row.get("filter", "none"))
    ending = "" if filtered == "none" else f",{filtered}"
    found = numeric_scores({name: row.get(name) for name in known})
    return {f"{name}{ending}": score for name, score in found.items()}
