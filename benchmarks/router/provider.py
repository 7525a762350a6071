"""The cheapest provider that still speaks HTTP: one fixed answer, plain or streamed."""

import asyncio
from typing import cast

from router.stream import DONE

CHUNKS = 20
_BODY = (
    b'{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,'
    b'"finish_reason":"stop","message":{"role":"assistant","content":"'
    + b"word "
    * 60
    + b'"}}],'
    b'"usage":{"prompt_tokens":40,"completion_tokens":60,"total_tokens":100}}'
)
_EVENT = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":'
    b'[{"index":0,"delta":{"content":"word "},"finish_reason":%s}]}\n\n'
)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


PLAIN = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (
    len(_BODY),
    _BODY,
)
HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
EVENTS = [_chunk(_EVENT % b"null")] * (CHUNKS - 1)
LAST = _chunk(_EVENT % b'"stop"') + _chunk(DONE) + b"0\r\n\r\n"


class Provider(asyncio.Protocol):
    def __init__(self) -> None:
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            if len(self._buffer) < end + 4 + length:
                return
            body = self._buffer[end + 4 : end + 4 + length]
            self._buffer = self._buffer[end + 4 + length :]
            if b'"stream":true' in body:
                loop = asyncio.get_running_loop()
                self._transport.write(HEAD)
                loop.call_soon(self._next, 0)
            else:
                self._transport.write(PLAIN)

    def _next(self, sent: int) -> None:
        """One write per event, each in a turn of its own: as a model's tokens come."""
        if sent < len(EVENTS):
            self._transport.write(EVENTS[sent])
            asyncio.get_running_loop().call_soon(self._next, sent + 1)
        else:
            self._transport.write(LAST)


async def serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Provider, "127.0.0.1", port)
    await server.serve_forever()
