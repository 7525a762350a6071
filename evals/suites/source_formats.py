"""The formats that `swapproof suite import` reads, recognised by content or named by --from.

A new data set format is one row of `FORMATS`. The conversion is in `dataset_import`.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Final

from evals.suites import openai_evals, promptfoo
from evals.suites.source_records import SourceFile
from harness.frame.configuration.config_conversion import SUITE_SOURCES
from harness.frame.errors import InputError


@dataclass(frozen=True, slots=True)
class DatasetFormat:
    """A tool's field names, in snake_case. marks: fields that identify the tool's records."""

    input: str
    targets: tuple[str, ...]
    marks: frozenset[str]
    metadata: str = "metadata"
    answer: str = "output"  # the model's answer, in exports of traces

    def for_fields(self, names: AbstractSet[str]) -> "DatasetFormat":
        """Adapts the format to a file's fields.

        The `outputs` of LangSmith's runs are the model's answers, not labels.
        """
        if self.input == "inputs" and names & _RUN_MARKS:
            return replace(
                self,
                targets=("reference_outputs", "reference"),
                answer="outputs",
            )
        return self


_RUN_MARKS: Final = frozenset(
    {
        "run_type",
        "dotted_order",
        "feedback_stats",
        "reference_example_id",
        "reference",
    }
    | {"reference_outputs"}
)
FORMATS: Final[Mapping[str, DatasetFormat]] = {
    "langfuse": DatasetFormat(
        "input",
        ("expected_output",),
        frozenset(
            {
                "datasetId",
                "datasetName",
                "sourceTraceId",
                "htmlPath",
                "htmlSourcePath",
            }
        )
        | {"dataset_name", "source_trace_id", "traceId", "observationCount"},
    ),
    "langsmith": DatasetFormat("inputs", ("outputs",), frozenset({"inputs"})),
    "openai-evals": DatasetFormat("input", ("ideal",), frozenset({"ideal"})),
    "braintrust": DatasetFormat(
        "input",
        ("expected",),
        frozenset({"_xact_id", "dataset_id", "root_span_id", "span_attributes"}),
    ),
    "deepeval": DatasetFormat(
        "input",
        ("expected_output",),
        frozenset({"expected_output", "expectedOutput", "additional_metadata"}),
        "additional_metadata",
        "actual_output",
    ),
    # These marks identify a log. Data sets of `json_dataset` and `csv_dataset` need --from.
    "inspect": DatasetFormat("input", ("target",), frozenset({"eval", "plan"})),
}
PLAIN: Final = DatasetFormat("input", (), frozenset(), answer="")
SPELLINGS: Final[Mapping[str, str]] = {
    "expectedOutput": "expected_output",
    "additionalMetadata": "additional_metadata",
    "actualOutput": "actual_output",
}
CAPTURES: Final = "captures"
REQUESTS: Final = ("otel", "litellm", "phoenix")  # logs of requests, without labels
_TITLES: Final[Mapping[str, str]] = {
    "promptfoo": "a promptfoo configuration",
    "langfuse": "an export of Langfuse (fields input, expectedOutput)",
    "langsmith": "an export of LangSmith (fields inputs, outputs)",
    "openai-evals": "an OpenAI eval (field testing_criteria) or samples (fields input, ideal)",
    "braintrust": "an export of Braintrust (fields input, expected)",
    "deepeval": "a data set of DeepEval (fields input, expected_output)",
    "inspect": "a data set or JSON log of Inspect (fields input, target)",
    "csv": "a CSV file",
    "jsonl": "JSON lines",
    "json": "a JSON file",
    "otel": "OTLP JSON with spans",
    "litellm": "LiteLLM's spend logs (fields request_id, call_type)",
    "phoenix": "an export of Phoenix's spans (fields span_kind, attributes)",
    CAPTURES: "labelled captures of Swapproof",
}
# Fields that identify a file as a tool's results. Results contain scores, but no items.
_RESULTS: Final[Mapping[str, str]] = {
    "testCases": "a test run of DeepEval",
    "doc_id": "samples of lm-eval",
    "sample_id": "a log of OpenAI evals",
    "evalId": "results of promptfoo",
    "experiment_id": "",
}


def recognise(source: SourceFile) -> str:
    """Returns one of SUITE_SOURCES, `captures`, or `json` for a list of objects."""
    names = source.names
    if (
        source.records
        and {"label", "messages", "provenance"} <= source.records[0].fields.keys()
    ):
        return CAPTURES
    if names & {"resourceSpans", "resourceLogs"}:
        return "otel"
    if {"request_id", "call_type"} <= names:
        return "litellm"
    if "span_kind" in names:
        return "phoenix"
    if len(source.records) == 1 and promptfoo.is_promptfoo(source.records[0].fields):
        return "promptfoo"
    return next(
        (name for name, form in FORMATS.items() if form.marks & names),
        source.form,
    )


def check_source(source: SourceFile, wanted: str) -> str:
    """Returns the source's format.

    Args:
        wanted: one of SUITE_SOURCES, or empty for any.

    Raises InputError if the file has another format, or contains results.
    """
    if wanted in ("", "openai-evals") and openai_evals.is_eval(source):
        return "openai-evals"
    if wanted in ("", "openai-evals") and openai_evals.is_eval_data(source):
        raise InputError(
            f"{source.path}: has items of an OpenAI eval without its graders: `swapproof suite "
            f"import EVAL.json --items {source.path}`; `swapproof try` compares results"
        )
    source_format = recognise(source)
    if results_kind := next(
        (text for name, text in _RESULTS.items() if name in source.names), ""
    ):
        raise InputError(
            f"{source.path}: looks like {results_kind}, which has results and no items: "
            f"compare the results by `swapproof try {source.path}`"
        )
    if not wanted or wanted == source.form:  # `json` or `csv` may have any fields
        return source_format
    if wanted == source_format or _has_fields(source, wanted):
        return wanted
    fields = ", ".join(sorted(source.names)[:12]) or "none"
    advice = (
        f"use `--from {source_format}`" if source_format in SUITE_SOURCES else "omit `--from`"
    )
    raise InputError(
        f"{source.path}: is not {_TITLES[wanted]}: it looks like {_TITLES[source_format]}, "
        f"with the fields {fields}; {advice}, or give another file"
    )


def _has_fields(source: SourceFile, wanted: str) -> bool:
    """Returns whether the fields could be of the wanted format, although its marks are
    missing.
    """
    form = FORMATS.get(wanted)
    if form is None:
        return False
    names = {SPELLINGS.get(name, name) for name in source.names}
    return form.input in names and bool({*form.targets, form.answer} & names)
