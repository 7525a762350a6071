"""Parses one client's HTTP/1.1 within limits, and closes without losing an answer.

It replaces uvicorn's protocol. That protocol takes as much time as all routing may take, reads
a head of any size, and waits for ever for the rest of a request. `request_cycle` has a request
under way, `known_head` a repeated head, `slow_reader` a slow client. This module reads no
path, key or body.
"""

import asyncio
import select
from collections import deque
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, cast
from urllib.parse import unquote

import httptools
from uvicorn.config import Config
from uvicorn.server import ServerState

from router.frame.asgi import (
    ABORTED,
    HEAD_FACTS,
    REQUEST_ARRIVES_S,
    App,
    Scope,
)
from router.frame.replies import error_body
from router.server.known_head import KnownHead
from router.server.request_cycle import RequestCycle, StartQueue, status_line
from router.server.slow_reader import SlowReader

MAX_HEAD_BYTES: Final = 64 * 1024
# The most bytes of a body that wait for the application; the network holds the rest back.
HIGH_WATER_BYTES: Final = 64 * 1024
# How long an ending worker still answers: clients may just have sent their next request.
LINGER_S: Final = 1.0
# After the last answer, the router reads and drops the rest of the client's request. Closing at
# once would reset the connection and lose the answer, because many clients read it only after
# they have sent everything. The limits: seconds in all, seconds without a byte, bytes, and
# bytes of a client that does not send HTTP.
DISCARD_S: Final = 30.0
DISCARD_QUIET_S: Final = 5.0
DISCARD_BYTES: Final = 256 * 1024 * 1024
DISCARD_NO_HTTP_BYTES: Final = 1024 * 1024
# A client that closed its own side of the connection may wait for its answer, or have left. The
# router checks after the first interval, then after twice the last one, up to the longest.
FIRST_LOOK_S = 0.05
LONGEST_LOOK_S = 1.0
_FRAMING: Final = (b"content-length", b"transfer-encoding")
# If the head of a request is known, but its body is incomplete, the parser reads this head
# instead of the client's.
_FRAME: Final = b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n%b"
_ASGI: Final = {"version": "3.0", "spec_version": "2.3"}


class HeadTooLarge(Exception):
    """The head has more than MAX_HEAD_BYTES. The parser reports it as its own error."""


class ConnectionState(ServerState):
    """The state that all connections share.

    ending: each answer is the last one of its connection.
    handed_over: other processes accept for this one, and idle connections may be used once
    more.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ending = False
        self.handed_over = False
        self.starts = StartQueue()
        self.date_lines = b""
        self.lines_of: object = None  # the headers in `date_lines`

    def write_date(self) -> None:
        """Writes the default headers as bytes, once each time the server renews them."""
        self.date_lines = b"".join([b"%b: %b\r\n" % header for header in self.default_headers])
        self.lines_of = self.default_headers


class BodyProtocol:
    """Receives a parser's events for a body after another parser has read the head."""

    def __init__(self, on_body: Callable[[bytes], None], on_end: Callable[[], None]) -> None:
        self.on_body = on_body
        self.on_message_complete = on_end


class Connection(asyncio.Protocol):
    """Answers one client's requests in order, one at a time.

    Refuses heads and trailers over MAX_HEAD_BYTES, and hangs up on slow senders and
    readers.

    full: the client reads too slowly; wait for `wait_until_drained` before you write more.
    paused: the connection reads nothing, because enough bytes or requests wait.
    tasks: the requests under way on all connections, which the server cancels at its end.
    """

    def __init__(
        self,
        config: Config,
        server_state: ConnectionState,
        app_state: dict[str, Any],  # noqa: ARG002 - uvicorn's; nothing is shared that way
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.loop = _loop or asyncio.get_running_loop()
        self.app = cast("App", config.loaded_app)
        self.tasks = server_state.tasks
        self.full = False
        self._state = server_state
        self._keep_alive_s = config.timeout_keep_alive
        self._parser = httptools.HttpRequestParser(self)
        self._arriving: RequestCycle | None = None  # the request whose body is incomplete
        self._current: RequestCycle | None = None  # the request whose answer is due
        self._waiting: deque[RequestCycle] = deque()
        self._known_head: KnownHead | None = None
        self._known_scope: Scope | None = None  # of the head that the parser reads now
        self._fed_bytes = 0  # bytes read of a head, or since the last piece of a body
        self._in_head = True
        self._head_too_large = self.paused = False
        self._refusal: bytes | None = None  # if set, the last bytes to send; reads no more
        self._ending = False  # the server ends, and waits for LINGER_S
        self._discard_timer: asyncio.TimerHandle | None = (
            None  # reads on and drops what arrives
        )
        self._discard_until_s = 0.0
        self._discarded_bytes = self._discarded_bytes_before = 0
        self._look_timer: asyncio.TimerHandle | None = None
        self._arrival_timer: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._idle_since = 0.0

    # The event loop calls the following methods.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._reader = SlowReader(self.transport, self.loop)
        self._client = transport.get_extra_info("peername")
        # The server calls only `shutdown` and `abort` on connections.
        self._state.connections.add(cast("Any", self))
        self._start_arrival_timer()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        """Ends all timers and waiting requests. The request under way learns that the client
        has left.
        """
        self._state.connections.discard(cast("Any", self))
        self._stop_arrival_timer()
        for timer in (self._idle_timer, self._discard_timer, self._look_timer):
            if timer is not None:
                timer.cancel()
        self._waiting.clear()
        self.full = False
        self._reader.leave()
        cycle = self._current
        self._current = None
        if cycle is not None:
            cycle.hang_up()
        # The parser refers to this connection: this breaks the reference cycle.
        del self._parser

    def eof_received(self) -> bool:
        """Returns whether the connection stays open for the answers to whole requests."""
        cycle = self._current
        if cycle is None or self._arriving is not None or self._discard_timer is not None:
            return False
        self._announce_close()
        self._refusal = b""
        # If the client has left, its system now resets the connection.
        cycle.probe()
        self._look_timer = self.loop.call_later(FIRST_LOOK_S, self._check_gone, FIRST_LOOK_S)
        return True

    def _check_gone(self, after_s: float) -> None:
        """Closes the connection if its client has left; else looks again after twice the
        time.
        """
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), 0)
        if poll.poll(0):  # an error, or both sides are closed
            self.transport.abort()
            return
        again_s = min(2 * after_s, LONGEST_LOOK_S)
        self._look_timer = self.loop.call_later(again_s, self._check_gone, again_s)

    def data_received(self, data: bytes) -> None:
        if self._discard_timer is not None and not self._count_discarded(data):
            return
        if self._refusal is not None:
            return
        is_idle = self._current is None and not self._fed_bytes and self._discard_timer is None
        if (
            is_idle
            and self._known_head is not None
            and self._serve_known(self._known_head, data)
        ):
            return
        self._read(data)
        cycle = self._current
        if is_idle and cycle is not None and cycle.keep_alive:
            self._known_head = KnownHead.learn(data, cycle.scope, cycle.unread_bytes)

    def _count_discarded(self, data: bytes) -> bool:
        """Counts bytes that the router reads only to drop them. Beyond the limit, aborts and
        returns False.
        """
        self._discarded_bytes += len(data)
        max_bytes = DISCARD_BYTES if self._refusal is None else DISCARD_NO_HTTP_BYTES
        if self._discarded_bytes > max_bytes:
            self.transport.abort()
            return False
        return True

    def _serve_known(self, head: KnownHead, data: bytes) -> bool:
        """Serves a request whose head is the last one's, without the parser. Returns False
        for another head.
        """
        request = head.read(data)
        if request is None:
            return False
        scope, length, body = request
        if length != len(body):
            self._known_scope = scope
            self._read(_FRAME % (length, body))
            return True
        cycle = RequestCycle(self, scope, body)
        if self._state.ending:
            cycle.keep_alive = False
        self._current = cycle
        self._start_in_turn(cycle)
        return True

    def _start_in_turn(self, cycle: RequestCycle) -> None:
        """Starts a request now, or in a later turn if many requests start at once."""
        if self._state.starts.may_start():
            cycle.start()
        else:
            self._state.starts.wait(cycle, self.loop)

    def _read(self, data: bytes) -> None:
        self._fed_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._refusal is None:
                self._ignore_upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError:
            if self._refusal is None:
                self._refuse()
            return
        if self._fed_bytes > MAX_HEAD_BYTES:
            self._head_too_large = True
            self._refuse()
        elif self._fed_bytes and self._arrival_timer is None:
            self._start_arrival_timer()

    def pause_writing(self) -> None:
        self.full = True
        self._reader.fill()

    def resume_writing(self) -> None:
        self.full = False
        self._reader.drain()

    # The parser calls the following methods.

    def on_message_begin(self) -> None:
        self._in_head = True
        self._expects_100 = False
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return  # a trailer, which may bypass a proxy that checks the headers
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self._expects_100 = True
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._fed_bytes > MAX_HEAD_BYTES:
            # The bytes over the limit may belong to the body that arrived with the head.
            lines = (len(name) + len(value) + len(b": \r\n") for name, value in self._headers)
            if len(self._url) + sum(lines) > MAX_HEAD_BYTES:
                self._head_too_large = True
                raise HeadTooLarge
        self._in_head = False
        self._fed_bytes = 1
        scope = self._known_scope or self._build_scope()
        self._known_scope = None
        cycle = RequestCycle(self, scope)
        cycle.expects_100 = self._expects_100
        cycle.keep_alive = (
            scope["http_version"] == "1.1"
            and self._parser.should_keep_alive()
            and not self._state.ending
        )
        self._arriving = cycle
        if self._current is None:
            self._current = cycle
            self._start_in_turn(cycle)
        else:
            self._waiting.append(cycle)
            self._pause()

    def _build_scope(self) -> Scope:
        path, raw_path, query = _split_url(self._url)
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": self._parser.get_http_version(),
            "method": self._parser.get_method().decode("ascii"),
            "scheme": "http",
            "path": path,
            "raw_path": raw_path,
            "query_string": query,
            "root_path": "",
            "headers": self._headers,
            "client": self._client,
            HEAD_FACTS: {},
        }

    def on_body(self, body: bytes) -> None:
        self._fed_bytes = 1
        if self._arriving is not None and self._arriving.feed(body) > HIGH_WATER_BYTES:
            self._pause()

    def on_message_complete(self) -> None:
        if self._parser.should_upgrade() and self._list_framing():
            return  # the parser believes that the body is another protocol
        self._end_body()

    def _end_body(self) -> None:
        if self._arriving is not None:
            self._arriving.feed_end()
            self._arriving = None
        self._fed_bytes = 0
        self._in_head = True
        self._stop_arrival_timer()
        if self._discard_timer is not None:
            self._refusal = b""
            self._close_now()

    def _list_framing(self) -> list[bytes]:
        return [b"%b: %b\r\n" % header for header in self._headers if header[0] in _FRAMING]

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Ignores a request to upgrade: Java's client asks for HTTP/2 each time."""
        self._announce_close()
        lines = self._list_framing()
        if not lines:
            self._end_last_request()
            return
        self._parser = httptools.HttpRequestParser(
            BodyProtocol(self.on_body, self._end_last_request)
        )
        self.data_received(b"POST / HTTP/1.1\r\n%b\r\n%b" % (b"".join(lines), rest))

    def _end_last_request(self) -> None:
        self._end_body()
        self._refusal = b""
        if self._current is None:
            self._close()

    # The request under way calls the following methods.

    @property
    def date(self) -> bytes:
        state = self._state
        if state.lines_of is not state.default_headers:
            state.write_date()
        return state.date_lines

    def write_in_slices(self, data: bytes, on_written: Callable[[], None]) -> None:
        self._reader.write_in_slices(data, on_written)

    def end_request(self) -> None:
        """Ends the request under way, and begins the next one, closes, or waits for a
        further request.
        """
        cycle = self._current
        self._current = None
        self._state.total_requests += 1
        if cycle is None or self.transport.is_closing():
            return
        if not cycle.keep_alive:
            self._close()
        elif self._waiting:
            self._current = self._waiting.popleft()
            # Start it in a later turn, because pipelined requests would nest hundreds of calls.
            self._state.starts.wait(self._current, self.loop)
            self.resume_reading()
        elif self._refusal is not None:
            self._hang_up()
        else:
            if self.paused:
                self.resume_reading()
            self._idle_since = self.loop.time()
            if self._idle_timer is None:
                self._idle_timer = self.loop.call_later(self._keep_alive_s, self._close_idle)

    def resume_reading(self) -> None:
        """Reads on unless requests already wait, because each further request takes memory."""
        if self.paused and self._refusal is None and not self._waiting:
            self.paused = False
            self.transport.resume_reading()

    async def wait_until_drained(self) -> None:
        """Waits until the client has read enough for more bytes to be written."""
        await self._reader.wait_until_drained()

    # The server calls the following methods.

    def shutdown(self) -> None:
        """Lets the answers under way be the last ones. An idle connection closes after
        LINGER_S.
        """
        if not (self._ending or self._state.handed_over):
            self._ending = True
            self.loop.call_later(LINGER_S, self._close_if_idle)
        self._announce_close()

    def abort(self) -> None:
        """Ends the connection at once, and tells the request under way that its client did not
        leave.
        """
        if self._current is not None:
            self._current.scope[ABORTED] = True
        self.transport.abort()

    def _announce_close(self) -> None:
        """Makes the answer to the last request announce the end of the connection."""
        last = self._waiting[-1] if self._waiting else self._current
        if last is not None:
            last.keep_alive = False

    def _close_if_idle(self) -> None:
        if self._current is None and not self._fed_bytes:
            self._close()

    def _close(self) -> None:
        """Closes once all answers are sent and the rest of the client's request has arrived."""
        if self._arriving is None and not self._refusal:
            self._close_now()
        elif self._discard_timer is None and not self.transport.is_closing():
            self._discard_until_s = self.loop.time() + DISCARD_S
            self._discard_timer = self.loop.call_later(DISCARD_QUIET_S, self._check_discarding)
            self.transport.write_eof()
            if self.paused:
                self.paused = False
                self.transport.resume_reading()

    def _check_discarding(self) -> None:
        is_quiet = self._discarded_bytes == self._discarded_bytes_before
        if is_quiet or self.loop.time() >= self._discard_until_s:
            self._close_now()
            return
        self._discarded_bytes_before = self._discarded_bytes
        self._discard_timer = self.loop.call_later(DISCARD_QUIET_S, self._check_discarding)

    def _close_now(self) -> None:
        self.transport.close()
        self._reader.watch_to_end()

    def _pause(self) -> None:
        if not self.paused:
            self.paused = True
            self.transport.pause_reading()

    def _refuse(self) -> None:
        """Sends a refusal in the client's protocol, after the answers to earlier requests."""
        if self._head_too_large:
            status = 431
            code = "headers_too_large"
            message = f"the request's head is larger than {MAX_HEAD_BYTES} bytes"
        else:
            status = 400
            code = "invalid_http"
            message = "this is not HTTP/1.1"
        body = error_body(message, "invalid_request_error", code)
        head = b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body)
        self._refusal = status_line(status) + head + b"connection: close\r\n\r\n" + body
        broken = self._arriving
        if broken is not None:
            broken.hang_up()
            if broken is self._current:
                self._current = None
                self._refusal = b"" if broken.has_begun else self._refusal
            else:
                self._waiting.remove(broken)
        if self._current is None:
            self._hang_up()

    def _hang_up(self) -> None:
        if self._refusal:
            self.transport.write(self._refusal)
        self._close()

    def _start_arrival_timer(self) -> None:
        self._arrival_timer = self.loop.call_later(REQUEST_ARRIVES_S, self._close_late)

    def _stop_arrival_timer(self) -> None:
        if self._arrival_timer is not None:
            self._arrival_timer.cancel()
            self._arrival_timer = None

    def _close_late(self) -> None:
        """Closes a connection whose request did not arrive in time."""
        self._arrival_timer = None
        if self._current is not None:
            self._start_arrival_timer()  # the application reads, within a time limit of its own
        else:
            self._close_now()

    def _close_idle(self) -> None:
        """Closes an idle connection. A timer for each request would cost more than this."""
        self._idle_timer = None
        if self._current is not None or self._fed_bytes:
            return
        left_s = self._idle_since + self._keep_alive_s - self.loop.time()
        if left_s > 0:
            self._idle_timer = self.loop.call_later(left_s, self._close_idle)
        else:
            self._close()


@lru_cache(maxsize=256)
def _split_url(url: bytes) -> tuple[str, bytes, bytes]:
    # The type stub does not show that `query` may be None.
    parsed: Any = httptools.parse_url(url)
    raw: bytes = parsed.path
    path = raw.decode("ascii")
    return (unquote(path) if "%" in path else path), raw, parsed.query or b""
