"""A proxy with nothing of the router's: `python -m benchmarks.router.bare CLIENT PORT …`.

uvicorn, a raw ASGI application and one upstream client: what the client alone costs.
"""

import sys
from collections.abc import Mapping

from benchmarks.router.clients import TRANSPORTS
from harness.domain.routing.target import Provider
from harness.domain.settings import RouterSettings
from router.server.asgi import App, Receive, Scope, Send, buffered_body, read_body
from router.server.process import serve
from router.server.timers import Timers
from router.upstream.transport import Transport, UpstreamRequest


def app(transport: Transport, providers: Mapping[str, Provider]) -> App:
    timers = Timers()

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await _lifespan(transport, receive, send)
            return
        body = buffered_body(scope, 1 << 20) or await read_body(receive, 1 << 20, timers)
        kind = scope["path"].split("/", 2)[1]
        request = UpstreamRequest(providers[kind], body, stream=kind == "streamed")
        reply = await transport.send(request)
        try:
            passed = (b"content-type", b"content-length")
            headers = [header for header in reply.headers if header[0] in passed]
            start = {"type": "http.response.start", "status": reply.status, "headers": headers}
            await send(start)
            async for chunk in reply.chunks():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            await reply.aclose()

    return answer


async def _lifespan(transport: Transport, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await transport.aclose()
    await send({"type": "lifespan.shutdown.complete"})


def main() -> None:
    client, port, *upstreams = sys.argv[1:]
    pairs = [upstream.split("=") for upstream in upstreams]
    providers = {k: Provider(k, "custom", f"http://127.0.0.1:{p}/v1") for k, p in pairs}
    serve(app(TRANSPORTS[client](RouterSettings()), providers), port=int(port))


if __name__ == "__main__":
    main()
