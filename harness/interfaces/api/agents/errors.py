"""Answers every error of the agents API in OpenAI's shape: `{"error": {"message", "type",
"code", "param"}}`. A client sees only messages of our own.
"""

import json
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from harness.frame.errors import (
    ConfigError,
    DecryptionFailed,
    InputError,
    SignatureInvalid,
    StoreUnavailable,
    SwapgateError,
)
from harness.interfaces.api.agents.bodies import PARTS
from harness.interfaces.api.frame import error_status
from harness.interfaces.api.frame.error_status import RETRY_AFTER_S, describe_request_fault

STATUS: Final[Mapping[type[SwapgateError], HTTPStatus]] = {
    **error_status.STATUS,
    InputError: HTTPStatus.BAD_REQUEST,
    # Nothing is wrong with the request: the operator has to do something, such as giving this
    # process control's signing key.
    ConfigError: HTTPStatus.SERVICE_UNAVAILABLE,
    SignatureInvalid: HTTPStatus.SERVICE_UNAVAILABLE,
    DecryptionFailed: HTTPStatus.SERVICE_UNAVAILABLE,
}
# Of an error that has no code of its own.
_CODES: Final[Mapping[int, str]] = {
    400: "invalid_request",
    403: "not_allowed",
    404: "not_found",
    409: "conflict",
    503: "not_available",
}
# `field: what is wrong with it`, as our messages about a client's input begin.
_PARAM: Final = re.compile(r"([a-z][A-Za-z0-9_]*(?:[.\[][A-Za-z0-9_\]]+)*): ")
_TYPES: Final[Mapping[int, str]] = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
}


class ErrorAnswer(Response):
    media_type = "application/json"

    def __init__(
        self,
        status: int,
        message: str,
        code: str,
        *,
        param: str | None = None,
        retry_after_s: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
        error = {"message": message, "type": kind, "code": code, "param": param}
        body = json.dumps({"error": error})
        super().__init__(body, status, dict(headers or {}))
        if retry_after_s is not None:
            self.headers["retry-after"] = str(retry_after_s)


def find_status(error: SwapgateError) -> HTTPStatus | None:
    return error_status.find_status(error, STATUS)


def answer_error(error: SwapgateError) -> ErrorAnswer | None:
    if (status := find_status(error)) is None:
        return None
    is_away = isinstance(error, StoreUnavailable)
    code = "store_unavailable" if is_away else _CODES.get(status, "server_error")
    named = _PARAM.match(str(error))
    # Whatever the operator has to do: clients may come back.
    is_temporary = error.retryable or status is HTTPStatus.SERVICE_UNAVAILABLE
    return ErrorAnswer(
        status,
        str(error),
        error.code or code,
        param=named.group(1) if named else None,
        retry_after_s=RETRY_AFTER_S if is_temporary else None,
    )


async def answer_http_error(_: Request, error: Exception) -> ErrorAnswer:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it alone
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    text = f"{error.detail}: see /agents/openapi.json for what there is"
    return ErrorAnswer(error.status_code, text, code, headers=error.headers)


async def answer_validation_error(request: Request, error: Exception) -> ErrorAnswer:
    """Every wrong field with its place. The value is not repeated: it may be a secret."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it alone
    places = [
        (
            ".".join(str(part) for part in fault["loc"][1:] if part != PARTS),
            describe_request_fault(request, fault),
        )
        for fault in error.errors()
    ]
    text = "; ".join(f"{place}: {reason}" if place else reason for place, reason in places)
    param = places[0][0] or None
    return ErrorAnswer(HTTPStatus.BAD_REQUEST, text, "invalid_request", param=param)


def answer_unforeseen(name: str) -> ErrorAnswer:
    """Answers what failed through a fault of ours. name: its id in the log."""
    text = f"this is our fault, not yours; the agents process's log has it as {name}"
    return ErrorAnswer(HTTPStatus.INTERNAL_SERVER_ERROR, text, "internal_error")
