"""Takes outcomes of flags as OpenTelemetry spans at `POST /v1/traces`, by OTLP/HTTP, in
JSON or protobuf.

A span in which a flag was evaluated is the outcome of that exposure; the status `ERROR` is
bad feedback. Ignores other spans. An outcome goes the same way as feedback (`feedback`);
exposures are made in `router.server.flags`. Source: OpenTelemetry's semantic conventions
for feature flags.
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
# So that one request, which counts once for the key's limit, is not thousands of opinions.
MOST_OUTCOMES: Final = 1000
PROTOBUF: Final = b"application/x-protobuf"
_PROTOBUF_HEADER: Final[Header] = (b"content-type", PROTOBUF)
ID_PREFIX: Final = "req_"
_FLAG = "feature_flag.key"
_CONTEXT = "feature_flag.context.id"
_ERROR = "error.type"
_VARIANT = "feature_flag.result.variant"
_EARLIER_VARIANT = "feature_flag.variant"
_EVALUATION: Final = "feature_flag.evaluation"
_FAILED: Final = (2, "STATUS_CODE_ERROR")
_Attributes = Mapping[str, object]
# The span's name, status, attributes, its events' attributes, and (id, start, end).
_Span = tuple[object, object, _Attributes, list[_Attributes], tuple[str, int, int]]


class FlagSpan(NamedTuple):
    """A finished span in which a flag was evaluated.

    flag: the flag's key, a route's name. variant: the arm, as the client reports it; empty
    if unknown. id: trace and span id.
    """

    flag: str
    context: str  # the exposure's request id, or the caller's targeting key
    is_failed: bool
    variant: str
    id: str
    start_ns: int  # since 1970, as `end_ns`
    end_ns: int


class OutcomeIntake:
    """Takes spans as feedback about this router's exposures."""

    def __init__(self, feedback: FeedbackIntake) -> None:
        self._feedback = feedback

    async def take(
        self,
        body: bytes,
        key: str,
        *,
        protobuf: bool,
    ) -> Reply:
        """Enters a batch of spans, and answers with the number of spans that it could not
        use.

        key: the id of the API key. If several spans belong to one exposure, one failure is
        enough. At most MOST_OUTCOMES exposures of a batch count.
        """
        try:
            spans = list(read_flag_spans(body, protobuf=protobuf))
        except ImportError:
            message = "this installation reads no protobuf: add swapgate[otel], or send JSON"
            return error_reply(415, message, "unsupported_media_type")
        except InputError as error:
            return error_reply(400, f"the traces: {error}", "invalid_traces")
        failed: dict[str, bool] = {}  # by exposure; a batch may have several spans of it
        surplus = 0
        for span in spans:
            id_ = self._feedback.find_exposure(key, span.flag, span.context)
            if not id_.startswith(ID_PREFIX):
                continue  # other ids belong to other flag systems
            if id_ in failed or len(failed) < MOST_OUTCOMES:
                failed[id_] = failed.get(id_, False) or span.is_failed
            else:
                surplus += 1
        found = await gather(*(self._settle(key, *item) for item in failed.items()))
        return _reply(found.count(False), surplus, protobuf=protobuf)

    async def _settle(
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
    """Yields the spans of a batch in which a flag was evaluated.

    Raises InputError, and ImportError if protobuf's package is not installed.
    """
    try:
        for name, status, own, events, itself in (_of_protobuf if protobuf else _of_json)(body):
            if name == _EVALUATION:
                continue  # this span ends before the outcome
            evaluated = [event for event in events if _FLAG in event and _ERROR not in event]
            for flagged in evaluated or ([own] if _FLAG in own else []):
                # The span's own attribute is more exact than its event's.
                context = own.get(_CONTEXT) or flagged.get(_CONTEXT) or ""
                variant = flagged.get(_VARIANT) or flagged.get(_EARLIER_VARIANT) or ""
                flag = f"{flagged[_FLAG]}"
                is_failed = status in _FAILED
                yield FlagSpan(flag, f"{context}", is_failed, f"{variant}", *itself)
    except (AttributeError, TypeError, KeyError, ValueError, OverflowError):
        raise InputError("no ExportTraceServiceRequest of OTLP") from None


def _of_json(body: bytes) -> Iterator[_Span]:
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
            start, end = (int(span.get(f"{at}TimeUnixNano", 0)) for at in ("start", "end"))
            itself = (
                f"{span.get('traceId')}-{span.get('spanId')}",
                start,
                end,
            )
            yield span.get("name"), code, attributes(span), events, itself


def _of_protobuf(body: bytes) -> Iterator[_Span]:
    """Yields the spans of a batch in protobuf. Raises ImportError without its package."""
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - of the extra `otel`

    def attributes(pairs: Iterable[Any]) -> _Attributes:
        return {pair.key: pair.value.string_value for pair in pairs}

    try:
        batch = _messages().ExportTraceServiceRequest.FromString(body)
    except DecodeError:
        raise InputError("no ExportTraceServiceRequest of OTLP") from None
    for resource in batch.resource_spans:
        for span in chain.from_iterable(scope.spans for scope in resource.scope_spans):
            events = [attributes(event.attributes) for event in span.events]
            times = (span.start_time_unix_nano, span.end_time_unix_nano)
            itself = (f"{span.trace_id.hex()}-{span.span_id.hex()}", *times)
            yield (
                span.name,
                span.status.code,
                attributes(span.attributes),
                events,
                itself,
            )


def _messages() -> Any:
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2  # noqa: PLC0415

    return trace_service_pb2


def _reply(
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
        answered = {"partialSuccess": partial} if message else {}
        return Reply(200, (JSON,), json.dumps(answered).encode())
    answer = _messages().ExportTraceServiceResponse()
    if message:
        answer.partial_success.rejected_spans = unknown + surplus
        answer.partial_success.error_message = message
    return Reply(200, (_PROTOBUF_HEADER,), answer.SerializeToString())
