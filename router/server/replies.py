"""Replies of the router in OpenAI's shape: whole replies, error bodies and error events."""

import json
from collections.abc import Iterable
from typing import NamedTuple

from router.server.headers import JSON, Header


class Reply(NamedTuple):
    """A whole answer."""

    status: int
    headers: tuple[Header, ...]  # without its length, which the sender adds
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
