"""The interpreter's floor: a proxy on the router's libraries that only parses and forwards.

It reads each request's head and JSON, sends the request on over a kept connection, and reads
the JSON of a whole answer. It has no keys, routes, retries, timeouts or records.
"""

import asyncio
import sys
from collections.abc import Sequence

import httptools
import uvloop
from pydantic_core import from_json

from benchmarks.router.processes import PLAIN, STREAMED, Ask, Peer, Site

HEAD = "POST %s HTTP/1.1\r\nhost: upstream\r\ncontent-type: application/json\r\n"
LENGTH = b"content-length: %d\r\n\r\n"


class Upstream(asyncio.Protocol):
    """A kept connection, and the client whose request it answers."""

    client: "Client"

    def __init__(self, idle: list["Upstream"]) -> None:
        self._idle = idle
        self._reader = httptools.HttpResponseParser(self)
        self._arrived: list[bytes] = []
        self._streamed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.send = transport.write  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self._arrived.append(data)
        self._body = b""
        self._reader.feed_data(data)
        if self._streamed and self._arrived:
            self.client.write(data)
            self._arrived.clear()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._streamed |= name.lower() == b"content-type" and b"event-stream" in value

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if not self._streamed:
            from_json(self._body)
        self.client.write(b"".join(self._arrived))
        self._arrived = []
        self._streamed = False
        self._idle.append(self)


class Client(asyncio.Protocol):
    """One client's connection. Its requests come one after the other."""

    def __init__(self, ports: dict[str, int], idle: dict[str, list[Upstream]]) -> None:
        self._ports = ports
        self._idle = idle
        self._reader = httptools.HttpRequestParser(self)
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.write = transport.write  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self._reader.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._path = url.decode()

    def on_header(self, name: bytes, value: bytes) -> None: ...

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        body = b"".join(self._body)
        self._body.clear()
        kind = from_json(body)["model"]
        request = (HEAD % self._path).encode() + LENGTH % len(body) + body
        asyncio.ensure_future(self._forward(kind, request))  # noqa: RUF006 - the upstream refers to it

    async def _forward(self, kind: str, request: bytes) -> None:
        idle = self._idle[kind]
        if idle:
            upstream = idle.pop()
        else:
            loop = asyncio.get_running_loop()
            port = self._ports[kind]
            _, upstream = await loop.create_connection(
                lambda: Upstream(idle),
                "127.0.0.1",
                port,
            )
        upstream.client = self
        upstream.send(request)


async def serve(port: int, ports: dict[str, int]) -> None:
    idle: dict[str, list[Upstream]] = {kind: [] for kind in ports}
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Client(ports, idle), "127.0.0.1", port)
    await server.serve_forever()


def command(site: Site) -> Sequence[str]:
    ports = map(str, (site.port, site.upstreams[PLAIN], site.upstreams[STREAMED]))
    return [sys.executable, "-m", "benchmarks.router.floor", *ports]


def ask(site: Site, kind: str) -> Ask:  # noqa: ARG001 - an Ask's maker
    return Ask(model=kind)


PEER = Peer("floor", command, ask)


if __name__ == "__main__":
    port, plain, streamed = map(int, sys.argv[1:])
    uvloop.run(serve(port, {PLAIN: plain, STREAMED: streamed}))
