"""Turns a router's refusals, and the error event that ends a stream, into the client's errors,
by status, with what to do next. Pure.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from harness.client.response_parsing import parse_served
from harness.domain.errors import (
    AnswerUnreadable,
    CallFailed,
    CallLimited,
    CallRefused,
    KeyRefused,
    NobodyAnswered,
    StreamBroken,
)
from harness.domain.reliability.retry import retry_after_s

_NEXT: Final[Mapping[type[CallFailed], str]] = {
    CallRefused: "change the request",
    KeyRefused: "check the key, and with `swapgate key list` what it opens",
    CallLimited: "ask less often",
    NobodyAnswered: "try again later, and see `swapgate doctor`",
    AnswerUnreadable: "check that the address is a Swapgate router's",
}
_SHOWN: Final = 300


def error_from_answer(
    status: int, headers: Mapping[str, str], body: bytes, route: str, now: datetime
) -> CallFailed:
    """The error that an answer of another status than 200 means. headers: in lower case."""
    told = _error_of(body)
    kind = _kind(status)
    wait_s = retry_after_s(headers, now)
    request_id = parse_served(headers).request_id
    message = _text(told, "message") or body[:_SHOWN].decode("utf-8", "replace") or "no words"
    wait = "" if wait_s is None else f", not before {wait_s:g} s"
    quote = f", request {request_id}" if request_id else ""
    said = headers.get("x-should-retry", "").lower()
    return kind(
        f"route {route!r}: {message} (status {status}{quote}); {_NEXT[kind]}{wait}",
        status=status,
        code=_text(told, "code"),
        request_id=request_id,
        retry_after_s=wait_s,
        should_retry={"true": True, "false": False}.get(said),
        details=told,
    )


def error_from_stream(error: Mapping[str, object], route: str, request_id: str) -> StreamBroken:
    """Makes an error of the event that ends a stream."""
    message = _text(error, "message") or "the stream broke off"
    return StreamBroken(
        f"route {route!r}: {message} (request {request_id}); what came before it is not the "
        "whole answer: ask again",
        code=_text(error, "code"),
        request_id=request_id,
        details=error,
    )


def _kind(status: int) -> type[CallFailed]:
    if status in (401, 403):
        return KeyRefused
    if status == 429:
        return CallLimited
    if 400 <= status < 500:
        return CallRefused
    return NobodyAnswered if status >= 500 else AnswerUnreadable


def _error_of(body: bytes) -> dict[str, object]:
    try:
        whole = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    error = whole.get("error") if isinstance(whole, dict) else None
    return error if isinstance(error, dict) else {}


def _text(error: Mapping[str, object], name: str) -> str:
    found = error.get(name)
    return found if isinstance(found, str) else ""
