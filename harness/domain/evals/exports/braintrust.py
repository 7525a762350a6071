"""Parses a Braintrust experiment's rows, as its API and its export give them: a list, `events`,
or one in a line. Rows of one input are one item, asked several times.
"""

import json
from collections.abc import Mapping

from harness.domain.errors import InputError
from harness.domain.evals.exports.scored_run import (
    ScoredRun,
    ScoredSample,
    as_mapping,
    numeric_scores,
    parse_json_rows,
)


def parse_braintrust(text: str) -> list[ScoredRun]:
    """Parses an export. Raises InputError for one that is none."""
    rows = [row for row in parse_json_rows(text, "events", "rows", "data") if _is_root(row)]
    if not any("scores" in row for row in rows):
        raise InputError("has no rows with `scores`: export the experiment's rows as JSON")
    runs: dict[str, list[ScoredSample]] = {}
    for row in rows:
        name = str(row.get("experiment_name") or row.get("experiment_id") or "")
        scores = numeric_scores(as_mapping(row.get("scores")))
        sample = ScoredSample(_item(row), scores, bool(row.get("error")))
        runs.setdefault(name, []).append(sample)
    return [ScoredRun.from_samples(name, samples) for name, samples in runs.items()]


def _is_root(row: Mapping[str, object]) -> bool:
    """Whether a row is a test case, and not a span within one."""
    if isinstance(row.get("is_root"), bool):
        return bool(row["is_root"])
    parents = row.get("span_parents")
    return not parents and row.get("span_id") == row.get("root_span_id", row.get("span_id"))


def _item(row: Mapping[str, object]) -> str:
    """The dataset's record, or else the input: by these Braintrust compares experiments."""
    origin = as_mapping(row.get("origin"))
    record = row.get("dataset_record_id") or origin.get("id")
    return str(record) if record else json.dumps(row.get("input"), sort_keys=True)
