"""ASGI types and helpers: heads, bodies, replies, and the notice that a client left.

Our own server (`router.server`) adds the scope keys below, which spare a task and a second
read of the head. Each helper also works without them, under any ASGI server. Nothing here
depends on a request's path or protocol.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

from router.frame.limits import Timers
from router.frame.replies import Header, Reply

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# The time in which a request must arrive; uvicorn has no such limit.
REQUEST_ARRIVES_S: Final = 30.0
# Most requests to a fast provider end sooner, and need no watch.
WATCH_AFTER_S: Final = 0.02


class BodyTooLarge(Exception):
    """The request's body is longer than its path allows."""


class ClientDisconnected(Exception):
    """The client closed the connection before its request or its answer was complete."""


# Scope key of our server: the complete body, if it arrived with the head. `receive` returns it,
# too.
BODY: Final = "swapproof_body"
# Scope key of our server: a function that takes a callback for the client's disconnect, or
# None to remove it. Without it, a task must wait for `receive`.
ON_LEAVING: Final = "swapproof_on_leaving"
# Scope key of our server: a dictionary for facts from the head alone, without content-length.
# The connection's next requests with the same head share it.
HEAD_FACTS: Final = "swapproof_head_facts"
# Scope key of our server, with the value True: the server itself ends the connection, because
# the process ends. The client has not left.
ABORTED: Final = "swapproof_aborted"
OnLeaving = Callable[[Callable[[], None] | None], None]
# Writes a piece of an answer's body; returns False if the piece must go through `send`.
WritePiece = Callable[[bytes], bool]
# Writes a whole answer: status, headers with its length, body. Returns False if it must go
# through `send`.
WriteWhole = Callable[[int, Sequence[Header], bytes], bool]


def refuse_piece(piece: bytes) -> bool:  # noqa: ARG001 - a WritePiece
    return False


def refuse_whole(status: int, headers: Sequence[Header], body: bytes) -> bool:  # noqa: ARG001 - a WriteWhole
    return False


def piece_writer(send: Send) -> WritePiece:
    """Returns the function of our server that writes a piece without a coroutine.

    A `send` that changes an answer, or of another server, has no such function.
    """
    cycle = getattr(send, "__self__", None)
    return getattr(cycle, "write_piece", refuse_piece)


def whole_writer(send: Send) -> WriteWhole:
    """Returns the function of our server that writes a whole answer, as `piece_writer` does."""
    cycle = getattr(send, "__self__", None)
    return getattr(cycle, "write_whole", refuse_whole)


def header(scope: Scope, name: bytes) -> bytes | None:
    """Returns the first value of a header; None without one.

    Args:
        name: in lower case.
    """
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None


def buffered_body(scope: Scope, max_bytes: int) -> bytes | None:
    """Returns the body if it arrived with the head, else None. Raises BodyTooLarge."""
    length = header(scope, b"content-length")
    if length is not None and length.isdigit() and int(length) > max_bytes:
        raise BodyTooLarge
    body: bytes | None = scope.get(BODY)
    if body is not None and len(body) > max_bytes:
        raise BodyTooLarge
    return body


async def read_body(
    receive: Receive,
    max_bytes: int,
    timers: Timers,
) -> bytes:
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


async def send_reply(
    send: Send,
    reply: Reply,
    headers: Iterable[Header],
) -> None:
    """Sends a whole reply with its content-length.

    Args:
        headers: added to the reply's own.
    """
    status, own_headers, body = reply
    all_headers = [
        *own_headers,
        *headers,
        (b"content-length", b"%d" % len(body)),
    ]
    if not whole_writer(send)(status, all_headers, body):
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": all_headers,
            }
        )
        await send({"type": "http.response.body", "body": body})


class DisconnectWatch:
    """Cancels its block when the caller disconnects; its exit raises ClientDisconnected.

    on_leaving: our server's notice of a disconnect (ON_LEAVING). Without it, a task reads
    `receive` once the block has lasted WATCH_AFTER_S. Use it in a coroutine, or it raises
    RuntimeError.
    """

    def __init__(
        self,
        receive: Receive,
        timers: Timers,
        on_leaving: OnLeaving | None = None,
    ) -> None:
        self._receive = receive
        self._on_leaving = on_leaving
        self._timers = timers
        self._has_left = False
        self._watch_task: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        task = asyncio.current_task(self._timers.loop)
        if task is None:
            raise RuntimeError("DisconnectWatch needs a running task; use it in a coroutine")
        self._task = task
        if self._on_leaving is not None:
            self._on_leaving(self._cancel_block)
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
        if self._watch_task is not None:
            self._watch_task.cancel()
        if self._has_left and kind is asyncio.CancelledError and self._task.uncancel() == 0:
            raise ClientDisconnected from None

    def due(self) -> None:
        """Begins to wait for the client's disconnect; `Timers` calls it."""
        self._watch_task = asyncio.get_running_loop().create_task(self._await_disconnect())

    async def _await_disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._cancel_block()

    def _cancel_block(self) -> None:
        self._has_left = True
        self._task.cancel()
