"""Turns an error reply in OpenAI's shape into the one that Anthropic's clients expect."""

import json
import re
from collections.abc import Mapping
from typing import Final

from harness.domain.reliability.failures import FailureClass
from router.server.replies import Reply

_BY_STATUS: Final[Mapping[int, str]] = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
TYPE_BY_CLASS: Final[Mapping[FailureClass, str]] = {
    FailureClass.OVERLOADED: "overloaded_error",
    FailureClass.RATE_LIMITED: "rate_limit_error",
    FailureClass.TIMEOUT: "timeout_error",
}
_TOO_LONG: Final = "context_length_exceeded"
# Before the number, what other providers call the limit.
_LIMIT: Final = re.compile(
    r"(?:context length|prompt length|context size|context window|tokens allowed|limit)"
    r"\D{0,20}(\d[\d,]*)",
    re.IGNORECASE,
)
_NUMBER: Final = re.compile(r"\d[\d,]*")


def anthropic_error(reply: Reply, request_id: str) -> Reply:
    """Puts an error into Anthropic's shape; one that has it already stays as it is.

    reply: of a status that is not 2xx, with JSON as its body.
    """
    found = json.loads(reply.body)
    if isinstance(found, dict) and found.get("type") == "error":
        return reply
    error = found.get("error") if isinstance(found, dict) else None
    told = dict(error) if isinstance(error, dict) else {"message": str(error or found)[:500]}
    kind = "invalid_request_error" if reply.status < 500 else "api_error"
    told["type"] = _BY_STATUS.get(reply.status, kind)
    if told.get("code") == _TOO_LONG:
        told["message"] = _too_long(told)
    body = {"type": "error", "error": told, "request_id": request_id}
    headers = (*reply.headers, (b"request-id", request_id.encode()))
    return Reply(reply.status, headers, json.dumps(body).encode())


def _too_long(error: Mapping[str, object]) -> str:
    """Says that a prompt is too long as Anthropic does: on these words Anthropic's clients
    shorten the conversation and go on.
    """
    said = str(error.get("message") or "")
    given, most = error.get("n_prompt_tokens"), error.get("n_ctx")  # llama.cpp's
    if not isinstance(given, int) or not isinstance(most, int):
        limit = _LIMIT.search(said)
        numbers = [int(number.replace(",", "")) for number in _NUMBER.findall(said)]
        if limit is None:
            return f"prompt is too long: {said}"
        most = int(limit[1].replace(",", ""))
        given = max([most + 1, *numbers])
    return f"prompt is too long: {given} tokens > {most} maximum"
