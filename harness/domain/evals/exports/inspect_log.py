"""Parses logs of Inspect, as JSON (`inspect log convert --to json`, or `.eval` files, which are
archives of the same).
"""

from collections.abc import Mapping
from typing import Final

from harness.domain.errors import InputError
from harness.domain.evals.exports.scored_run import (
    ScoredRun,
    ScoredSample,
    as_mapping,
    numeric_score,
    parse_json,
)

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
