"""Exports spans to OpenTelemetry, named by the GenAI semantic conventions.

The router imports it only if the settings configure tracing. `request_tracing` decides when a
span begins and ends, and catches this module's faults. The tracer exports texts of requests and
answers only if the settings allow it and the client did not refuse copies.
"""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from harness.frame.failures import FailureClass
from harness.providers.models.capabilities import Endpoint
from harness.routing.settings import TracingSettings
from router.frame.body import ClientRequest
from router.frame.replies import Header
from router.observers.capture_head import is_copy_refused
from router.request.client_directives import client_headers
from router.request.request_state import RoutedRequest, UpstreamAnswer
from router.request.routed_response import RoutedResponse
from router.request.stream_relay import CommittedStream, OnEnd
from router.snapshot.compiled import CompiledTarget

OPERATIONS: Final[Mapping[Endpoint, str]] = {Endpoint.EMBEDDINGS: "embeddings"}
# The conventions' names for well-known providers, by our kind.
PROVIDERS: Final[Mapping[str, str]] = {
    "azure_openai": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "vertex": "gcp.vertex_ai",
}
# The tracer does not parse a longer answer for its finish reasons.
MAX_PARSED_BYTES: Final = 1024 * 1024
# Seconds for one try of the exporter: an unavailable collector must not delay an exit.
EXPORT_S: Final = 5
TRACE: Final = {b"traceparent": b"", b"tracestate": b""}
CONTEXT: Final = TraceContextTextMapPropagator()
Attributes = dict[str, Any]


class OpenTelemetry:
    """Traces requests.

    settings: `otlp_endpoint` is without `/v1/traces`; empty to use the OTEL_* variables.
    """

    def __init__(self, settings: TracingSettings) -> None:
        self._exports_content = settings.content
        resource_attributes = (
            {} if os.environ.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: "swapproof-router"}
        )
        self._provider_name = TracerProvider(
            resource=Resource.create(resource_attributes), shutdown_on_exit=False
        )
        url = f"{settings.otlp_endpoint.rstrip('/')}/v1/traces"
        exporter = OTLPSpanExporter(url if settings.otlp_endpoint else None, timeout=EXPORT_S)
        self._provider_name.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider_name.get_tracer("swapproof.router")

    def begin(self, observed: RoutedRequest) -> "OpenSpan":
        """Begins a request's span, below the client's span if its headers name one."""
        request = observed.request
        route = observed.route.route.name
        operation = OPERATIONS.get(request.endpoint, "chat")
        carrier = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in client_headers(observed.scope, TRACE)
        }
        span = self._tracer.start_span(
            f"{operation} {route}",
            CONTEXT.extract(carrier),
            SpanKind.SERVER,
            {
                "gen_ai.operation.name": operation,
                "gen_ai.request.model": route,
                "gen_ai.request.stream": request.stream,
                "swapproof.route": route,
                "swapproof.arm": observed.arm.value,
                "swapproof.revision": observed.revision,
                "swapproof.request_id": observed.request_id,
                **_describe_request(request),
            },
        )
        exports_content = self._exports_content and not is_copy_refused(observed)
        if exports_content:
            _set_content(span, "gen_ai.input.messages", request.value("messages"))
        return OpenSpan(self._tracer, span, operation, exports_content=exports_content)

    def close(self) -> None:
        """Sends the waiting spans, and ends the exporter."""
        self._provider_name.shutdown()


class OpenSpan:
    """One request's span, with the current attempt's span below it."""

    def __init__(
        self,
        tracer: Tracer,
        span: Span,
        operation: str,
        *,
        exports_content: bool,
    ) -> None:
        self._tracer = tracer
        self._span = span
        self._operation = operation
        self._exports_content = exports_content
        self._current = span

    @property
    def passed_up(self) -> tuple[Header, ...]:
        carrier: dict[str, str] = {}
        CONTEXT.inject(carrier, trace.set_span_in_context(self._current))
        return tuple((name.encode(), value.encode()) for name, value in carrier.items())

    def attempt(
        self,
        upstream: CompiledTarget,
        number: int,
        settle: OnEnd,
    ) -> OnEnd:
        """Begins an attempt's span. The returned function ends it, then settles the attempt."""
        span = self._current = self._tracer.start_span(
            f"{self._operation} {upstream.target.model}",
            trace.set_span_in_context(self._span),
            SpanKind.CLIENT,
            {
                "gen_ai.operation.name": self._operation,
                "gen_ai.request.model": upstream.target.model,
                "gen_ai.provider.name": _provider_name(upstream),
                "swapproof.target": upstream.name,
                "swapproof.attempt": number,
            },
        )

        def end_attempt(outcome: FailureClass | None) -> None:
            if outcome is not None:
                _mark_failed(span, outcome.value)
            span.end()
            settle(outcome)

        return end_attempt

    def end(self, response: RoutedResponse) -> None:
        """Ends the request's span with its outcome, tokens and target."""
        span = self._span
        progress = response.progress
        span.set_attribute("swapproof.outcome", response.outcome)
        span.set_attribute("swapproof.attempts", len(progress.attempts))
        if (upstream := progress.upstream) is not None:
            span.set_attributes(
                {
                    "gen_ai.provider.name": _provider_name(upstream),
                    "gen_ai.response.model": upstream.target.model,
                    "gen_ai.usage.input_tokens": response.usage.input_tokens,
                    "gen_ai.usage.output_tokens": response.usage.output_tokens,
                    "swapproof.target": upstream.name,
                }
            )
        if progress.first_token_s is not None:
            span.set_attribute("gen_ai.response.time_to_first_chunk", progress.first_token_s)
        self._describe_answer(progress.result)
        if response.error:
            _mark_failed(span, response.error)
        span.end()

    def _describe_answer(self, result: object) -> None:
        answer = _parse_answer(result.body) if isinstance(result, UpstreamAnswer) else {}
        streamed_reasons = (
            result.events.finish_reasons if isinstance(result, CommittedStream) else ()
        )
        reasons = list(streamed_reasons) or read_finish_reasons(answer)
        if reasons:
            self._span.set_attribute("gen_ai.response.finish_reasons", reasons)
        if self._exports_content and answer:
            outputs = answer.get("choices") or answer.get("content") or answer.get("output")
            _set_content(self._span, "gen_ai.output.messages", outputs)


def read_finish_reasons(answer: Mapping[str, Any]) -> Sequence[str]:
    """Returns the finish reasons of a plain answer, in any of the protocols."""
    choices = answer.get("choices")
    if isinstance(choices, list):
        reasons = [
            choice.get("finish_reason") for choice in choices if isinstance(choice, dict)
        ]
    else:
        reasons = [answer.get("stop_reason") or answer.get("status")]
    return [reason for reason in reasons if isinstance(reason, str)]


def _describe_request(request: ClientRequest) -> Attributes:
    number_types = {
        "max_tokens": int,
        "temperature": float,
        "top_p": float,
    }
    values = {name: request.value(name) for name in number_types}
    return {
        f"gen_ai.request.{name}": number_types[name](value)
        for name, value in values.items()
        if isinstance(value, int | float)
    }


def _provider_name(upstream: CompiledTarget) -> str:
    kind = upstream.provider.kind
    return upstream.provider.name if kind == "custom" else PROVIDERS.get(kind, kind)


def _mark_failed(span: Span, error: str) -> None:
    span.set_attribute("error.type", error)
    span.set_status(Status(StatusCode.ERROR))


def _set_content(
    span: Span,
    name: str,
    value: object,
) -> None:
    if value is not None:
        span.set_attribute(name, json.dumps(value, ensure_ascii=False))


def _parse_answer(body: bytes) -> Mapping[str, Any]:
    if not body or len(body) > MAX_PARSED_BYTES:
        return {}
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}
