"""The table of readers of request logs, and their recognition by content.

`suite import`, `suite draw` and `attach` read a log by this table. A tool that records requests
is one row of `LOG_READERS`, and one row of `trace_forms` if its records are traces.
"""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import Final

from evals.suites.litellm_logs import read_spend_logs
from evals.suites.logs.trace_forms import TRACE_FORMS
from evals.suites.logs.trace_logs import TRACE_READERS, read_captures
from evals.suites.otel_spans import read_spans
from evals.suites.request_log import RequestLog
from evals.suites.source_records import SourceFile
from harness.frame.errors import InputError

LogReader = Callable[[SourceFile], RequestLog]
CAPTURES: Final = "captures"
LOG_READERS: Final[Mapping[str, LogReader]] = {
    "litellm": read_spend_logs,
    "otel": read_spans,
    **TRACE_READERS,
    CAPTURES: read_captures,
}
LOG_TITLES: Final[Mapping[str, str]] = {
    "litellm": "LiteLLM's spend logs",
    "otel": "OpenTelemetry's spans in OTLP JSON",
    "langfuse": "an export of Langfuse's observations or traces",
    "langsmith": "an export of LangSmith's runs",
    "braintrust": "an export of Braintrust's logs",
    "phoenix": "an export of Phoenix's spans",
    "promptfoo": "results of promptfoo",
    CAPTURES: "captures of Swapproof",
}
_LISTED: Final = 12  # fields in a message


def recognise_log(names: AbstractSet[str]) -> str:
    """Returns the key of LOG_READERS for a record's fields; empty if they are no tool's."""
    if {"messages", "provenance"} <= names:
        return CAPTURES
    if names & {"resourceSpans", "resourceLogs"}:
        return "otel"
    if {"request_id", "call_type"} <= names:
        return "litellm"
    # The order counts: Phoenix's and Braintrust's records also have an id of a trace.
    order = ("promptfoo", "langsmith", "braintrust", "phoenix", "langfuse")
    return next((tool for tool in order if names & TRACE_FORMS[tool].marks), "")


def find_kind(source: SourceFile, wanted: str = "") -> str:
    """Returns the tool that wrote a log. Raises InputError for an unknown or a mixed file.

    Args:
        wanted: the tool that the user named, or that wrote the file's earlier records.
    """
    kind = wanted or recognise_log(source.names | _inner_names(source))
    if not kind:
        names = ", ".join(sorted(source.names)[:_LISTED]) or "none"
        raise InputError(
            f"{source.path}: is no log that Swapproof reads; its fields are {names}. It reads "
            f"{_list_titles()}; name the tool by --from if its fields differ"
        )
    for record in source.records:
        own = recognise_log(record.fields.keys())
        if own and own != kind and not (record.fields.keys() & _marks(kind)):
            raise InputError(
                f"{record.place}: looks like {LOG_TITLES[own]}, and the records before it "
                f"like {LOG_TITLES[kind]}: give each tool's records in a file of their own"
            )
    return kind


def _inner_names(source: SourceFile) -> AbstractSet[str]:
    """Returns the fields of the entries of a document with lists, such as `{"runs": […]}`."""
    if len(source.records) != 1:
        return frozenset()
    (record,) = source.records
    return {
        name
        for value in record.fields.values()
        if isinstance(value, list) and value and isinstance(value[0], dict)
        for name in value[0]
    }


def _marks(kind: str) -> AbstractSet[str]:
    form = TRACE_FORMS.get(kind)
    return form.marks if form else frozenset()


def _list_titles() -> str:
    *first, last = LOG_TITLES.values()
    return f"{', '.join(first)} and {last}"
