"""Receives outcomes of flags as OpenTelemetry spans at `POST /v1/traces`, in JSON or protobuf.

A span with a flag's evaluation is the outcome of that exposure. The status `ERROR` is bad
feedback. The intake ignores other spans, and gives outcomes to `feedback`.
`router.server.flags` creates the exposures. Sources: OTLP/HTTP, and OpenTelemetry's semantic
conventions for feature flags.
"""

import json
from asyncio import gather
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, Final, NamedTuple

from harness.frame.errors import InputError
from router.frame.json_spans import parse_object
from router.frame.replies import JSON, Header, Reply, error_reply
from router.observers.feedback import FeedbackIntake
from router.recording.port import FeedbackBody, FeedbackVerdict

TRACES_PATH: Final = "/v1/traces"
# Reading a larger batch would delay the worker's requests.
MAX_BATCH_BYTES: Final = 1024 * 1024
# Limits one request, which counts once for the key's limit, to this many outcomes.
MOST_OUTCOMES: Final = 1000
PROTOBUF: Final = b"application/x-protobuf"
_PROTOBUF_HEADER: Final[Header] = (b"content-type", PROTOBUF)
ID_PREFIX: Final = "req_"
_FLAG_KEY = "feature_flag.key"
_CONTEXT = "feature_flag.context.id"
_ERROR = "error.type"
_VARIANT = "feature_flag.result.variant"
_EARLIER_VARIANT = "feature_flag.variant"
_EVALUATION: Final = "feature_flag.evaluation"
_FAILED_CODES: Final = (2, "STATUS_CODE_ERROR")
_Attributes = Mapping[str, object]
# The span's name, status, attributes, its events' attributes, and (id, start, end).
_Span = tuple[object, object, _Attributes, list[_Attributes], tuple[str, int, int]]


class FlagSpan(NamedTuple):
    """A finished span with a flag's evaluation.

    flag: the flag's key, a route's name. variant: the arm that the client reports; empty if
    unknown. id: trace and span id.
    """

    flag: str
    context: str  # the exposure's request id, or the caller's targeting key
    is_failed: bool
    variant: str
    id: str
    start_ns: int  # since 1970, like `end_ns`
    end_ns: int


class OutcomeIntake:
    """Receives spans as feedback about this router's exposures."""

    def __init__(self, feedback: FeedbackIntake) -> None:
        self._feedback = feedback

    async def take(
        self,
        body: bytes,
        key: str,
        *,
        protobuf: bool,
    ) -> Reply:
        """Enters a batch of spans. Answers with the number of spans that it could not use.

        Args:
            key: the id of the API key.

        One failed span makes its exposure a failure. At most MOST_OUTCOMES exposures of a batch
        count.
        """
        try:
            spans = list(read_flag_spans(body, protobuf=protobuf))
        except ImportError:
            message = "this installation reads no protobuf: add swapproof[otel], or send JSON"
            return error_reply(415, message, "unsupported_media_type")
        except InputError as error:
            return error_reply(400, f"the traces: {error}", "invalid_traces")
        # By exposure; a batch may have several spans of it.
        failed_by_exposure: dict[str, bool] = {}
        surplus = 0
        for span in spans:
            exposure = self._feedback.find_exposure(key, span.flag, span.context)
            if not exposure.startswith(ID_PREFIX):
                continue  # other ids belong to other flag systems
            if exposure in failed_by_exposure or len(failed_by_exposure) < MOST_OUTCOMES:
                failed_by_exposure[exposure] = (
                    failed_by_exposure.get(exposure, False) or span.is_failed
                )
            else:
                surplus += 1
        results = await gather(
            *(self._enter_outcome(key, *item) for item in failed_by_exposure.items())
        )
        return _build_reply(results.count(False), surplus, protobuf=protobuf)

    async def _enter_outcome(
        self,
        key: str,
        id_: str,
        is_failed: bool,  # noqa: FBT001
    ) -> bool:
        verdict = FeedbackVerdict.BAD if is_failed else FeedbackVerdict.GOOD
        try:
            return await self._feedback.settle(FeedbackBody(id_, verdict, ""), key) is not None
        except TimeoutError:
            return False


def read_flag_spans(body: bytes, *, protobuf: bool) -> Iterator[FlagSpan]:
    """Yields the spans of a batch with a flag's evaluation.

    Raises InputError, and ImportError if protobuf's package is not installed.
    """
    try:
        for name, status, span_attributes, events, identity in (
            _read_protobuf if protobuf else _read_json
        )(body):
            if name == _EVALUATION:
                continue  # this span ends before the outcome
            evaluation_events = [
                event for event in events if _FLAG_KEY in event and _ERROR not in event
            ]
            for flag_attributes in evaluation_events or (
                [span_attributes] if _FLAG_KEY in span_attributes else []
            ):
                # The span's own attribute is more exact than its event's.
                context = span_attributes.get(_CONTEXT) or flag_attributes.get(_CONTEXT) or ""
                variant = (
                    flag_attributes.get(_VARIANT) or flag_attributes.get(_EARLIER_VARIANT) or ""
                )
                flag = f"{flag_attributes[_FLAG_KEY]}"
                is_failed = status in _FAILED_CODES
                yield FlagSpan(flag, f"{context}", is_failed, f"{variant}", *identity)
    except (AttributeError, TypeError, KeyError, ValueError, OverflowError):
        raise InputError("no ExportTraceServiceRequest of OTLP") from None


def _read_json(body: bytes) -> Iterator[_Span]:
    """Yields the spans of a batch in JSON. The errors of a malformed batch pass through."""

    def attributes(holder: Mapping[str, Any]) -> _Attributes:
        pairs = ((pair["key"], pair["value"]) for pair in holder.get("attributes", ()))
        return {name: value.get("stringValue") for name, value in pairs}

    batch: Mapping[str, Any] = parse_object(body).found
    for resource in batch.get("resourceSpans", ()):
        for span in chain.from_iterable(
            scope.get("spans", ()) for scope in resource.get("scopeSpans", ())
        ):
            events = [attributes(event) for event in span.get("events", ())]
            code = span.get("status", {}).get("code")
            start, end = (int(span.get(f"{edge}TimeUnixNano", 0)) for edge in ("start", "end"))
            identity = (
                f"{span.get('traceId')}-{span.get('spanId')}",
                start,
                end,
            )
            yield span.get("name"), code, attributes(span), events, identity


def _read_protobuf(body: bytes) -> Iterator[_Span]:
    """Yields the spans of a batch in protobuf. Raises ImportError without its package."""
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - of the extra `otel`

    def attributes(pairs: Iterable[Any]) -> _Attributes:
        return {pair.key: pair.value.string_value for pair in pairs}

    try:
        batch = _load_messages().ExportTraceServiceRequest.FromString(body)
    except DecodeError:
        raise InputError("no ExportTraceServiceRequest of OTLP") from None
    for resource in batch.resource_spans:
        for span in chain.from_iterable(scope.spans for scope in resource.scope_spans):
            events = [attributes(event.attributes) for event in span.events]
            times = (span.start_time_unix_nano, span.end_time_unix_nano)
            identity = (f"{span.trace_id.hex()}-{span.span_id.hex()}", *times)
            yield (
                span.name,
                span.status.code,
                attributes(span.attributes),
                events,
                identity,
            )


def _load_messages() -> Any:
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2  # noqa: PLC0415

    return trace_service_pb2


def _build_reply(
    unknown: int,
    surplus: int,
    *,
    protobuf: bool,
) -> Reply:
    reasons = {
        "this router remembers no such evaluation by this key": unknown,
        f"a batch has at most {MOST_OUTCOMES:,} outcomes: send smaller batches": surplus,
    }
    message = "; ".join(f"{count} spans: {why}" for why, count in reasons.items() if count)
    if not protobuf:
        partial = {
            "rejectedSpans": str(unknown + surplus),
            "errorMessage": message,
        }
        answer_fields = {"partialSuccess": partial} if message else {}
        return Reply(200, (JSON,), json.dumps(answer_fields).encode())
    answer = _load_messages().ExportTraceServiceResponse()
    if message:
        answer.partial_success.rejected_spans = unknown + surplus
        answer.partial_success.error_message = message
    return Reply(200, (_PROTOBUF_HEADER,), answer.SerializeToString())
