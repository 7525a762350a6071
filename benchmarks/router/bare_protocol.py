"""A proxy with nothing at all: our own server protocol and the pool, no ASGI.

`python -m benchmarks.router.bare_protocol CLIENT PORT …`: what uvicorn costs beside it.
"""

import asyncio
import sys
from collections.abc import Mapping
from typing import cast

import httptools
import uvloop

from benchmarks.router.clients import TRANSPORTS
from harness.domain.routing.target import Provider
from harness.domain.settings import RouterSettings
from router.upstream.transport import Transport, UpstreamRequest

HEAD = b"HTTP/1.1 %d X\r\ncontent-type: %s\r\n"


class Server(asyncio.Protocol):
    """One request at a time. Without limits, time-outs, back-pressure or a graceful end."""

    def __init__(self, upstream: Transport, providers: Mapping[str, Provider]) -> None:
        self._upstream = upstream
        self._providers = providers
        self._parser = httptools.HttpRequestParser(self)
        self._tasks: set[asyncio.Task[None]] = set()
        self._path = ""
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._path = url.decode("ascii")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        body = b"".join(self._body)
        self._body.clear()
        task = asyncio.get_running_loop().create_task(self._answer(body))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, body: bytes) -> None:
        kind = self._path.split("/", 2)[1]
        request = UpstreamRequest(self._providers[kind], body, stream=kind == "streamed")
        reply = await self._upstream.send(request)
        headers = dict(reply.headers)
        head = HEAD % (reply.status, headers[b"content-type"])
        length = headers.get(b"content-length")
        if length is not None:
            whole = b"".join([chunk async for chunk in reply.chunks()])
            self._transport.write(head + b"content-length: %s\r\n\r\n" % length + whole)
        else:
            self._transport.write(head + b"transfer-encoding: chunked\r\n\r\n")
            async for chunk in reply.chunks():
                self._transport.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            self._transport.write(b"0\r\n\r\n")
        await reply.aclose()


async def serve(client: str, port: int, providers: Mapping[str, Provider]) -> None:
    upstream = TRANSPORTS[client](RouterSettings())
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Server(upstream, providers), "127.0.0.1", port)
    await server.serve_forever()


def main() -> None:
    client, port, *upstreams = sys.argv[1:]
    pairs = [upstream.split("=") for upstream in upstreams]
    providers = {k: Provider(k, "custom", f"http://127.0.0.1:{p}/v1") for k, p in pairs}
    uvloop.run(serve(client, int(port), providers))


if __name__ == "__main__":
    main()
