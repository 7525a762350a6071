"""An HTTP exchange is one request and its answer over raw ASGI, which faults can break off."""

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

TRANSPORT = "swapgate.transport"
LINGER_ZERO = struct.pack("ii", 1, 0)
FLUSH_S = 0.02


class ClientGone(Exception):
    """The client closed the connection before the answer was complete."""


def encoded(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


class HttpExchange:
    """A request and its answer. `headers` go with every answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: Mapping[str, str] = {}
        self._scope, self._receive, self._send = scope, receive, send
        self.started = False

    @property
    def client_host(self) -> str:
        client = self._scope.get("client")
        return client[0] if client else ""

    def key(self) -> str:
        """The key that was sent, in any of the usual headers; empty for none."""
        sent = {name.lower(): value.decode("latin-1") for name, value in self._scope["headers"]}
        bearer = str(sent.get(b"authorization", "")).removeprefix("Bearer ")
        return bearer or str(sent.get(b"x-api-key") or sent.get(b"api-key") or "")

    async def body(self) -> bytes:
        """Reads the whole request body. Raises ClientGone."""
        message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body"):
            whole: bytes = message["body"]
            return whole
        parts = []
        while message["type"] == "http.request":
            parts.append(message["body"])
            if not message.get("more_body"):
                return b"".join(parts)
            message = await self._receive()
        raise ClientGone

    async def json(self, status: int, value: object) -> None:
        await self.whole(status, encoded(value), "application/json")

    async def whole(self, status: int, body: bytes, content_type: str) -> None:
        await self.start(status, content_type, length=len(body))
        await self.write(body, last=True)

    async def start(self, status: int, content_type: str, *, length: int | None = None) -> None:
        """Send status and headers; without a length the body comes in chunks."""
        headers: Headers = [(b"content-type", content_type.encode())]
        if length is not None:
            headers.append((b"content-length", str(length).encode()))
        headers += [
            (k.lower().encode(), v.encode("latin-1", "replace"))
            for k, v in self.headers.items()
        ]
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, body: bytes, *, last: bool = False) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": not last})

    async def pause(self, seconds: float | None) -> None:
        """Waits, for ever if None. Raises ClientGone as soon as the client leaves."""
        if seconds is not None and seconds <= 0:
            return
        try:
            async with asyncio.timeout(seconds):
                while (await self._receive())["type"] != "http.disconnect":
                    pass
        except TimeoutError:
            return
        raise ClientGone

    async def break_off(self, *, reset: bool) -> None:
        """End the connection under the answer: with a TCP reset, or with a plain close."""
        transport = self._scope["extensions"][TRANSPORT]
        if self.started:
            await asyncio.sleep(FLUSH_S)
        if reset:
            # With a linger time of 0 the kernel answers close() by RST instead of FIN.
            connection: socket.socket = transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
            transport.abort()
        else:
            transport.close()
        await self._gone()

    async def raw(self, data: bytes) -> None:
        """Write past HTTP, waiting while the client's window is full. Raises ClientGone."""
        transport = self._scope["extensions"][TRANSPORT]
        if transport.is_closing():
            raise ClientGone
        transport.write(data)
        # The flow control of the server is not within reach, and memory must stay bounded.
        while transport.get_write_buffer_size() > 2**20 and not transport.is_closing():  # noqa: ASYNC110
            await asyncio.sleep(0.005)

    async def give_way(self) -> None:
        """Let other requests run. Raises ClientGone."""
        await asyncio.sleep(0)
        if self._scope["extensions"][TRANSPORT].is_closing():
            raise ClientGone

    async def _gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
