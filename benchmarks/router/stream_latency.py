"""A provider that streams: CHUNKS events, one every PACE_S, as a quick model's tokens come."""

import asyncio
import sys
from typing import cast

import uvloop

CHUNKS = 100
PACE_S = 0.01
EVENT = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":'
    b'[{"index":0,"delta":{"content":"word "},"logprobs":null,"finish_reason":%s}]}\n\n'
)
HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


NEXT = chunk(EVENT % b"null")
LAST = chunk(EVENT % b'"stop"') + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


class Streamer(asyncio.Protocol):
    def __init__(self, active: dict["Streamer", int]) -> None:
        self._active = active
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        self._active.pop(self, None)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        if b"content-length:" in head:
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            whole = len(self._buffer) >= end + 4 + length
        else:
            whole = self._buffer.endswith(b"0\r\n\r\n")
        if whole:
            self._buffer = b""
            # The first token at once: what a contender adds to it shows.
            self._transport.write(HEAD + NEXT)
            self._active[self] = 1

    def tick(self, sent: int) -> bool:
        """Whether more is to come."""
        self._transport.write(NEXT if sent < CHUNKS - 1 else LAST)
        return sent < CHUNKS - 1


async def serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    active: dict[Streamer, int] = {}
    await loop.create_server(lambda: Streamer(active), "127.0.0.1", port)
    due = loop.time()
    while True:
        due = max(due + PACE_S, loop.time())
        await asyncio.sleep(due - loop.time())
        for streamer, sent in list(active.items()):
            if streamer.tick(sent):
                active[streamer] = sent + 1
            else:
                del active[streamer]


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
