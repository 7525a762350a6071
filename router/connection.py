"""One client's connection: uvicorn's, with limits on how much and how slowly it may send.

uvicorn itself would read a head without end, and wait for ever for the rest of a request.
"""

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from router.asgi import REQUEST_ARRIVES_S
from router.replies import error_body

MAX_HEAD_BYTES: Final = 64 * 1024


class HeadTooLarge(Exception):
    """The request line and the headers are over the limit."""


class Connection(HttpToolsProtocol):
    """A head over MAX_HEAD_BYTES is refused; what does not arrive in time is hung up on."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._fed = 0  # bytes, since the last request was complete
        self._in_head = True
        self._head_too_large = False
        self._limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._arrived()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._fed += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._in_head and self._fed > MAX_HEAD_BYTES:
            self._head_too_large = True
            self.send_400_response("")
        elif self._fed and self._limit is None:
            self._wait()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True

    def on_headers_complete(self) -> None:
        if self._fed > MAX_HEAD_BYTES:
            # Perhaps it is the body that came along.
            lines = (len(name) + len(value) + len(b": \r\n") for name, value in self.headers)
            if len(self.url) + sum(lines) > MAX_HEAD_BYTES:
                self._head_too_large = True
                raise HeadTooLarge
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._fed = 0
        self._in_head = True
        self._arrived()

    def send_400_response(self, msg: str) -> None:
        """What cannot be read as HTTP, in the client's own protocol; ends the connection."""
        if self._head_too_large:
            status, code = 431, "headers_too_large"
            msg = f"the request's head is larger than {MAX_HEAD_BYTES} bytes"
        else:
            status, code = 400, "invalid_http"
        body = error_body(msg, "invalid_request_error", code)
        head = b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body)
        closing = b"connection: close\r\n\r\n"
        self.transport.write(STATUS_LINE[status] + head + closing + body)
        self.transport.close()

    def _wait(self) -> None:
        self._limit = self.loop.call_later(REQUEST_ARRIVES_S, self._late)

    def _arrived(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None

    def _late(self) -> None:
        self._limit = None
        if self.cycle is not None and not self.cycle.response_complete:
            self._wait()  # the application is reading, and has a limit of its own
        else:
            self.transport.close()
