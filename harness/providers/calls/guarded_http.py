"""The control plane's HTTP client. It uses no proxy, follows no redirect, refuses forbidden
addresses, and limits the time up to the last byte.

Also builds and checks the headers of requests to providers, for the control plane and the
router. Errors omit the values, which may be secrets.

Streams of clients do not pass here: `router.upstream` has the router's own connections, with
the same rules of addresses (`harness.providers.api_base_rules`).
"""

import http.client
import io
import re
import socket
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

from harness.frame.errors import InputError
from harness.providers.api_base_rules import may_connect
from harness.providers.target import Provider

USER_AGENT: Final = "swapproof"


class ClosedAddress(OSError):
    """A host's name resolves to a forbidden address. Raised before the request is sent."""


class GuardedHttpClient:
    """Sends single requests. allowed: entries of `router.allow_addresses`."""

    def __init__(self, allowed: Collection[str] = ()) -> None:
        self._allowed = allowed

    @contextmanager
    def send(
        self,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None = None,
        *,
        timeout_s: float,
        method: str | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        """Sends a request: by default a GET, or a POST if there is a body. Yields the answer
        with any status, as soon as its head arrives.

        Raises OSError (TimeoutError, ClosedAddress), HTTPException and ValueError, also while
        the caller reads the body.
        """
        deadline = time.monotonic() + timeout_s
        connection = _connection(url, timeout_s)
        connection.response_class = partial(_TimedResponse, partial(_left_s, deadline))  # type: ignore[assignment]  # a factory
        try:
            connection.connect()
            check_peer(connection.sock, connection.host, self._allowed)
            connection.sock.settimeout(_left_s(deadline))
            default_method = "GET" if body is None else "POST"
            connection.request(
                method or default_method, _request_target(url), body, _merge_headers(headers)
            )
            with connection.getresponse() as answer:
                yield answer
        finally:
            connection.close()


def check_peer(
    sock: socket.socket,
    host: str,
    allowed: Collection[str] = (),
) -> None:
    """Checks the address to which a socket is connected. Raises ClosedAddress.

    The name was resolved before, so this check also refuses a name that resolves to a closed
    address only now and then.
    """
    if not may_connect(host, str(sock.getpeername()[0]), allowed):
        raise ClosedAddress("its name resolves to an address that Swapproof does not call")


class _TimedResponse(http.client.HTTPResponse):
    """A response that limits the time of its whole body, not only of single reads.

    The socket's own timeout starts again with each read, so a slow server could send one byte
    at a time without end.
    """

    def __init__(
        self,
        left_s: Callable[[], float],
        sock: socket.socket,
        **other_arguments: Any,
    ) -> None:
        super().__init__(sock, **other_arguments)
        self.fp = io.BufferedReader(_TimedReader(sock, self.fp.detach(), left_s))


class _TimedReader(io.RawIOBase):
    """Limits each read to the time left for the whole answer."""

    def __init__(
        self,
        sock: socket.socket,
        raw: io.RawIOBase,
        left_s: Callable[[], float],
    ) -> None:
        self._sock = sock
        self._raw = raw
        self._left_s = left_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._left_s())
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _left_s(deadline: float) -> float:
    """Returns the seconds until a moment of the monotonic clock. Raises TimeoutError if it has
    passed.
    """
    left_s = deadline - time.monotonic()
    if left_s <= 0.0:
        raise TimeoutError("timed out")
    return left_s


def _connection(url: str, timeout_s: float) -> http.client.HTTPConnection:
    """Builds a connection that is not open yet. Raises ValueError if the URL is not http or
    https, or has no host.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("not an http or https URL with a host")
    is_https = parts.scheme == "https"
    connection_class = http.client.HTTPSConnection if is_https else http.client.HTTPConnection
    return connection_class(
        parts.hostname, parts.port or connection_class.default_port, timeout=timeout_s
    )


def _request_target(url: str) -> str:
    """Returns a URL's path and query, for the request line."""
    parts = urlsplit(url)
    return f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"


def _merge_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Keeps the last header of each name, ignoring case."""
    defaults = {"user-agent": USER_AGENT, "connection": "close"}
    return defaults | {name.lower(): value for name, value in headers.items()}


MAX_HEADERS: Final = 64
MAX_NAME_LENGTH: Final = 200
MAX_VALUE_LENGTH: Final = 8192
_NAME_PATTERN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_VALUE_PATTERN: Final = re.compile(r"(?:[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?)?")
# Framing headers, and headers of one connection only (RFC 9110, section 7.6.1).
_CONNECTION_HEADERS: Final = frozenset(
    {
        "connection",
        "content-encoding",
        "content-length",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_SHOWN: Final = 40


def check_headers(headers: Mapping[str, str]) -> None:
    """Checks that HTTP can send a provider's extra headers. Raises InputError."""
    if len(headers) > MAX_HEADERS:
        raise InputError(f"{len(headers)} extra headers are more than {MAX_HEADERS}")
    lowercase_names: set[str] = set()
    for name, value in headers.items():
        shown = f"{name[:_SHOWN]!r}"
        _check_header_name(name)
        if name.lower() in lowercase_names:
            raise InputError(
                f"the extra header {shown} occurs twice: its names differ only in their case"
            )
        lowercase_names.add(name.lower())
        if len(value) > MAX_VALUE_LENGTH or not _VALUE_PATTERN.fullmatch(value):
            raise InputError(
                f"the value of the extra header {shown} must be at most {MAX_VALUE_LENGTH} "
                "visible ASCII characters, with spaces and tabs only between them"
            )


def request_headers(
    provider: Provider,
    key: str,
    *,
    stream: bool = False,
) -> dict[str, str]:
    """Builds a request's headers. Evals and the router both call it, so that a provider cannot
    tell their requests apart.
    """
    extra = {name.lower(): value for name, value in provider.extra_headers.items()}
    return {
        "accept": "text/event-stream" if stream else "application/json",
        "content-type": "application/json",
        "accept-encoding": "identity",
        "user-agent": "swapproof",
        **provider.key_headers(key),
        **extra,
    }


def _check_header_name(name: str) -> None:
    """Checks a header's name. Raises InputError for a name that HTTP or Swapproof uses
    itself.
    """
    shown = f"{name[:_SHOWN]!r}"
    if len(name) > MAX_NAME_LENGTH or not _NAME_PATTERN.fullmatch(name):
        raise InputError(
            f"{shown} is not a header name: use 1 to {MAX_NAME_LENGTH} of a-z, A-Z, 0-9, `-` "
            "and `_`"
        )
    if name.lower() in _CONNECTION_HEADERS:
        raise InputError(
            f"Swapproof sets the extra header {shown} itself, for the connection: remove it"
        )


def check_request_headers(provider: Provider, key: str) -> None:
    """Checks the extra headers and the key of a provider. Raises InputError."""
    try:
        check_headers(provider.extra_headers)
    except InputError as error:
        raise InputError(
            f"a header of this provider cannot be sent: {error}. Correct its extra headers"
        ) from None
    for name, value in provider.key_headers(key).items():
        if not _VALUE_PATTERN.fullmatch(value):
            raise InputError(
                f"a header of this provider cannot be sent: the key in {name!r} is not visible "
                f"ASCII. Set it again: `swapproof provider key set {provider.name}`"
            )
