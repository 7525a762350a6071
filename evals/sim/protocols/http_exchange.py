"""An HTTP exchange is one request and its answer over raw ASGI, which faults can break off."""

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import Mapping

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

TRANSPORT = "swapgate.transport"
LINGER_ZERO = struct.pack("ii", 1, 0)
FLUSH_S = 0.02


def encoded(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


class HttpExchange(Request):
    """A request and its answer. `extra` are headers that go with every answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(scope, receive, send)
        self.path: str = scope["path"]
        self.extra: Mapping[str, str] = {}
        self.started = False

    @property
    def key(self) -> str:
        """The key that was sent, in any of the usual headers; empty for none."""
        bearer = self.headers.get("authorization", "").removeprefix("Bearer ")
        return bearer or self.headers.get("x-api-key") or self.headers.get("api-key", "")

    async def reply(self, status: int, value: object) -> None:
        await self.whole(status, encoded(value), "application/json")

    async def whole(self, status: int, body: bytes, content_type: str) -> None:
        await self.start(status, content_type, length=len(body))
        await self.write(body, last=True)

    async def start(self, status: int, content_type: str, *, length: int | None = None) -> None:
        sized = {} if length is None else {"content-length": str(length)}
        headers = [
            (name.lower().encode(), value.encode("latin-1", "replace"))
            for name, value in {"content-type": content_type, **sized, **self.extra}.items()
        ]
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, body: bytes, *, last: bool = False) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": not last})

    async def pause(self, seconds: float | None) -> None:
        """Waits, for ever if None. Raises ClientDisconnect as soon as the client leaves."""
        if seconds is not None and seconds <= 0:
            return
        try:
            async with asyncio.timeout(seconds):
                while (await self._receive())["type"] != "http.disconnect":
                    pass
        except TimeoutError:
            return
        raise ClientDisconnect

    async def break_off(self, *, reset: bool) -> None:
        transport = self.scope["extensions"][TRANSPORT]
        if self.started:
            await asyncio.sleep(FLUSH_S)
        if reset:
            # With a linger time of 0 the kernel answers close() by RST instead of FIN.
            connection: socket.socket = transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
            transport.abort()
        else:
            transport.close()
        with contextlib.suppress(ClientDisconnect):
            await self.pause(None)

    async def raw(self, data: bytes) -> None:
        """Writes past HTTP, while the client reads. Raises ClientDisconnect."""
        transport = self.scope["extensions"][TRANSPORT]
        transport.write(data)
        # The flow control of the server is not within reach, and memory must stay bounded.
        while transport.get_write_buffer_size() > 2**20 and not transport.is_closing():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        await self.give_way()

    async def give_way(self) -> None:
        """Let other requests run. Raises ClientDisconnect."""
        await asyncio.sleep(0)
        if self.scope["extensions"][TRANSPORT].is_closing():
            raise ClientDisconnect
