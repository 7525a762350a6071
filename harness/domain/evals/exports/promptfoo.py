"""Parses promptfoo's results (`promptfoo eval --output results.json`): each provider with each
prompt is a run, each test an item.
"""

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
)

# Of `failureReason`: 1 is an assertion that failed, which is a score.
_ERROR: Final = 2


def parse_promptfoo(text: str) -> list[ScoredRun]:
    """Parses a results file. Raises InputError for one that is none."""
    document = as_mapping(parse_json(text))
    results = document.get("results")
    rows = as_mapping(results).get("results") if isinstance(results, dict) else results
    if not isinstance(rows, list):
        raise InputError("has no results.results: write it by `promptfoo eval --output`")
    runs: dict[tuple[str, str], list[ScoredSample]] = {}
    for row in map(as_mapping, rows):
        key = (_provider(row), str(row.get("promptIdx", 0)))
        runs.setdefault(key, []).append(_sample(row))
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


def _sample(row: Mapping[str, object]) -> ScoredSample:
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
