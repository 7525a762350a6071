"""Sends audit events and signed checkpoints as lines of JSON: in an HTTP POST, as messages of
syslog (RFC 5424) over TCP or TLS, or appended to a file.

A receiver has taken a batch when it says so: HTTP by a 2xx; syslog, which has no answers, by
closing the connection in its turn after it has read all; a file by `fsync`.
"""

import os
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from harness.control.operations.audit_export import event_line
from harness.domain.errors import ConfigError, DeliveryFailed
from harness.domain.operations.audit import AuditEvent, AuditPosition
from harness.domain.settings import AuditSettings, AuditSink
from harness.ports import Clock, Signatures
from harness.runtime.audit_checkpoint import checkpoint_line
from harness.runtime.outbound.guarded_http import ClosedAddress, GuardedHttpClient, check_peer
from harness.runtime.secret_files import named_secret

# Facility "log audit" (13), severity "informational" (6).
SYSLOG_PRIORITY: Final = 13 * 8 + 6
EVENTS_HEADER: Final = "x-swapgate-events"


class ConfiguredAuditSinks:
    """Implements ports.AuditSinks. Reads tokens when they are needed."""

    def __init__(self, settings: AuditSettings, signatures: Signatures, clock: Clock) -> None:
        self._sinks = {sink.name: sink for sink in settings.sinks}
        self._timeout_s = settings.timeout_s
        self._signatures = signatures
        self._clock = clock

    def names(self) -> Sequence[str]:
        return list(self._sinks)

    def takes_events(self, sink: str) -> bool:
        return self._sinks[sink].events

    def send(self, sink: str, events: Sequence[AuditEvent], end: AuditPosition) -> None:
        known = self._sinks[sink]
        lines = [event_line(event) for event in events]
        lines.append(checkpoint_line(end, self._clock.now(), self._signatures))
        try:
            self._send(known, lines, f"{events[0].number}-{end.number}" if events else "")
        except ConfigError as error:
            raise DeliveryFailed(str(error)) from None
        except TimeoutError:
            raise DeliveryFailed(f"it did not answer within {self._timeout_s:g} s") from None
        except ClosedAddress as error:
            raise DeliveryFailed(str(error)) from None
        except (OSError, HTTPException, ValueError) as error:
            raise DeliveryFailed(f"it cannot be reached: {error}") from None

    def _send(self, sink: AuditSink, lines: Sequence[str], numbers: str) -> None:
        scheme = urlsplit(sink.url).scheme
        if scheme == "file":
            _append(Path(unquote(urlsplit(sink.url).path)), lines)
        elif scheme.startswith("syslog+"):
            self._send_syslog(sink.url, lines, secure=scheme == "syslog+tls")
        else:
            self._post(sink, lines, numbers)

    def _post(self, sink: AuditSink, lines: Sequence[str], numbers: str) -> None:
        # A receiver tells by the numbers a batch that comes again.
        headers = {"content-type": "application/x-ndjson", EVENTS_HEADER: numbers}
        if sink.token_env:
            token = named_secret(sink.token_env, f"the audit sink {sink.name}")
            headers["authorization"] = f"Bearer {token}"
        body = ("\n".join(lines) + "\n").encode()
        client = GuardedHttpClient()
        with client.send(sink.url, headers, body, timeout_s=self._timeout_s) as answer:
            if not 200 <= answer.status < 300:
                raise DeliveryFailed(f"it answered {answer.status}")

    def _send_syslog(self, url: str, lines: Sequence[str], *, secure: bool) -> None:
        parts = urlsplit(url)
        host = str(parts.hostname)
        with socket.create_connection((host, parts.port or 0), self._timeout_s) as plain:
            check_peer(plain, host)
            data = b"".join(_frame(self._syslog_message(line)) for line in lines)
            if secure:
                context = ssl.create_default_context()
                with context.wrap_socket(plain, server_hostname=host) as encrypted:
                    encrypted.sendall(data)
                    # Many servers answer the end of TLS with the end of the connection.
                    with suppress(ssl.SSLEOFError, ssl.SSLZeroReturnError):
                        _await_close(encrypted.unwrap())
            else:
                plain.sendall(data)
                _await_close(plain)

    def _syslog_message(self, line: str) -> bytes:
        stamp = self._clock.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        source = f"{socket.gethostname()} swapgate {os.getpid()} audit"
        return f"<{SYSLOG_PRIORITY}>1 {stamp} {source} - {line}".encode()


def _frame(message: bytes) -> bytes:
    """Counts the message's octets before it (RFC 6587 3.4.1, RFC 5425 4.3)."""
    return f"{len(message)} ".encode() + message


def _await_close(connection: socket.socket) -> None:
    """Ends our side, and waits until the receiver, which has read all then, ends its own."""
    connection.shutdown(socket.SHUT_WR)
    while connection.recv(4096):
        pass


def _append(path: Path, lines: Sequence[str]) -> None:
    """Appends whole lines, and waits for the disk. Only the owner may read the file."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # a batch that was cut off, and comes again whole
                file.write(b"\n")
        file.write(("\n".join(lines) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())
