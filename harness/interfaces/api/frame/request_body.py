"""`StrictBody` reads a request's body whole up to a limit and refuses what is not strict JSON:
NaN, a NUL, a key given twice, too deep nesting.

Python's parser takes NaN, half a character and nesting without end; the database does not.
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


def _too_large(max_bytes: int) -> Response:
    return problem(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "BodyTooLarge",
        f"A body has at most {max_bytes} bytes.",
        headers={"connection": "close"},
    )


class StrictBody:
    """Answers 413 to a body over `max_bytes`; raises InputError for what is not strict JSON.

    too_large: makes the answer, of the limit.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_bytes: int = MAX_BODY_BYTES,
        too_large: Callable[[int], Response] = _too_large,
    ) -> None:
        self._app, self._max_bytes, self._too_large = app, max_bytes, too_large

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if "\0" in scope["path"] or b"%00" in scope["query_string"]:
            raise InputError("the address contains a NUL: no name has one")
        body = await _read(scope, receive, self._max_bytes)
        if body is None:
            await self._too_large(self._max_bytes)(scope, receive, send)
            return
        check_json(body)
        await self._app(scope, _replay(body, receive), send)


async def _read(scope: Scope, receive: Receive, max_bytes: int) -> bytes | None:
    """The whole body; None as soon as it is over the limit."""
    declared = Headers(scope=scope).get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        return None
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            # Half a body must not look like a whole one: nothing is done for it.
            raise ClientDisconnect
        body += message.get("body", b"")
        if len(body) > max_bytes:
            return None
        more = message.get("more_body", False)
    return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


def check_json(body: bytes) -> None:
    """Checks that a body is empty, or strict JSON that can be stored. Raises InputError."""
    if not body:
        return
    try:
        value = json.loads(body, object_pairs_hook=_object)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        what = "too deep" if isinstance(error, RecursionError) else str(error)
        raise InputError(f"the body is not strict JSON: {what}") from None
    _check_levels(value)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Raises InputError: whoever reads the first value would act on another than who reads the
    last.
    """
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in value if names.count(name) > 1)
        raise InputError(f"the body has the key {twice[:100]!r} twice in one object")
    return value


def _check_levels(value: object) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        if any(isinstance(part, str) and "\0" in part for part in level):
            raise InputError("the body contains a NUL: a database's text cannot hold it")
        level = [inner for part in level for inner in _inside(part)]
    if level:
        raise InputError(f"the body is nested more than {MAX_DEPTH} deep")


def _inside(value: object) -> list[object]:
    match value:
        case dict():
            return [*value, *value.values()]
        case list():
            return value
        case _:
            return []
