"""`InProcessChannel` runs a router's ASGI application in this process, without a socket.

The router is a whole router, with keys, limits, ledger and recording; only the network is left
out. `harness.app.router_process` builds it. The channel starts it at the first request, and
stops it when the client is closed. Imported only on demand, because a client over HTTP needs no
router.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from harness.frame.errors import InputError, RouterUnreachable, StreamBroken
from router.frame.asgi import BODY, ON_LEAVING, App, Message, Scope

MOST_WAITING: Final = 16  # unread pieces of an answer; at this number, the provider waits


@dataclass(frozen=True, slots=True)
class EmbeddedRouter:
    """A router inside another program's process, with the functions that stop it."""

    app: App  # an ASGI application, which needs its lifespan
    stop_following: Callable[[], None]  # stops following the database; may block for a moment
    close: Callable[[], None]  # call it after the lifespan


class AsgiCall:
    """One request to the application, and its answer. Implements `stream.ChannelAnswer`."""

    def __init__(self, scope: Scope, body: bytes) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self._scope: Scope = {
            **scope,
            BODY: body,
            ON_LEAVING: self._on_leaving,
        }
        self._head_arrived = asyncio.Event()
        # None marks the end of the answer.
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue(MOST_WAITING)
        self._is_complete = False
        self._has_left = False
        self._on_leave: Callable[[], None] | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self, app: App) -> asyncio.Task[None]:
        """Begins the request in a task of the running event loop, and returns the task."""
        self._task = asyncio.create_task(self._run(app))
        return self._task

    async def wait_for_head(self) -> None:
        """Waits for the answer's head. Raises RouterUnreachable if the application ends without
        an answer.
        """
        try:
            await self._head_arrived.wait()
        except asyncio.CancelledError:
            self.leave()
            raise
        if not self.status:
            raise RouterUnreachable(f"{self._describe_end()}; there is no answer")

    async def body(self) -> bytes:
        """Reads the whole body. Raises StreamBroken if it is incomplete."""
        return b"".join([piece async for piece in self.pieces()])

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yields the body as it arrives.

        If the reader is slow, the application waits after MOST_WAITING pieces. Raises
        StreamBroken if the application ends early, or the client is closed.
        """
        while (piece := await self._pieces.get()) is not None:
            yield piece
        if self._has_left or not self._is_complete:
            raise StreamBroken(f"{self._describe_end()}; the answer is incomplete")

    async def aclose(self) -> None:
        """Leaves the request, and waits until the application has ended it."""
        self.leave()
        if self._task is not None:
            await asyncio.wait({self._task})

    def leave(self) -> None:
        """Leaves the request like a client that closes its connection. May be called twice."""
        if self._has_left:
            return
        self._has_left = True
        # An empty queue unblocks the application; the None ends a waiting reader.
        while not self._pieces.empty():
            self._pieces.get_nowait()
        self._pieces.put_nowait(None)
        if self._on_leave is not None and not self._is_complete:
            self._on_leave()

    def _describe_end(self) -> str:
        if self._has_left:
            return "this client was closed during the request"
        return "the router in this process failed (its log has the error); send it again"

    async def _run(self, app: App) -> None:
        try:
            await app(self._scope, self._receive, self._send)
        except asyncio.CancelledError:
            self.leave()
            raise
        finally:
            self._head_arrived.set()
            await self._put_piece(None)

    async def _put_piece(self, piece: bytes | None) -> None:
        if not self._has_left:
            await self._pieces.put(piece)

    async def _receive(self) -> Message:
        """Never returns: the scope has the body, and `_on_leaving` reports a disconnect."""
        await asyncio.Event().wait()
        raise AssertionError

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            for name, value in message["headers"]:
                self.headers[name.decode("latin-1")] = value.decode("latin-1")
            self._head_arrived.set()
            return
        self._is_complete = self._is_complete or not message.get("more_body", False)
        if piece := message.get("body", b""):
            await self._put_piece(piece)

    def _on_leaving(self, leave: Callable[[], None] | None) -> None:
        """Stores the application's callback for a disconnect. If the client has left already,
        calls it at once.
        """
        self._on_leave = leave
        if leave is not None and self._has_left:
            leave()


class InProcessChannel:
    """Posts to a router in this process. Implements `stream.Channel`.

    key: a client key, whose routes, limits and budget apply.
    """

    def __init__(self, router: EmbeddedRouter, key: str) -> None:
        self._router = router
        self._key = (
            b"authorization",
            f"Bearer {key}".encode("utf-8", "surrogatepass"),
        )
        self._start_lock = asyncio.Lock()
        self._lifespan: Lifespan | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._calls: dict[asyncio.Task[None], AsgiCall] = {}
        self._closed = False

    async def post(
        self,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
    ) -> AsgiCall:
        """Posts a body, and returns the answer as soon as its head arrives.

        Raises RouterUnreachable if the application fails before the head. Raises InputError if
        the channel is closed, or belongs to another event loop.
        """
        await self._ensure_started()
        further_headers = [(name.encode(), value.encode()) for name, value in headers.items()]
        scope: Scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "headers": [
                self._key,
                (b"content-type", b"application/json"),
                *further_headers,
            ],
        }
        call = AsgiCall(scope, body)
        task = call.start(self._router.app)
        self._calls[task] = call
        task.add_done_callback(self._forget)
        await call.wait_for_head()
        return call

    def _forget(self, task: asyncio.Task[None]) -> None:
        del self._calls[task]
        if not task.cancelled():
            # Otherwise asyncio would also log the error, which the router has logged already.
            task.exception()

    async def _ensure_started(self) -> None:
        """Starts the router at the first request. Raises InputError as `post`."""
        if self._closed:
            raise InputError("this client is closed; create a new client")
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            raise InputError("this client belongs to another event loop; create one per loop")
        async with self._start_lock:
            if self._lifespan is None:
                self._lifespan = Lifespan(self._router.app)
                await self._lifespan.start()

    async def aclose(self) -> None:
        """Ends all requests, then stops the router. Does nothing if it is closed."""
        if self._closed:
            return
        self._closed = True
        for call in self._calls.values():
            call.leave()
        if self._calls:
            await asyncio.wait(list(self._calls))
        # In a thread, because it may wait for the database.
        await asyncio.to_thread(self._router.stop_following)
        if self._lifespan is not None:
            await self._lifespan.stop()
        await asyncio.to_thread(self._router.close)


class Lifespan:
    """The start and the end of an ASGI application (its lifespan protocol)."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._to_app: asyncio.Queue[Message] = asyncio.Queue()
        self._from_app: asyncio.Queue[Message] = asyncio.Queue()

    async def start(self) -> None:
        """Starts the application, and waits until it serves."""
        self._task = asyncio.create_task(self._run())
        self._to_app.put_nowait({"type": "lifespan.startup"})
        await self._from_app.get()

    async def stop(self) -> None:
        """Stops the application, and waits until it has ended."""
        self._to_app.put_nowait({"type": "lifespan.shutdown"})
        await self._task

    async def _run(self) -> None:
        await self._app({"type": "lifespan"}, self._to_app.get, self._from_app.put)
