"""Writes domain objects and errors as JSON answers. A caller sees only Swapproof's own
messages; for an unexpected error, it sees an id that is also in the log.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from http import HTTPStatus
from typing import Any, Final, TypeVar

import structlog
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from harness.frame.errors import (
    ConfigError,
    Conflict,
    DiscoveryFailed,
    IllegalTransition,
    InputError,
    NotAllowed,
    NotFound,
    ProofRefused,
    StaleEvidence,
    StoreUnavailable,
    SwapproofError,
)
from harness.frame.pagination import Page
from harness.frame.plain_data import write_json
from harness.frame.ports import Chance
from harness.frame.suggestions import describe_fault, find_fault_path

T = TypeVar("T")


def json_answer(items: Sequence[T]) -> Page[T]:
    return Page(items, len(items))


def extend(
    kind: type[T],
    source: Any,
    **more: Any,
) -> T:
    """Builds a dataclass from the attributes of `source` and the further fields `more`."""
    names = {field.name for field in fields(kind)} - more.keys()  # type: ignore[arg-type]
    return kind(**{name: getattr(source, name) for name in names}, **more)


class JsonAnswer(Response):
    """Writes a domain object as JSON; an infinite number or NaN becomes null."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        return write_json(content).encode()


def problem(
    status: int,
    kind: str,
    message: str,
    *,
    retryable: bool = False,
    headers: Mapping[str, str] | None = None,
) -> JsonAnswer:
    """Builds an error's answer.

    Args:
        kind: the class in harness.frame.errors, if it has one.
    """
    body = {
        "error": {
            "type": kind,
            "message": message,
            "retryable": retryable,
        }
    }
    return JsonAnswer(body, status_code=status, headers=dict(headers or {}))


log = structlog.get_logger("swapproof.api")

# ProofRefused is 409, not 403: another key would not help, but a new proposal would.
STATUS: Final[Mapping[type[SwapproofError], HTTPStatus]] = {
    InputError: HTTPStatus.UNPROCESSABLE_ENTITY,
    ConfigError: HTTPStatus.UNPROCESSABLE_ENTITY,
    NotFound: HTTPStatus.NOT_FOUND,
    NotAllowed: HTTPStatus.FORBIDDEN,
    Conflict: HTTPStatus.CONFLICT,
    IllegalTransition: HTTPStatus.CONFLICT,
    ProofRefused: HTTPStatus.CONFLICT,
    StaleEvidence: HTTPStatus.CONFLICT,
    DiscoveryFailed: HTTPStatus.BAD_GATEWAY,
    StoreUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}
RETRY_AFTER_S = 2


def find_status(
    error: SwapproofError,
    statuses: Mapping[type[SwapproofError], HTTPStatus] = STATUS,
) -> HTTPStatus | None:
    """Returns the status of a Swapproof error; None for an internal error."""
    return next(
        (statuses[kind] for kind in type(error).__mro__ if kind in statuses),
        None,
    )


def answer_error(error: SwapproofError) -> JsonAnswer | None:
    """Answers a Swapproof error; returns None for an internal error."""
    if (status := find_status(error)) is None:
        return None
    headers = {"retry-after": str(RETRY_AFTER_S)} if error.retryable else {}
    name = type(error).__name__
    return problem(
        status,
        name,
        str(error),
        retryable=error.retryable,
        headers=headers,
    )


async def answer_http_error(_: Request, error: Exception) -> JsonAnswer:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this error only
    kind = HTTPStatus(error.status_code).phrase.title().replace(" ", "").replace("-", "")
    return problem(error.status_code, kind, f"{error.detail}.", headers=error.headers)


async def answer_validation_error(request: Request, error: Exception) -> JsonAnswer:
    """Names every wrong field, but not its value, which may be a secret."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this error only
    text = "; ".join(
        f"{'.'.join((part, *path))}: {reason}"
        for part, path, reason in describe_request_faults(request, error)
    )
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, "InputError", text)


def describe_request_faults(
    request: Request, error: RequestValidationError
) -> Iterator[tuple[str, list[str], str]]:
    """Yields each fault's part of the request, its path in there, and its description with the
    nearest valid key or word.
    """
    dependant = request.scope["route"].dependant
    values: dict[str, object] = {
        "query": request.query_params,
        "path": request.path_params,
        "header": request.headers,
    }
    for fault in error.errors():
        part, *place = fault["loc"]
        fields = dependant.query_params if part == "query" else dependant.body_params
        schema = TypeAdapter(fields[0].field_info.annotation).json_schema() if fields else {}
        path = find_fault_path({**fault, "loc": place}, values.get(part, error.body))
        yield part, [*map(str, path)], describe_fault(fault, path, schema)


def describe_places(
    kind: type[BaseModel],
    error: ValidationError,
    arguments: object,
) -> str:
    """Describes the faults of a tool's arguments, each with its place."""
    schema = kind.model_json_schema()
    faults = ((fault, find_fault_path(fault, arguments)) for fault in error.errors())
    return "; ".join(
        f"{'.'.join(map(str, path))}: {describe_fault(fault, path, schema)}"
        for fault, path in faults
    )


def answer_unforeseen(name: str) -> JsonAnswer:
    """Answers an internal error.

    Args:
        name: its id in the log.
    """
    return problem(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "InternalError",
        f"This is our fault, not yours. The control process's log has it as {name}.",
    )


class ErrorGuard:
    """The outermost middleware, which turns errors into answers.

    answer: answers a Swapproof error; returns None for an internal error.
    unforeseen: answers any other error. Its argument is the error's id in the log.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        chance: Chance,
        answer: Callable[[SwapproofError], Response | None] = answer_error,
        unforeseen: Callable[[str], Response] = answer_unforeseen,
    ) -> None:
        self._app = app
        self._chance = chance
        self._answer_known = answer
        self._unforeseen = unforeseen

    async def __call__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal has_started
            if message["type"] == "http.response.start":
                has_started = True
                message["headers"] = [*message["headers"], *_FIXED_HEADERS]
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except ClientDisconnect:
            return
        except Exception as error:
            if has_started:
                raise
            await self._answer(error, scope)(scope, receive, send_with_headers)

    def _answer(self, error: Exception, scope: Scope) -> Response:
        if (
            isinstance(error, SwapproofError)
            and (answer := self._answer_known(error)) is not None
        ):
            return answer
        name = self._chance.token("e_")
        log.error(
            "api_failed",
            id=name,
            path=scope["path"],
            exc_info=error,
        )
        return self._unforeseen(name)


# Caches must not store an answer, and browsers must not treat it as HTML.
_FIXED_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
)
