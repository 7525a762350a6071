"""The router's replies, error bodies and error events, in OpenAI's shape.

Other protocols rewrite these replies (`router.protocols`). This module also decides which
of a provider's headers a client gets. It sends no reply: `asgi` does.
"""

import json
from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import quote

Header = tuple[bytes, bytes]

JSON: Final[Header] = (b"content-type", b"application/json")
CLOSE: Final[Header] = (b"connection", b"close")
EVENTS: Final[tuple[Header, ...]] = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)
# Headers with list values: the router joins the client's values and the operator's.
LISTS: Final = frozenset({"anthropic-beta"})
RETRY: Final[Header] = (b"x-should-retry", b"true")
DO_NOT_RETRY: Final[Header] = (b"x-should-retry", b"false")

_PLAIN_CONNECTION: Final = (b"keep-alive", b"close")
_NOT_PASSED_ON_PREFIXES: Final = (b"x-swapproof-", b"access-control-")
_HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
# Headers that the router sets, or that concern the connection or the operator's account.
_NOT_PASSED_ON: Final = _HOP_BY_HOP | {
    b"alt-svc",
    b"anthropic-organization-id",
    b"cache-control",
    b"content-encoding",
    b"content-length",
    b"content-type",
    b"date",
    # The provider's model or endpoint; `snapshot.end_headers` writes the route's.
    b"deprecation",
    b"openai-organization",
    b"openai-project",
    b"server",
    b"set-cookie",
    b"strict-transport-security",
    b"sunset",
    b"x-accel-buffering",
    b"x-should-retry",
}


def passed_on(headers: Iterable[Header]) -> list[Header]:
    """Returns the provider's headers that the client receives.

    Args:
        headers: names in lower case.
    """
    kept: list[Header] = []
    nominated: list[bytes] = []
    for header in headers:
        name, value = header
        if _may_reach_client(name):
            kept.append(header)
        elif name == b"connection" and value.lower() not in _PLAIN_CONNECTION:
            nominated += (part.strip().lower() for part in value.split(b","))
    return [header for header in kept if header[0] not in nominated] if nominated else kept


def drop_hop_by_hop(headers: Iterable[Header], dropped: Collection[bytes]) -> list[Header]:
    """Removes hop-by-hop headers (RFC 9110, 7.6.1) and `dropped`; names in lower case."""
    kept: list[Header] = []
    nominated: set[bytes] = set()
    for header in headers:
        name, value = header
        if name == b"connection":
            nominated.update(part.strip().lower() for part in value.split(b","))
        if name not in _HOP_BY_HOP and name not in dropped:
            kept.append(header)
    return [header for header in kept if header[0] not in nominated]


@lru_cache(maxsize=1024)
def _may_reach_client(name: bytes) -> bool:
    return name not in _NOT_PASSED_ON and not name.startswith(_NOT_PASSED_ON_PREFIXES)


def encode_header_text(text: str) -> bytes:
    """Percent-encodes all but printable ASCII, so that no name can break a header."""
    return quote(text, safe=" !#$&'()*+,/:;=?@[]~").encode()


# Statuses below 500 for which a retry may succeed. For other statuses the router sends
# `x-should-retry: false`, because some clients would retry silently for a minute.
_RETRYABLE_STATUSES: Final = (408, 409, 425, 429)


class Reply(NamedTuple):
    """A whole reply, not sent yet."""

    status: int
    headers: tuple[Header, ...]  # without content-length, which the sender adds
    body: bytes


def error_body(
    message: str,
    kind: str,
    code: str,
    **more: object,
) -> bytes:
    """Returns an error as JSON.

    Args:
        more: further fields of the error, or another `param`.
    """
    error = {
        "message": message,
        "type": kind,
        "param": None,
        "code": code,
        **more,
    }
    return json.dumps({"error": error}).encode()


def error_reply(
    status: int,
    message: str,
    code: str,
    *,
    headers: Iterable[Header] = (),
    **more: object,
) -> Reply:
    """Builds an error reply. Its status decides whether clients may retry.

    Args:
        code: for programs.
        more: as for `error_body`.
    """
    kind = "invalid_request_error" if status < 500 else "router_error"
    all_headers = (JSON, *headers)
    # Tells clients that a retry would fail, too.
    if status < 500 and status not in _RETRYABLE_STATUSES:
        all_headers = (*all_headers, DO_NOT_RETRY)
    return Reply(status, all_headers, error_body(message, kind, code, **more))


def error_event(message: str, code: str) -> bytes:
    """Returns the last event of a broken stream; no `[DONE]` follows it."""
    return b"data: " + error_body(message, "upstream_error", code) + b"\n\n"
