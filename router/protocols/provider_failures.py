"""Classifies a provider's failure (`FailureClass`) by status and error body, or by an error
object in an answer that began as a 200, for OpenAI's, Anthropic's and their followers' words.
Pure.
"""

import json
from collections.abc import Mapping
from typing import Final

from harness.domain.reliability.failures import FailureClass
from router.upstream.failure import UpstreamFailed

_F = FailureClass
_BY_STATUS: Final[Mapping[int, FailureClass]] = {
    401: _F.OUR_KEY,
    402: _F.QUOTA,
    403: _F.QUOTA,
    404: _F.MODEL_UNKNOWN,
    408: _F.TIMEOUT,
    429: _F.RATE_LIMITED,
    503: _F.OVERLOADED,
    529: _F.OVERLOADED,
}
_BY_CODE: Final[Mapping[str, FailureClass]] = {
    "insufficient_quota": _F.QUOTA,
    "model_not_found": _F.MODEL_UNKNOWN,
    "context_length_exceeded": _F.CONTEXT_WINDOW,
    "content_policy_violation": _F.CONTENT_POLICY,
    "content_filter": _F.CONTENT_POLICY,
}
# Anthropic's 400 has one type for all of them: its words tell them apart.
_BY_WORDS: Final[Mapping[str, FailureClass]] = {
    "prompt is too long": _F.CONTEXT_WINDOW,
    "exceed context limit": _F.CONTEXT_WINDOW,
    "maximum context length": _F.CONTEXT_WINDOW,  # OpenAI, vLLM
    "exceeds the available context size": _F.CONTEXT_WINDOW,  # llama.cpp
    "content filtering policy": _F.CONTENT_POLICY,
    "credit balance is too low": _F.QUOTA,
    "organization has been disabled": _F.QUOTA,
    "specified api usage limits": _F.QUOTA,
}
# Of an error in what began as a 200: Anthropic's types, OpenAI's codes and types.
_IN_ANSWER: Final[Mapping[str, FailureClass]] = {
    **_BY_CODE,
    "authentication_error": _F.OUR_KEY,
    "permission_error": _F.QUOTA,
    "billing_error": _F.QUOTA,
    "not_found_error": _F.MODEL_UNKNOWN,
    "rate_limit_error": _F.RATE_LIMITED,
    "rate_limit_exceeded": _F.RATE_LIMITED,
    "overloaded_error": _F.OVERLOADED,
    "api_error": _F.SERVER,
    "server_error": _F.SERVER,
    "timeout_error": _F.TIMEOUT,
}


def classify_status(status: int, body: bytes) -> FailureClass:
    """The class of an answer that is not 2xx. body: it may be anything."""
    if 400 <= status < 500:
        error = _error(body)
        named = _BY_CODE.get(_code(error))
        if named is not None and (status in (400, 404) or named is _F.QUOTA):
            return named
        # OpenRouter's 403 for input that a moderation flagged: the client's, not our key's.
        if status == 403 and (named is _F.CONTENT_POLICY or _flagged(error)):
            return _F.CONTENT_POLICY
        failure_class = _by_words(error) if status == 400 else None
        # The others are Anthropic's; elsewhere they may be a client's, repeated.
        if failure_class is _F.CONTEXT_WINDOW or (
            failure_class is not None and error.get("type") == "invalid_request_error"
        ):
            return failure_class
    found = _BY_STATUS.get(status)
    if found is not None:
        return found
    if 400 <= status < 500:
        return _F.BAD_REQUEST
    return _F.SERVER if status >= 500 else _F.MALFORMED


def classify_error(error: object) -> FailureClass:
    """The class of an error object in an answer that began as a 200."""
    if not isinstance(error, Mapping):
        return _F.MALFORMED
    for name in ("code", "type"):
        found = _IN_ANSWER.get(str(error.get(name)))
        if found is not None:
            return found
    return _by_words(error) or _F.MALFORMED


def refusal_failure(
    status: int, body: bytes, content_type: str, headers: Mapping[str, str] | None = None
) -> UpstreamFailed:
    """An answer that is not 2xx, as the failure that it is."""
    return UpstreamFailed(
        classify_status(status, body),
        f"status {status}",
        status=status,
        body=body,
        content_type=content_type,
        headers=headers,
    )


def error_in_answer(error: object) -> UpstreamFailed:
    """An error object in a 200, as the failure that it is."""
    failure = classify_error(error)
    body = json.dumps({"error": error}).encode()
    return UpstreamFailed(failure, "status 200 with an error", body=body)


def _error(body: bytes) -> Mapping[str, object]:
    """The error object of OpenAI's and Anthropic's answers; empty when there is none.

    Older versions of vLLM answer with the object alone.
    """
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    error = found.get("error", found) if isinstance(found, dict) else None
    return error if isinstance(error, dict) else {}


def _code(error: Mapping[str, object]) -> str:
    code = error.get("code") or error.get("type")
    return code if isinstance(code, str) else ""


def _flagged(error: Mapping[str, object]) -> bool:
    details = error.get("metadata")
    return isinstance(details, Mapping) and "flagged_input" in details


def _by_words(error: Mapping[str, object]) -> FailureClass | None:
    message = str(error.get("message")).lower()
    return next((failure for words, failure in _BY_WORDS.items() if words in message), None)
