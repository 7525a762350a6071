"""A provider's answer to a failure class (router.md 2). Pure."""

import json
from collections.abc import Mapping
from typing import Final

from harness.domain.failures import FailureClass
from router.ports import UpstreamFailed

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


def class_of(status: int, body: bytes) -> FailureClass:
    """The class of an answer that is not 2xx. body: it may be anything."""
    if 400 <= status < 500:
        named = _BY_CODE.get(_code(body))
        if named is not None and (status in (400, 404) or named is _F.QUOTA):
            return named
    found = _BY_STATUS.get(status)
    if found is not None:
        return found
    if 400 <= status < 500:
        return _F.BAD_REQUEST
    return _F.SERVER if status >= 500 else _F.MALFORMED


def refused(
    status: int, body: bytes, content_type: str, headers: Mapping[str, str] | None = None
) -> UpstreamFailed:
    """An answer that is not 2xx, as the failure that it is."""
    return UpstreamFailed(
        class_of(status, body),
        f"status {status}",
        status=status,
        body=body,
        content_type=content_type,
        headers=headers,
    )


def _code(body: bytes) -> str:
    try:
        error = json.loads(body)["error"]
        code = error["code"] or error["type"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return ""
    return code if isinstance(code, str) else ""
