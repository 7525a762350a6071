"""The table of formats: what `gate decide --from` reads, each with its parser."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from harness.domain.evals.exports.langsmith import (
    parse_braintrust,
    parse_langsmith,
    parse_promptfoo,
)
from harness.domain.evals.exports.openai_evals import (
    parse_inspect,
    parse_lm_eval,
    parse_openai_evals,
)
from harness.domain.evals.exports.scored_run import ScoredRun


@dataclass(frozen=True, slots=True)
class ExportFormat:
    """Describes a format of exported results."""

    title: str  # of the tool
    files: str  # what a file of it is, for people
    parse: Callable[[str], list[ScoredRun]]
    metric: str = ""  # the one that is meant where nobody names one


EXPORT_FORMATS: Final[Mapping[str, ExportFormat]] = {
    "promptfoo": ExportFormat(
        "promptfoo", "`promptfoo eval --output results.json`", parse_promptfoo, "score"
    ),
    "braintrust": ExportFormat("Braintrust", "rows of an experiment, JSON", parse_braintrust),
    "langsmith": ExportFormat("LangSmith", "results of an experiment, CSV", parse_langsmith),
    "openai-evals": ExportFormat(
        "OpenAI evals", "a log of `oaieval`, or output items of a run", parse_openai_evals
    ),
    "lm-eval": ExportFormat(
        "lm-evaluation-harness", "`samples_TASK_….jsonl` of --log_samples", parse_lm_eval, "acc"
    ),
    "inspect": ExportFormat("Inspect", "a log, `.eval` or `.json`", parse_inspect),
}
