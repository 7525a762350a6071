"""Carries one request of a connection through the application, and writes its answer.

It has the ASGI functions `receive` and `send`, and tells the application when the client has
left. It checks that an answer has the length that its head announces. `StartQueue` spreads the
starts of many requests over turns of the event loop, so that a burst does not delay the
answers under way.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Protocol

from router.frame.asgi import BODY, ON_LEAVING, Message, Scope
from router.frame.replies import Header
from router.recording.internal_errors import place_of

if TYPE_CHECKING:
    from router.server.connection import Connection


# Fewer starts in a turn would bring no first answer earlier: the rest of a turn takes a
# hundredth of the time of these starts.
STARTS_IN_A_TURN: Final = 8


class Startable(Protocol):
    """A request that can start."""

    @property
    def gone(self) -> bool:
        """Whether the client has hung up."""
        ...

    def start(self) -> None:
        """Runs the request from now on."""


class StartQueue:
    """Limits how many requests of all connections start in one turn of the event loop.

    The count starts again only after a request had to wait, because asyncio does not announce
    turns. So a request may wait for the next turn although none has started in this turn.
    """

    __slots__ = ("_started", "_waiting")

    def __init__(self) -> None:
        self._started = 0
        self._waiting: deque[Startable] = deque()

    def may_start(self) -> bool:
        """Counts a request that may start at once; returns False if it must `wait`."""
        if self._started >= STARTS_IN_A_TURN:
            return False
        self._started += 1
        return True

    def wait(self, request: Startable, loop: asyncio.AbstractEventLoop) -> None:
        """Starts a request in a later turn, unless its client has left by then."""
        if not self._waiting:
            loop.call_soon(self._begin_turn, loop)
        self._waiting.append(request)

    def _begin_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        waiting = self._waiting
        self._started = min(len(waiting), STARTS_IN_A_TURN)
        # Use a callback for each, so that a failing start does not prevent later starts.
        for _ in range(self._started):
            loop.call_soon(_start, waiting.popleft())
        if waiting:
            loop.call_soon(self._begin_turn, loop)


def _start(request: Startable) -> None:
    if not request.gone:
        request.start()


log = logging.getLogger(__name__)

_DISCONNECT: Final = {"type": "http.disconnect"}
# The most bytes of a whole answer that one write hands to the socket.
SLICE_BYTES: Final = 128 * 1024
_BODILESS: Final = (204, 304)
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
# A comment in an event stream, as an HTTP chunk.
_EMPTY_COMMENT: Final = b"3\r\n:\n\n\r\n"


class RequestCycle:
    """One request and its answer.

    has_begun: the head of the answer is sent.
    keep_alive: more requests may follow on the connection.
    expects_100: the client waits for permission to send the body.
    body: the whole body, if it arrived with the head.
    """

    # Initial values are class attributes, because setting them on each request would take time.
    has_begun: bool = False
    keep_alive: bool = True
    expects_100: bool = False
    complete: bool = False
    _gone: bool = False
    _leaving_callback: Callable[[], None] | None = None
    # Bytes of the request's body that wait in `_body_parts`.
    _waiting_bytes: int = 0
    _more_body: bool = True
    _has_news: bool = False
    _waiter: asyncio.Future[None] | None = None
    # The head of the answer, until the first bytes of its body are sent with it.
    _head: bytes = b""
    _chunked: bool = False
    _is_event_stream: bool = False
    _is_last_sent: bool = False
    # Bytes of the answer's body that are still to come; None without a content-length.
    _bytes_left: int | None = None
    _task: asyncio.Task[None] | None = None

    def __init__(
        self,
        connection: "Connection",
        scope: Scope,
        body: bytes | None = None,
    ) -> None:
        self.scope = scope
        self._connection = connection
        self._body_parts: list[bytes] = []
        if body is not None:
            self._body_parts.append(body)
            self._waiting_bytes = len(body)
            self._more_body = False
            self._has_news = True

    def start(self) -> None:
        """Runs the application for this request in a task."""
        connection = self._connection
        self._task = connection.loop.create_task(self._run())
        connection.tasks.add(self._task)

    @property
    def gone(self) -> bool:
        """Whether the client has hung up."""
        return self._gone

    def feed(self, body: bytes) -> int:
        """Takes a piece of the request's body; returns how many bytes wait for the
        application.
        """
        if self.complete:
            return 0
        self._body_parts.append(body)
        self._waiting_bytes += len(body)
        self._wake()
        return self._waiting_bytes

    @property
    def unread_bytes(self) -> int:
        return self._waiting_bytes

    def feed_end(self) -> None:
        """Notes that the request's body is complete."""
        self._more_body = False
        self._wake()

    def hang_up(self) -> None:
        """Tells the application that the client has left."""
        self._gone = True
        self._wake()
        if self._leaving_callback is not None:
            self._leaving_callback()

    def probe(self) -> None:
        """Sends bytes that every HTTP/1.1 client ignores; HTTP/1.0 has no such bytes."""
        if self.scope["http_version"] != "1.1":
            return
        if not self.has_begun:
            self._connection.transport.write(_CONTINUE)
        elif self._is_event_stream and not (self._head or self._is_last_sent):
            self._connection.transport.write(_EMPTY_COMMENT)

    def on_leaving(self, callback: Callable[[], None] | None) -> None:
        """Sets the function to call when the client leaves; None removes it.

        Calls the function at once if the client has left already.
        """
        self._leaving_callback = callback
        if callback is not None:
            if self._connection.paused:
                # A paused connection does not notice that the client leaves.
                self._connection.resume_reading()
            if self._gone:
                callback()

    async def receive(self) -> Message:
        """Returns the bytes of the body that have arrived, or a disconnect. The ASGI
        `receive`.
        """
        connection = self._connection
        if self.expects_100:
            self.expects_100 = False
            if not (self.has_begun or connection.transport.is_closing()):
                connection.transport.write(_CONTINUE)
        while not (self._has_news or self._gone or self.complete):
            connection.resume_reading()
            self._waiter = connection.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self._gone or self.complete:
            return _DISCONNECT
        body = self._join_body()
        self._has_news = False
        self._body_parts = []
        self._waiting_bytes = 0
        return {
            "type": "http.request",
            "body": body,
            "more_body": self._more_body,
        }

    async def send(self, message: Message) -> None:
        """Writes a part of the answer, after the client has made room for it. The ASGI `send`.

        Raises RuntimeError for messages out of order, and for a wrong length. After the
        client has left, it writes nothing.
        """
        if self._connection.full and not self._gone:
            await self._connection.wait_until_drained()
        if self._gone:
            return
        if message["type"] == "http.response.start" and not self.has_begun:
            self._prepare_head(message["status"], message["headers"])
        elif (
            message["type"] == "http.response.body"
            and self.has_begun
            and not self._is_last_sent
        ):
            self._write_body(
                message.get("body", b""),
                more=message.get("more_body", False),
            )
        else:
            raise RuntimeError(f"the application sent {message['type']} out of order")

    def write_piece(self, piece: bytes) -> bool:
        """Writes a piece of a begun answer without a length. Returns False if `send` must
        write it: the head is still to be sent, or the client has no room or has left.
        """
        connection = self._connection
        is_open = self._chunked and not (self._head or self._is_last_sent)
        if not is_open or self._gone or connection.full:
            return False
        connection.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        return True

    def write_whole(self, status: int, headers: Sequence[Header], body: bytes) -> bool:
        """Writes a whole answer. Returns False if `send` must write it: the client has no room
        or has left, or an answer has begun.
        """
        if self.has_begun or self._gone or self._connection.full:
            return False
        self._prepare_head(status, headers)
        self._write_body(body, more=False)
        return True

    def _prepare_head(self, status: int, headers: Sequence[Header]) -> None:
        """Prepares the answer's head, to be sent with the first bytes of its body."""
        header_by_name = dict(headers)
        lines = list(map(b": ".join, headers))
        if header_by_name.get(b"connection") == b"close":
            self.keep_alive = False
        elif not self.keep_alive:
            lines.append(b"connection: close")
        length = header_by_name.get(b"content-length")
        if self.scope["method"] == "HEAD" or status in _BODILESS:
            self._bytes_left = 0
        elif length is not None:
            self._bytes_left = int(length)
        elif self.scope["http_version"] == "1.1":
            self._chunked = True
            self._is_event_stream = header_by_name.get(b"content-type", b"").startswith(
                b"text/event-stream"
            )
            lines.append(b"transfer-encoding: chunked")
        head = b"\r\n".join(lines)
        if head.count(b"\n") != len(lines) - 1:
            raise RuntimeError("a header contains a line break")
        self._head = b"%b%b%b\r\n\r\n" % (
            status_line(status),
            self._connection.date,
            head,
        )
        self.has_begun = True

    def _write_body(self, body: bytes, *, more: bool) -> None:
        """Writes a piece of the body, as a chunk if the answer's length is unknown."""
        if self.scope["method"] == "HEAD":
            body = b""
        if self._bytes_left is not None:
            self._bytes_left -= len(body)
            if self._bytes_left < 0 or (self._bytes_left and not more):
                raise RuntimeError("the body's length differs from its content-length")
        elif self._chunked:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if not more:
                body += b"0\r\n\r\n"
        data = self._head + body
        self._head = b""
        self._is_last_sent = not more
        if len(data) > SLICE_BYTES and not more:
            # The application has finished, so its task need not wait for a slow client.
            self._connection.write_in_slices(data, self._note_written)
            return
        if data:
            self._connection.transport.write(data)
        if not more:
            self._note_written()

    def _note_written(self) -> None:
        self.complete = True
        self._wake()
        self._connection.end_request()

    async def _run(self) -> None:
        connection = self._connection
        self.scope[ON_LEAVING] = self.on_leaving
        if not (self._more_body or self.expects_100):
            self.scope[BODY] = self._join_body()
        try:
            await connection.app(self.scope, self.receive, self.send)
        except Exception as error:  # noqa: BLE001 - its message may contain content
            log.error("an answer broke off: %s", place_of(error))  # noqa: TRY400
        finally:
            if self._task is not None:
                connection.tasks.discard(self._task)
            del self.scope[ON_LEAVING]  # breaks a reference cycle
            if not self._is_last_sent:
                connection.transport.close()

    def _join_body(self) -> bytes:
        return self._body_parts[0] if len(self._body_parts) == 1 else b"".join(self._body_parts)

    def _wake(self) -> None:
        self._has_news = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


@lru_cache(maxsize=128)
def status_line(status: int) -> bytes:
    """Returns the first line of an answer's head."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()
