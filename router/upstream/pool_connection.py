"""One HTTP/1.1 connection to a provider. It ends at a malformed or unrequested byte.

An unrequested byte could become the next request's answer. `origin_pool` lends connections,
`reply_reading` reads bodies from them. The current request gets a failure as UpstreamFailed;
its text has no address and no content.
"""

import asyncio
import select
from collections.abc import Callable
from enum import Enum, auto
from typing import Final, cast

import httptools

from harness.frame.failures import FailureClass
from router.frame.failure import UpstreamFailed

MAX_HEAD_BYTES: Final = 64 * 1024
# The connection reads this much ahead of a slow client, plus at most one read.
HIGH_WATER_BYTES: Final = 256 * 1024


class ReplyPhase(Enum):
    """The state of a connection's current answer.

    IDLE: it has no request. HEAD: it has sent a request. BODY: the head has arrived.
    DONE: the answer is complete. BROKEN: the answer failed.
    """

    IDLE = auto()
    HEAD = auto()
    BODY = auto()
    DONE = auto()
    BROKEN = auto()


# Up to Python 3.11, the lookup of an enum's member takes ten times as long.
IDLE: Final = ReplyPhase.IDLE
HEAD: Final = ReplyPhase.HEAD
BODY: Final = ReplyPhase.BODY
DONE: Final = ReplyPhase.DONE
BROKEN: Final = ReplyPhase.BROKEN


class PoolConnection(asyncio.Protocol):
    """A connection. A request is one `ask`, then `pass_on` or `read` up to the body's end.

    status, headers: the answer's; header names are in lower case.
    closed: no further request is possible.
    """

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.named: dict[bytes, bytes] = {}  # the last header of each name
        self.closed = False
        self.phase = IDLE
        self.paused = False  # it stopped reading, because the buffer is full
        self._has_received = False
        self._was_used = self._was_used_before = False
        self._waiter: asyncio.Future[None] | None = None
        # Gets bytes as they arrive; None while they wait in `pieces`.
        self._taker: Callable[[bytes], bool] | None = None
        self.pieces: list[bytes] = []
        self.buffered = 0  # bytes in `pieces`
        self._max_bytes = 0  # the limit of the answer's body
        self._left_bytes = 0  # the part of the limit that is left
        self._bytes_without_body = (
            0  # bytes since the last byte of a body: heads, chunk frames, trailers
        )
        self._ends_with_eof = False
        self._keep_alive = False
        self.opening_s = 0.0  # time to open it; 0 for later requests
        self._failure = (FailureClass.CONNECT, "")

    async def ask(self, head: bytes, body: bytes, max_bytes: int) -> None:
        """Sends a request, and waits for the head. Raises UpstreamFailed.

        Args:
            max_bytes: the limit of the answer's body before decoding. Reading more raises
                UpstreamFailed.
        """
        self.headers = []
        self._max_bytes = self._left_bytes = max_bytes
        self._has_received = False
        self._bytes_without_body = 0
        self._keep_alive = self._ends_with_eof = False
        self._was_used_before = self._was_used
        self._was_used = True
        if self.closed:
            raise UpstreamFailed(FailureClass.CONNECT, "closed while it was idle", stale=True)
        self.phase = HEAD
        if len(body) > HIGH_WATER_BYTES:
            self._transport.write(head)
            self._transport.write(body)
        else:
            self._transport.write(head + body)
        while self.phase is HEAD:
            self._waiter = self.loop.create_future()
            await self._waiter
        if self.phase is BROKEN:
            raise UpstreamFailed(
                *self._failure, stale=self._was_used_before and not self._has_received
            )

    def take(self) -> bytes:
        """Returns the buffered bytes, and resumes reading.

        Raises UpstreamFailed for a body that is too large.
        """
        self._left_bytes -= self.buffered
        if self._left_bytes < 0:
            raise too_large(self._max_bytes)
        pieces = self.pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self.buffered = 0
        if self.paused:
            self._resume_reading()
        return data

    def _resume_reading(self) -> None:
        self.paused = False
        if not self.closed:
            self._transport.resume_reading()

    async def read(self) -> bytes:
        """Waits for bytes; returns no bytes at the body's end. Raises UpstreamFailed."""
        while not self.pieces:
            if self.phase is DONE:
                return b""
            if self.phase is BROKEN:
                raise UpstreamFailed(*self._failure)
            self._waiter = self.loop.create_future()
            await self._waiter
        return self.take()

    async def pass_on(self, take: Callable[[bytes], bool]) -> bool:
        """Calls `take` with bytes as they arrive, until the body ends or `take` returns False.

        Returns whether the body ended. Raises UpstreamFailed, and the errors of `take`. A
        stream wakes its task only once, because `data_received` itself calls `take`.
        """
        while True:
            if self.pieces:
                if not take(self.take()):
                    return False
            elif self.phase is DONE:
                return True
            elif self.phase is BROKEN:
                raise UpstreamFailed(*self._failure)
            else:
                self._taker = take
                self._waiter = self.loop.create_future()
                try:
                    await self._waiter
                finally:
                    has_stopped = self._taker is None
                    self._taker = None
                if has_stopped:
                    return False

    def rest(self) -> bool:
        """Prepares the connection for its next request. Returns False if it is unusable."""
        transport = self._transport
        if (
            self.phase is not DONE
            or not self._keep_alive
            or self.closed
            or transport.is_closing()
            or transport.get_write_buffer_size()
        ):
            return False
        self.phase = IDLE
        self.opening_s = 0.0
        self.pieces.clear()
        self.buffered = 0
        if self.paused:
            self._resume_reading()
        return True

    @property
    def quiet(self) -> bool:
        """Whether an idle connection is usable: the provider neither sent bytes nor left."""
        return not (self._transport.is_closing() or self._poll.poll(0))

    def abort(self) -> None:
        """Closes the connection at once. A current answer breaks off."""
        self.closed = True
        self._transport.abort()

    # The event loop calls the following methods.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._poll = select.poll()
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        if self.phase is not HEAD and self.phase is not BODY:
            self.abort()
            return
        self._has_received = True
        self._bytes_without_body += len(data)
        try:
            self._parser.feed_data(data)
        except (
            httptools.HttpParserError,
            httptools.HttpParserUpgrade,
        ) as error:
            self._break(FailureClass.MALFORMED, f"not an HTTP answer: {error}")
        if self._bytes_without_body > MAX_HEAD_BYTES:
            self._break(
                FailureClass.MALFORMED,
                f"{MAX_HEAD_BYTES} bytes without a body",
            )
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            taker = self._taker
            if taker is None or self.phase is not BODY:
                waiter.set_result(None)
            elif self.pieces:
                try:
                    if not taker(self.take()):
                        self._taker = None
                        waiter.set_result(None)
                except Exception as error:  # noqa: BLE001 - the waiting task raises it
                    waiter.set_exception(error)
        if self.buffered > HIGH_WATER_BYTES and not self.closed:
            self.paused = True
            self._transport.pause_reading()

    def eof_received(self) -> None:
        if self.phase is BODY and self._ends_with_eof:
            self.phase = DONE
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        when = "in the answer" if self._has_received else "before the answer"
        why = type(exc).__name__ if exc else "closed"
        self._break(FailureClass.CONNECT, f"{why} {when}")
        self._wake()
        del self._parser  # breaks a reference cycle

    # The parser calls the following methods. They ignore an unrequested second answer. After
    # such an answer, the connection serves no request.

    def on_message_begin(self) -> None:
        if self.phase is DONE:
            self._keep_alive = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.phase is HEAD:  # otherwise a trailer
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self.phase is not HEAD:
            return
        status = self._parser.get_status_code()
        if 100 <= status < 200:  # 100 Continue, 103 Early Hints: the answer follows
            self.headers.clear()
            return
        if (
            status < 200 or self._bytes_without_body > MAX_HEAD_BYTES
        ):  # fewer bytes need no check
            size = sum(len(name) + len(value) for name, value in self.headers)
            if status < 200 or size > MAX_HEAD_BYTES:
                self._break(
                    FailureClass.MALFORMED,
                    f"status {status}, headers of {size} bytes",
                )
                return
        self.named = last_by_name = dict(self.headers)
        coding = last_by_name.get(b"transfer-encoding")
        has_coding = coding is not None
        is_plain = coding == b"chunked" and len(last_by_name) == len(self.headers)
        if has_coding and not is_plain and not _is_chunked(self.headers):
            self._break(
                FailureClass.MALFORMED,
                "a transfer encoding that is not chunked",
            )
            return
        self._ends_with_eof = not has_coding and b"content-length" not in last_by_name
        self.status = status
        self.phase = BODY

    def on_body(self, data: bytes) -> None:
        if self.phase is BODY:
            self.pieces.append(data)
            self.buffered += len(data)
            self._bytes_without_body = 0

    def on_message_complete(self) -> None:
        if self.phase is BODY:
            self.phase = DONE
            self._bytes_without_body = 0
            self._keep_alive = self._parser.should_keep_alive()

    def _break(self, failure: FailureClass, detail: str) -> None:
        """Ends the connection. A complete answer stays valid."""
        self._keep_alive = False
        if self.phase is HEAD or self.phase is BODY:
            self.phase = BROKEN
            self._failure = failure, detail
        if not self.closed:
            self.abort()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def too_large(max_bytes: int) -> UpstreamFailed:
    """Builds the failure for an answer beyond the limit of bytes."""
    return UpstreamFailed(FailureClass.MALFORMED, f"answer larger than {max_bytes} bytes")


def _is_chunked(headers: list[tuple[bytes, bytes]]) -> bool:
    """Returns whether `chunked` is the only transfer encoding."""
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    return all(coding.strip().lower() == b"chunked" for coding in codings)
