"""Receives OpenTelemetry's spans and log records over OTLP/HTTP on this machine, for a time.

The receiver keeps nothing after its end. Its address is this machine's, and bytes, spans and
time have a maximum. It reads JSON, and protobuf with OpenTelemetry's package.
"""

import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import TCPServer
from typing import Any, Final

from evals.suites.source_records import SourceFile, SourceRecord
from harness.frame.errors import ConfigError, InputError
from harness.frame.ports import Clock

MAX_BODY_BYTES: Final = 16 * 2**20  # of one export, also after it is unpacked
# Of all exports; their parsed form takes about ten times as much.
MAX_BYTES: Final = 64 * 2**20
MAX_SPANS: Final = 200_000
_WAIT_S: Final = 0.2  # between two looks at the clock
_READ_S: Final = 10.0  # for one export's bytes
_HOSTS: Final = ("127.0.0.1", "localhost")
_PATHS: Final[Mapping[str, str]] = {"/v1/traces": "trace", "/v1/logs": "logs"}


@dataclass
class Received:
    """The exports that the receiver took."""

    documents: list[Mapping[str, Any]] = field(default_factory=list)
    size: int = 0  # bytes
    spans: int = 0
    refused: str = ""  # the limit that ended the reception; empty if none did


def parse_address(text: str) -> tuple[str, int]:
    """Reads `HOST:PORT`. Raises InputError unless the host is this machine."""
    host, _, port = text.rpartition(":")
    if host not in _HOSTS:
        raise InputError(
            f"--otlp {text}: receive on this machine only, such as --otlp 127.0.0.1:4318"
        )
    if not port.isdigit() or int(port) > 65_535:
        raise InputError(f"--otlp {text}: {port!r} is no port: use a number, such as 4318")
    return host, int(port)


class _Server(TCPServer):
    # An export that comes soon after another attach must not find the port taken.
    allow_reuse_address = True


class OtlpReceiver:
    """Takes exports at /v1/traces and /v1/logs."""

    def __init__(self, host: str, port: int, clock: Clock) -> None:
        """Raises ConfigError if the port is in use."""
        self.received = Received()
        self._clock = clock
        received = self.received

        class Handler(_ExportHandler):
            taken = received

        try:
            self._server = _Server((host, port), Handler)
        except OSError as error:
            raise ConfigError(
                f"cannot receive on {host}:{port}: {error.strerror}; use another port"
            ) from None
        self._server.timeout = _WAIT_S

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def receive(self, for_s: float) -> Iterator[SourceFile]:
        """Receives for a time or up to a limit, then yields the exports."""
        until_s = self._clock.monotonic() + for_s
        try:
            while self._clock.monotonic() < until_s and not self.received.refused:
                self._server.handle_request()
        finally:
            self._server.server_close()
        records = [
            SourceRecord(f"export {number}", document)
            for number, document in enumerate(self.received.documents, start=1)
        ]
        if records:
            # One part, because log records join their span's export.
            yield SourceFile(Path("otlp"), "json", records, {})


class _ExportHandler(BaseHTTPRequestHandler):
    taken: Received
    timeout = _READ_S

    def do_POST(self) -> None:
        signal = _PATHS.get(self.path.partition("?")[0])
        if signal is None:
            self._answer(HTTPStatus.NOT_FOUND, "send spans to /v1/traces, logs to /v1/logs")
            return
        try:
            length = int(self.headers.get("content-length") or 0)
        except ValueError:
            length = 0
        if not 0 < length <= MAX_BODY_BYTES:
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "send a smaller export")
            return
        try:
            body = self._unpack(self.rfile.read(length))
            document = self._decode(signal, body)
        except (ValueError, zlib.error, EOFError, OSError, RecursionError):
            self._answer(HTTPStatus.BAD_REQUEST, "this is no export of OTLP")
            return
        except ImportError:
            text = "send JSON (http/json), or install opentelemetry-exporter-otlp-proto-http"
            self._answer(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, text)
            return
        self._take(document, len(body))

    def _take(self, document: Mapping[str, Any], size: int) -> None:
        taken = self.taken
        spans = _count_spans(document)
        if taken.size + size > MAX_BYTES or taken.spans + spans > MAX_SPANS:
            taken.refused = f"{MAX_SPANS:,} spans or {MAX_BYTES // 2**20} MiB"
            self._answer(HTTPStatus.INSUFFICIENT_STORAGE, "the receiver is full")
            return
        taken.documents.append(document)
        taken.size += size
        taken.spans += spans
        self._answer(HTTPStatus.OK, "")

    def _unpack(self, body: bytes) -> bytes:
        """Unpacks gzip, up to MAX_BODY_BYTES. Raises ValueError for more."""
        if self.headers.get("content-encoding") != "gzip":
            return body
        with gzip.GzipFile(fileobj=io.BytesIO(body)) as file:
            unpacked = file.read(MAX_BODY_BYTES + 1)
        if len(unpacked) > MAX_BODY_BYTES:
            raise ValueError("too large")
        return unpacked

    def _decode(self, signal: str, body: bytes) -> Mapping[str, Any]:
        if "json" in (self.headers.get("content-type") or ""):
            document = json.loads(body)
            if not isinstance(document, dict):
                raise ValueError("no object")
            return document
        return _decode_protobuf(signal, body)

    def _answer(self, status: HTTPStatus, text: str) -> None:
        content = json.dumps({"message": text} if text else {}).encode()
        kind = "application/json"
        if status is HTTPStatus.OK and "json" not in (self.headers.get("content-type") or ""):
            content = b""  # an empty message of protobuf
            kind = "application/x-protobuf"
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Writes no line, because a path may contain a secret."""


def _decode_protobuf(signal: str, body: bytes) -> Mapping[str, Any]:
    """Decodes an export. Raises ImportError without OpenTelemetry's package, ValueError."""
    from google.protobuf.json_format import MessageToDict  # noqa: PLC0415 - an extra
    from google.protobuf.message import DecodeError  # noqa: PLC0415

    if signal == "trace":
        from opentelemetry.proto.collector.trace.v1 import (  # noqa: PLC0415
            trace_service_pb2 as service,
        )

        message: Any = service.ExportTraceServiceRequest()
    else:
        from opentelemetry.proto.collector.logs.v1 import (  # noqa: PLC0415
            logs_service_pb2 as logs_service,
        )

        message = logs_service.ExportLogsServiceRequest()
    try:
        message.ParseFromString(body)
    except DecodeError as error:
        raise ValueError(str(error)) from None
    document: dict[str, Any] = MessageToDict(message)
    return document


def _count_spans(document: Mapping[str, Any]) -> int:
    """Counts an export's spans and log records. Raises nothing for another shape."""
    number = 0
    for resources, scopes, entries in (
        ("resourceSpans", "scopeSpans", "spans"),
        ("resourceLogs", "scopeLogs", "logRecords"),
    ):
        for resource in _list(document, resources):
            for scope in _list(resource, scopes):
                number += len(_list(scope, entries))
    return number


def _list(holder: object, name: str) -> list[Any]:
    value = holder.get(name) if isinstance(holder, Mapping) else None
    return value if isinstance(value, list) else []
