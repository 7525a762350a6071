"""Answers in OpenAI's shape, and the headers that say what served."""

import json
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from router.serving import Header

JSON: Final[Header] = (b"content-type", b"application/json")
EVENTS: Final[tuple[Header, ...]] = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)
DO_NOT_RETRY: Final[Header] = (b"x-should-retry", b"false")

_HOP_BY_HOP: Final = frozenset(
    {
        "connection",
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
# Ours to set, or about the hop or the operator's account and not about the answer.
_NOT_PASSED_ON: Final = _HOP_BY_HOP | {
    "alt-svc",
    "anthropic-organization-id",
    "cache-control",
    "content-encoding",
    "content-length",
    "content-type",
    "date",
    "openai-organization",
    "openai-project",
    "server",
    "set-cookie",
    "strict-transport-security",
    "x-accel-buffering",
    "x-should-retry",
}


class Reply(NamedTuple):
    """A whole answer. headers: without its length, which the sender adds."""

    status: int
    headers: tuple[Header, ...]
    body: bytes


def error_body(message: str, kind: str, code: str, **more: object) -> bytes:
    """OpenAI's error object; `param` is null unless given."""
    error = {"message": message, "type": kind, "param": None, "code": code, **more}
    return json.dumps({"error": error}).encode()


def error_reply(
    status: int, message: str, code: str, *, headers: Iterable[Header] = (), **more: object
) -> Reply:
    kind = "invalid_request_error" if status < 500 else "router_error"
    return Reply(status, (JSON, *headers), error_body(message, kind, code, **more))


def error_event(message: str, code: str) -> bytes:
    """What ends a broken stream; no [DONE] comes after it."""
    return b"data: " + error_body(message, "upstream_error", code) + b"\n\n"


def passed_on(headers: Mapping[str, str]) -> list[Header]:
    """The provider's headers that are the client's business."""
    nominated = {each.strip().lower() for each in headers.get("Connection", "").split(",")}
    found: list[Header] = []
    for name, value in headers.items():
        lower = name.lower()
        if (
            lower in _NOT_PASSED_ON
            or lower in nominated
            or lower.startswith(("x-swapgate-", "access-control-"))
        ):
            continue
        found.append((lower.encode("latin-1"), value.encode("utf-8", "surrogateescape")))
    return found
