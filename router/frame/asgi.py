"""ASGI types and helpers."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from types import TracebackType
from typing import Any, Final, Self

from router.frame.replies import Header, Reply
from router.frame.timers import Timers

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# uvicorn has no limit on how slowly a request may arrive.
REQUEST_ARRIVES_S: Final = 30.0
# Most requests of a fast provider end before it pays to watch their caller.
WATCH_AFTER_S: Final = 0.02


class BodyTooLarge(Exception): ...


class ClientDisconnected(Exception): ...


# In the scope, from our own server: the whole body, where it came with the head. `receive` has
# it as well.
BODY: Final = "swapgate_body"
# Likewise: to be told what is to happen when the client leaves, and None in the end. Without
# it, a task has to wait for `receive` to say so.
ON_LEAVING: Final = "swapgate_on_leaving"
# Likewise: a dictionary for what is worked out from the head alone, but for its content-length.
# The next requests of the connection that have the same head share it.
HEAD_FACTS: Final = "swapgate_head_facts"
OnLeaving = Callable[[Callable[[], None] | None], None]


def header(scope: Scope, name: bytes) -> bytes | None:
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None


def buffered_body(scope: Scope, max_bytes: int) -> bytes | None:
    """Returns the body if it came with the head, else None. Raises BodyTooLarge."""
    length = header(scope, b"content-length")
    if length is not None and length.isdigit() and int(length) > max_bytes:
        raise BodyTooLarge
    body: bytes | None = scope.get(BODY)
    if body is not None and len(body) > max_bytes:
        raise BodyTooLarge
    return body


async def read_body(receive: Receive, max_bytes: int, timers: Timers) -> bytes:
    """Reads a request's body. Raises BodyTooLarge, ClientDisconnected, TimeoutError."""
    with timers.limit(asyncio.get_running_loop().time() + REQUEST_ARRIVES_S):
        message = await receive()
        body: bytes = message.get("body", b"")
        parts = [body]
        size = len(body)
        while message.get("more_body"):
            message = await receive()
            part: bytes = message.get("body", b"")
            size += len(part)
            if size > max_bytes:
                raise BodyTooLarge
            parts.append(part)
    if message["type"] == "http.disconnect":
        raise ClientDisconnected
    if size > max_bytes:
        raise BodyTooLarge
    return b"".join(parts) if len(parts) > 1 else body


def reply_headers(reply: Reply, headers: Iterable[Header]) -> list[Header]:
    return [*reply.headers, *headers, (b"content-length", b"%d" % len(reply.body))]


async def send_reply(send: Send, reply: Reply, headers: Iterable[Header]) -> None:
    listed = reply_headers(reply, headers)
    await send({"type": "http.response.start", "status": reply.status, "headers": listed})
    await send({"type": "http.response.body", "body": reply.body})


class DisconnectWatch:
    """Cancels its block when the caller hangs up, which outside it is ClientDisconnected."""

    def __init__(
        self, receive: Receive, timers: Timers, on_leaving: OnLeaving | None = None
    ) -> None:
        self._receive = receive
        self._on_leaving = on_leaving
        self._timers = timers
        self._gone = False
        self._watch: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        task = asyncio.current_task(self._timers.loop)
        if task is None:
            raise RuntimeError("a caller is watched from within a task")
        self._task = task
        if self._on_leaving is not None:
            self._on_leaving(self._left)
            return self
        self.when = asyncio.get_running_loop().time() + WATCH_AFTER_S
        self._timers.add(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._on_leaving is not None:
            self._on_leaving(None)
        else:
            self._timers.discard(self)
        if self._watch is not None:
            self._watch.cancel()
        if self._gone and kind is asyncio.CancelledError and self._task.uncancel() == 0:
            raise ClientDisconnected from None

    def due(self) -> None:
        self._watch = asyncio.get_running_loop().create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._left()

    def _left(self) -> None:
        self._gone = True
        self._task.cancel()
