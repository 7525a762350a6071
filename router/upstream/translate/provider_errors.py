"""Translates the errors of Anthropic, AWS and Google into OpenAI's form.

So one table classifies all errors (`router.protocols.provider_refusals`).
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from router.frame.failure import Untranslatable, is_unable, read_reasons
from router.upstream.reply_reading import ReadReply, read_error_body
from router.upstream.transport import UpstreamReply

Json = dict[str, Any]

# OpenAI's error type for each status of Google.
_TYPE_BY_GOOGLE_STATUS: Final[Mapping[str, str]] = {
    "INVALID_ARGUMENT": "invalid_request_error",
    "FAILED_PRECONDITION": "invalid_request_error",
    "OUT_OF_RANGE": "invalid_request_error",
    "UNAUTHENTICATED": "authentication_error",
    "PERMISSION_DENIED": "permission_error",
    "NOT_FOUND": "not_found_error",
    "RESOURCE_EXHAUSTED": "rate_limit_error",
    "INTERNAL": "server_error",
    "UNAVAILABLE": "overloaded_error",
    "DEADLINE_EXCEEDED": "timeout_error",
}
_TYPE_BY_AWS_STATUS: Final[Mapping[int, str]] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "overloaded_error",
}
_JSON_HEADER: Final = (b"content-type", b"application/json")
_AWS_EXCEPTION: Final = b"x-amzn-errortype"
# Precedes the error of the model's own server, a text or JSON.
_AWS_MODEL_PREFIX: Final = "The model returned the following errors: "
_AWS_TOO_LONG: Final = "input is too long"
_GOOGLE_TOO_LONG: Final = "exceeds the maximum number of tokens"
_SECONDS: Final = re.compile(r"(\d+(?:\.\d+)?)s")
_RATE_PREFIXES: Final = (b"anthropic-ratelimit-", b"x-ratelimit-")
_KEPT_HEADERS: Final = (
    b"retry-after",
    b"retry-after-ms",
    b"request-id",
    b"x-request-id",
)


def untranslatable_reply(why: Untranslatable) -> ReadReply:
    """Builds the 422 reply to a request without a translation. It calls no provider."""
    error = {
        "message": why.message,
        "type": "invalid_request_error",
        "param": why.param,
    }
    body = json.dumps({"error": {**error, "code": why.code}}).encode()
    return ReadReply(422, [_JSON_HEADER], body, local=True, unable=is_unable(why))


async def translate_refusal(reply: UpstreamReply, kind: str) -> ReadReply:
    """Returns a provider's error in OpenAI's shape, and closes the reply.

    Args:
        kind: the provider's.

    Keeps the headers about rates and the pause that Google names in the body.
    """
    try:
        raw = await read_error_body(reply)
    finally:
        await reply.aclose()
    headers = [_JSON_HEADER]
    headers += [
        h for h in reply.headers if h[0] in _KEPT_HEADERS or h[0].startswith(_RATE_PREFIXES)
    ]
    error = _parse_aws_error(raw, reply) if kind == "bedrock" else _parse_error(raw)
    if error is None:  # for a proxy's page or an empty body, only the status counts
        return ReadReply(reply.status, headers, b"{}")
    status = reply.status
    if kind not in ("anthropic", "bedrock"):
        error, status, wait_s = _read_google_error(error, status)
        if wait_s and b"retry-after" not in dict(headers):
            headers.append((b"retry-after", wait_s))
    error_fields = {
        "param": None,
        "code": None,
        **error,
    }
    return ReadReply(status, headers, json.dumps({"error": error_fields}).encode())


def _parse_error(raw: bytes) -> Json | None:
    try:
        parsed = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if isinstance(parsed, list) and parsed:  # Google's streams put the error into a list
        parsed = parsed[0]
    error = parsed.get("error") if isinstance(parsed, dict) else None
    return error if isinstance(error, dict) else None


def _parse_aws_error(raw: bytes, reply: UpstreamReply) -> Json | None:
    try:
        parsed = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    message = (
        parsed.get("message") or parsed.get("Message") if isinstance(parsed, dict) else None
    )
    if not isinstance(message, str):
        return None
    # The header names the exception: `ValidationException:http://...`.
    exception = dict(reply.headers).get(_AWS_EXCEPTION, b"").partition(b":")[0]
    kind = _TYPE_BY_AWS_STATUS.get(reply.status, "api_error")
    return aws_error(message, kind, exception.decode("latin-1"))


def aws_error(message: str, kind: str, exception: str) -> Json:
    """Returns an AWS error as OpenAI's message, type and code.

    Args:
        kind: the type.
    """
    too_long = _AWS_TOO_LONG in message.lower()
    return {
        "message": message.removeprefix(_AWS_MODEL_PREFIX),
        "type": kind,
        "code": "context_length_exceeded" if too_long else exception or None,
    }


def _read_google_error(error: Json, status: int) -> tuple[Json, int, bytes]:
    """Returns the error, the status that it means, and the pause in seconds.

    The pause is empty if Google names none.
    """
    error_fields = google_error(error)
    details = error.get("details")
    objects = (
        [detail for detail in details if isinstance(detail, dict)]
        if isinstance(details, list)
        else []
    )
    if _GOOGLE_TOO_LONG in error_fields["message"]:
        error_fields["code"] = "context_length_exceeded"
    # Google answers 400 to an unknown key.
    if status == 400 and "API_KEY_INVALID" in read_reasons(error):
        status = 401
        error_fields["type"] = "authentication_error"
    matches = [_SECONDS.fullmatch(str(detail.get("retryDelay"))) for detail in objects]
    wait_s = next((match[1].encode() for match in matches if match), b"")
    return error_fields, status, wait_s


def google_error(error: Mapping[str, Any]) -> Json:
    """Returns Google's error as OpenAI's message, type and code."""
    kind = _TYPE_BY_GOOGLE_STATUS.get(str(error.get("status")), "api_error")
    code = next(iter(read_reasons(error)), None)
    return {"message": str(error.get("message") or ""), "type": kind, "code": code}
