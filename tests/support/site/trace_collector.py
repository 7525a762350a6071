"""A real OTLP/HTTP collector keeps the spans that trace exporters send."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.support.site.http_thread import Exchange, serving


@dataclass(frozen=True)
class CollectedSpan:
    name: str
    kind: int
    trace: str
    span: str
    parent: str
    failed: bool
    attributes: dict[str, Any]


@dataclass
class Collector:
    url: str
    raw: list[bytes] = field(default_factory=list)
    spans: list[CollectedSpan] = field(default_factory=list)
    service: str = ""


@contextmanager
def collecting() -> Iterator[Collector]:
    class Handler(Exchange):
        def exchange(self) -> None:
            body = self.received_body()
            assert self.path == "/v1/traces"
            collector.raw.append(body)
            for part in ExportTraceServiceRequest.FromString(body).resource_spans:
                named = {
                    attribute.key: _value(attribute.value)
                    for attribute in part.resource.attributes
                }
                collector.service = named["service.name"]
                for scope in part.scope_spans:
                    collector.spans += [_collected(span) for span in scope.spans]
            answer = ExportTraceServiceResponse().SerializeToString()
            self.answer(200, answer, {"content-type": "application/x-protobuf"})

    collector = Collector("")
    with serving(Handler) as port:
        collector.url = f"http://127.0.0.1:{port}"
        yield collector


def _collected(span: Span) -> CollectedSpan:
    return CollectedSpan(
        span.name,
        span.kind,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.status.code == 2,
        {attribute.key: _value(attribute.value) for attribute in span.attributes},
    )


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(value) for value in value.array_value.values]
    return getattr(value, kind) if kind else None
