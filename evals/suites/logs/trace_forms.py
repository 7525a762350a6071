"""The fields of other tools' traces, one row a tool. `trace_logs` reads them.

A place is a field's path, such as `metrics.start`; a table may have it as one column's name.
The first place with a value counts. Sources: each tool's published exports, ten of them in
`tests/world/logs`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

Places = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TraceForm:
    """Where a tool's record of one call has the facts of a `LoggedRequest`."""

    marks: frozenset[str]  # fields that identify the tool's records
    kind: Places  # the field that tells model calls from other work
    calls: frozenset[str]  # its values for a model call, in lower case; empty: all are calls
    id: Places
    start: Places
    end: Places
    model: Places
    question: Places  # messages, or a text
    answer: Places
    provider: Places = ()
    duration_s: Places = ()
    duration_ms: Places = ()
    input_tokens: Places = ()
    output_tokens: Places = ()
    # A mapping of kinds of tokens to counts. The kinds with `input` in their name add up, as
    # do those with `output`.
    usage: Places = ()
    cost: Places = ()
    caller: Places = ()
    conversation: Places = ()
    trace: Places = ()
    source: Places = ()
    error: Places = ()
    # A field and its values, in lower case, that mark a failure. Without the field, a value of
    # `error` does.
    failure: Places = ()
    failures: frozenset[str] = frozenset({"error"})
    tools: Places = ()
    settings: Places = ()  # a mapping of the request's settings
    children: Places = ()  # a list of further records
    handed_down: Places = ()  # fields of a record that its children have too


TRACE_FORMS: Final[Mapping[str, TraceForm]] = {
    # The API's observations, the export of the page, and the export to a blob storage.
    "langfuse": TraceForm(
        marks=frozenset(
            {
                "traceId",
                "trace_id",
                "observations",
                "usageDetails",
                "usage_details",
                "calculatedTotalCost",
                "providedModelName",
                "provided_model_name",
                "modelParameters",
            }
        ),
        kind=("type",),
        calls=frozenset({"generation"}),
        id=("id",),
        start=("startTime", "start_time", "timestamp"),
        end=("endTime", "end_time"),
        model=(
            "model",
            "providedModelName",
            "provided_model_name",
            "internalModelId",
        ),
        question=("input",),
        answer=("output",),
        duration_s=("latency",),
        input_tokens=(
            "usage.input",
            "usage.promptTokens",
            "promptTokens",
            "inputUsage",
            "prompt_tokens",
        ),
        output_tokens=(
            "usage.output",
            "usage.completionTokens",
            "completionTokens",
            "outputUsage",
            "completion_tokens",
        ),
        usage=("usageDetails", "usage_details"),
        cost=(
            "costDetails.total",
            "cost_details.total",
            "calculatedTotalCost",
            "totalCost",
            "total_cost",
        ),
        caller=("userId", "user_id"),
        conversation=("sessionId", "session_id"),
        trace=("traceId", "trace_id"),
        source=("traceName", "trace_name"),
        error=("statusMessage", "status_message"),
        failure=("level",),
        tools=("input.tools", "toolDefinitions", "tool_definitions"),
        settings=("modelParameters", "model_parameters"),
        children=("observations",),
        handed_down=("userId", "sessionId", "user_id", "session_id"),
    ),
    "langsmith": TraceForm(
        marks=frozenset({"run_type", "dotted_order"}),
        kind=("run_type",),
        calls=frozenset({"llm"}),
        id=("id",),
        start=("start_time",),
        end=("end_time",),
        model=(
            "extra.metadata.ls_model_name",
            "extra.invocation_params.model",
            "extra.invocation_params.model_name",
            "metadata.ls_model_name",
            "outputs.llm_output.model_name",
            "outputs.model",
            "inputs.model",
        ),
        question=("inputs.messages", "inputs.prompts", "inputs.input", "inputs"),
        answer=("outputs",),
        provider=("extra.metadata.ls_provider", "metadata.ls_provider"),
        duration_s=("latency_seconds", "latency"),
        input_tokens=(
            "prompt_tokens",
            "outputs.usage_metadata.input_tokens",
            "outputs.llm_output.token_usage.prompt_tokens",
            "extra.metadata.usage_metadata.input_tokens",
        ),
        output_tokens=(
            "completion_tokens",
            "outputs.usage_metadata.output_tokens",
            "outputs.llm_output.token_usage.completion_tokens",
            "extra.metadata.usage_metadata.output_tokens",
        ),
        cost=("total_cost", "extra.metadata.usage_metadata.total_cost"),
        caller=("extra.metadata.user_id", "metadata.user_id"),
        # A run's own `session_id` is the id of its project.
        conversation=(
            "extra.metadata.session_id",
            "extra.metadata.thread_id",
            "extra.metadata.conversation_id",
            "metadata.thread_id",
            "thread_id",
        ),
        trace=("trace_id",),
        source=("session_name",),
        error=("error",),
        failure=("status",),
        tools=("extra.invocation_params.tools", "inputs.tools"),
        settings=("extra.invocation_params",),
        children=("child_runs", "runs"),
    ),
    "braintrust": TraceForm(
        marks=frozenset({"span_attributes", "root_span_id", "_xact_id"}),
        kind=("span_attributes.type",),
        calls=frozenset({"llm"}),
        id=("span_id", "id"),
        start=("metrics.start", "created"),
        end=("metrics.end",),
        model=("metadata.model",),
        question=("input",),
        answer=("output",),
        provider=("metadata.provider",),
        input_tokens=("metrics.prompt_tokens",),
        output_tokens=("metrics.completion_tokens",),
        cost=("metrics.estimated_cost", "metrics.total_cost", "metrics.cost"),
        caller=("metadata.user_id", "metadata.user"),
        conversation=(
            "metadata.session_id",
            "metadata.conversation_id",
            "metadata.thread_id",
        ),
        trace=("root_span_id",),
        error=("error",),
        tools=("metadata.tools",),
        settings=("metadata",),
        children=("events", "spans"),
    ),
    # The API's spans, and the table of `get_spans_dataframe`.
    "phoenix": TraceForm(
        marks=frozenset({"span_kind", "context.span_id", "statusCode"}),
        kind=("span_kind", "spanKind", "attributes.openinference.span.kind"),
        calls=frozenset({"llm"}),
        id=("context.span_id", "id"),
        start=("start_time", "startTime"),
        end=("end_time", "endTime"),
        model=("attributes.llm.model_name", "attributes.gen_ai.request.model"),
        question=("attributes.llm.input_messages", "attributes.input.value"),
        answer=("attributes.llm.output_messages", "attributes.output.value"),
        provider=("attributes.llm.provider", "attributes.llm.system"),
        duration_ms=("latencyMs", "latency_ms"),
        input_tokens=("attributes.llm.token_count.prompt",),
        output_tokens=("attributes.llm.token_count.completion",),
        cost=("attributes.llm.cost.total",),
        caller=("attributes.user.id",),
        conversation=("attributes.session.id",),
        trace=("context.trace_id", "trace_id", "traceId"),
        error=("attributes.exception.type",),
        failure=("status_code", "statusCode"),
        tools=("attributes.llm.tools",),
        settings=("attributes.llm.invocation_parameters",),
        children=("spans",),
    ),
    "promptfoo": TraceForm(
        marks=frozenset({"evalId", "promptIdx", "testIdx"}),
        kind=(),
        calls=frozenset(),
        id=("id",),
        start=("timestamp", "createdAt"),
        end=(),
        model=("provider.id", "provider"),
        question=("prompt.raw", "prompt"),
        answer=("response.output",),
        duration_ms=("latencyMs",),
        input_tokens=("response.tokenUsage.prompt", "tokenUsage.prompt"),
        output_tokens=("response.tokenUsage.completion", "tokenUsage.completion"),
        cost=("cost", "response.cost"),
        error=("response.error",),
        children=("results.results", "results"),
        handed_down=("results.timestamp", "createdAt"),
    ),
}
