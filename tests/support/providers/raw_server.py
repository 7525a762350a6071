"""A raw asyncio server sends exactly the bytes that a test gives it, plain or over TLS, reads
requests, and can reset a connection.
"""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from harness.frame.calm_server import stop_accepting
from harness.providers.target import Provider
from router.upstream.transport import UpstreamRequest

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\nok"


@dataclass
class ServerConnection:
    """One accepted connection. number: from 0, in the order of arrival. ended: set once the
    play is over, to its end or because the client closed the connection.
    """

    number: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def request(self) -> tuple[bytes, bytes]:
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        return head, await self.reader.readexactly(length)

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    def reset(self) -> None:
        """Not a mere end: what the client sees is ECONNRESET."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@dataclass
class RawServer:
    port: int = 0
    lines: list[ServerConnection] = field(default_factory=list)
    secure: bool = False

    def ask(self, body: bytes = b"{}", *, stream: bool = False) -> UpstreamRequest:
        scheme, host = ("https", "localhost") if self.secure else ("http", "127.0.0.1")
        where = f"{scheme}://{host}:{self.port}/v1"
        return UpstreamRequest(Provider("raw", "custom", where), body, stream)


Play = Callable[[ServerConnection], Awaitable[None]]


async def end_server(server: asyncio.Server) -> None:
    """Ends a server and all else of its loop."""
    await stop_accepting([server])
    server.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await abort_connections()


async def abort_connections() -> None:
    """Closes every connection of the running loop, also one whose client takes no more bytes
    and one whose task was cancelled before it began: a loop that is closed closes none.
    """
    transports: Mapping[int, asyncio.Transport] = getattr(
        asyncio.get_running_loop(), "_transports", {}
    )
    for transport in [*transports.values()]:
        # A transport of asyncio's that is over has no loop left to say so.
        with suppress(AttributeError):
            transport.abort()
    await asyncio.sleep(0)


@asynccontextmanager
async def raw_server(play: Play, tls: ssl.SSLContext | None = None) -> AsyncIterator[RawServer]:
    """Serves raw connections.

    Args:
        play: what happens on each connection; it is closed afterwards.
    """
    server = RawServer(secure=tls is not None)
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        line = ServerConnection(len(server.lines), reader, writer)
        server.lines.append(line)
        try:
            await play(line)
        except (
            asyncio.IncompleteReadError,
            ConnectionError,
            asyncio.CancelledError,
        ):
            pass
        finally:
            line.ended.set()
            writer.close()

    listening = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        await stop_accepting([listening])
        listening.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for line in server.lines:
            # A transport of asyncio's that is over has no loop left to say so.
            with suppress(AttributeError):
                line.writer.transport.abort()
        await asyncio.sleep(0)


async def answer_forever(line: ServerConnection) -> None:
    while True:
        await line.request()
        await line.send(OK)
