"""Callers of an application that picks its model by a flag of flagd's file: OpenFeature's SDK
with flagd's provider and OpenTelemetry's hook. Arguments: the flags, the file of spans, the
models' base URL.
"""

import itertools
import json
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor

from google.protobuf.json_format import MessageToDict
from openfeature import api
from openfeature.contrib.hook.opentelemetry import TracingHook
from openfeature.contrib.provider.flagd import FlagdProvider
from openfeature.contrib.provider.flagd.config import ResolverType
from openfeature.evaluation_context import EvaluationContext
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import (
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)

FLAGS, SPANS, URL = sys.argv[1:]


class LineExporter(SpanExporter):
    """Writes like the Collector's `file` exporter: one batch of OTLP JSON a line."""

    def export(self, spans):
        with open(SPANS, "a", encoding="utf-8") as file:
            file.write(json.dumps(MessageToDict(encode_spans(spans))) + "\n")
        return SpanExportResult.SUCCESS


def ask(number):
    context = EvaluationContext(f"user-{number}")
    with tracer.start_as_current_span("chat"):
        model = client.get_string_value("support", "sim-base", context)
        body = {
            "model": model,
            "messages": [{"role": "user", "content": "Where is it?"}],
        }
        request = urllib.request.Request(
            f"{URL}/chat/completions",
            json.dumps(body).encode(),
            {"content-type": "application/json"},
        )
        urllib.request.urlopen(request, timeout=30).read()


provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(LineExporter()))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("callers")
api.set_provider_and_wait(
    FlagdProvider(
        resolver_type=ResolverType.FILE,
        offline_flag_source_path=FLAGS,
    )
)
client = api.get_client()
client.add_hooks([TracingHook()])
with ThreadPoolExecutor(4) as threads:
    for batch in itertools.count():
        asked = [threads.submit(ask, batch * 40 + number) for number in range(40)]
        failed = [error for request in asked if (error := request.exception())]
        sys.stdout.write(f"{len(asked)} requests, {len(failed)} failed\n")
