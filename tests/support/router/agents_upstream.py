"""A small agents process that answers with a test's bytes, and keeps what it was sent."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.support.providers.raw_server import end_server
from tests.support.router.live_router import wait_until


@dataclass
class PassedRequest:
    line: str  # method, target and version
    headers: list[tuple[str, str]]  # names in lower case
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value for header, value in self.headers if header == name]


@dataclass(frozen=True)
class AgentsLine:
    """The connection that a request came on, and the server that it came to."""

    server: "AgentsUpstream"
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def until_left(self) -> None:
        """Until the router closes the connection."""
        while await self.reader.read(100):
            pass


# Answers one request; the connection stays open when it returns True.
Play = Callable[[PassedRequest, AgentsLine], Awaitable[bool]]


@dataclass
class AgentsUpstream:
    play: Play
    port: int = 0
    requests: list[PassedRequest] = field(default_factory=list)
    open_connections: int = 0
    accepted: int = 0
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    writers: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def kill(self) -> None:
        """As kill -9: every connection is reset."""
        for writer in self.writers:
            self.loop.call_soon_threadsafe(writer.transport.abort)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self.open_connections += 1
        self.writers.add(writer)
        try:
            while await self._serve_one(AgentsLine(self, reader, writer)):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open_connections -= 1
            writer.close()
            self.writers.discard(writer)

    async def _serve_one(self, line: AgentsLine) -> bool:
        head = (await line.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.rstrip("\r\n").split("\r\n")
        parted = [header.partition(":") for header in lines]
        headers = [(name.lower(), value.strip()) for name, _, value in parted]
        length = int(dict(headers).get("content-length", "0"))
        request = PassedRequest(first, headers, await line.reader.readexactly(length))
        self.requests.append(request)
        goes_on = await self.play(request, line)
        await line.writer.drain()
        return goes_on


def answer(
    body: bytes = b'{"id":"ag_1"}',
    *,
    status: str = "200 OK",
    more: str = "",
) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{more}"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@contextmanager
def running_agents(play: Play) -> Iterator[AgentsUpstream]:
    upstream = AgentsUpstream(play)
    stopped = asyncio.Event()

    async def run() -> None:
        server = await asyncio.start_server(upstream.accept, "127.0.0.1", upstream.port)
        upstream.port = server.sockets[0].getsockname()[1]
        await stopped.wait()
        await end_server(server)

    def serve() -> None:
        upstream.loop.run_until_complete(run())
        upstream.loop.close()

    thread = threading.Thread(target=serve)
    thread.start()
    wait_until(lambda: upstream.port)
    try:
        yield upstream
    finally:
        upstream.loop.call_soon_threadsafe(stopped.set)
        thread.join(60)
