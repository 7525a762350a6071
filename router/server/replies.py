"""Replies of the router in OpenAI's shape: whole replies, error bodies and error events."""

import json
from collections.abc import Iterable
from typing import Final, NamedTuple

from router.server.headers import DO_NOT_RETRY, JSON, Header

# Of those below 500, what may be answered another time. Some clients send the others again all
# the same, for a minute, and say nothing meanwhile.
_WORTH_A_RETRY: Final = (408, 409, 425, 429)


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
    given = (JSON, *headers)
    # The same request gets the same answer again.
    if status < 500 and status not in _WORTH_A_RETRY:
        given = (*given, DO_NOT_RETRY)
    return Reply(status, given, error_body(message, kind, code, **more))


def error_event(message: str, code: str) -> bytes:
    """What ends a broken stream; no [DONE] comes after it."""
    return b"data: " + error_body(message, "upstream_error", code) + b"\n\n"
