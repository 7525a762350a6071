"""`StrictBody` limits a request's body and refuses JSON with NaN, a NUL, a lone surrogate, a
duplicate key or too deep nesting. Python's parser accepts these, but the database does not.
"""

import json
from collections.abc import Callable
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from harness.frame.errors import InputError
from harness.interfaces.api.frame.error_status import problem

MAX_BODY_BYTES = 1024 * 1024
MAX_DEPTH = 32


def _answer_too_large(max_bytes: int) -> Response:
    return problem(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "BodyTooLarge",
        f"A body has at most {max_bytes} bytes.",
        headers={"connection": "close"},
    )


class StrictBody:
    """Refuses a body over `max_bytes`. Raises InputError for a body that is not strict JSON.

    too_large: builds the refusal, with the status 413 by default.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_bytes: int = MAX_BODY_BYTES,
        too_large: Callable[[int], Response] = _answer_too_large,
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._too_large = too_large

    async def __call__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if "\0" in scope["path"] or b"%00" in scope["query_string"]:
            raise InputError("the address contains a NUL, which no name may contain: remove it")
        body = await _read(scope, receive, self._max_bytes)
        if body is None:
            await self._too_large(self._max_bytes)(scope, receive, send)
            return
        check_json(body)
        await self._app(scope, _replay(body, receive), send)


async def _read(
    scope: Scope,
    receive: Receive,
    max_bytes: int,
) -> bytes | None:
    """Reads the whole body; returns None as soon as it exceeds the limit."""
    declared_length = Headers(scope=scope).get("content-length", "")
    if declared_length.isdecimal() and int(declared_length) > max_bytes:
        return None
    body = bytearray()
    has_more = True
    while has_more:
        message = await receive()
        if message["type"] == "http.disconnect":
            # An incomplete body must not look complete.
            raise ClientDisconnect
        body += message.get("body", b"")
        if len(body) > max_bytes:
            return None
        has_more = message.get("more_body", False)
    return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    is_sent = False

    async def receive_again() -> Message:
        nonlocal is_sent
        if is_sent:
            return await receive()
        is_sent = True
        return {
            "type": "http.request",
            "body": body,
            "more_body": False,
        }

    return receive_again


def check_json(body: bytes) -> None:
    """Checks that a body is empty, or strict JSON that the database can store. Raises
    InputError.
    """
    if not body:
        return
    try:
        value = json.loads(body, object_pairs_hook=_build_object)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        fault = "too deep" if isinstance(error, RecursionError) else str(error)
        raise InputError(f"the body is not strict JSON: {fault}") from None
    _check_levels(value)


def _build_object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Refuses a duplicate key, because parsers disagree about its value."""
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        duplicate = next(name for name in value if names.count(name) > 1)
        raise InputError(f"the body has the key {duplicate[:100]!r} twice in one object")
    return value


def _check_levels(value: object) -> None:
    values = [value]  # of one level
    for _ in range(MAX_DEPTH):
        if any(isinstance(part, str) and "\0" in part for part in values):
            raise InputError("the body contains a NUL, which the database cannot store")
        values = [inner for part in values for inner in _list_parts(part)]
    if values:
        raise InputError(f"the body is nested more than {MAX_DEPTH} deep")


def _list_parts(value: object) -> list[object]:
    match value:
        case dict():
            return [*value, *value.values()]
        case list():
            return value
        case _:
            return []
