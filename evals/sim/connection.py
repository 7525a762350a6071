"""uvicorn's HTTP connection, with the door that faults go through."""

import asyncio
import socket

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from evals.sim.protocols.http_exchange import TRANSPORT

GRACE_S = 1.0


class BreakableProtocol(HttpToolsProtocol):
    """Hands the transport to the application, so that it can reset the connection."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        # Not part of ASGI's types: our own extension.
        self.scope["extensions"] = {TRANSPORT: self.transport}  # type: ignore[dict-item]


class SimServer(uvicorn.Server):
    """Ends cleanly although some answers hang on purpose."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().call_later(GRACE_S, self._abort_open)
        await super().shutdown(sockets)

    def _abort_open(self) -> None:
        for connection in list(self.server_state.connections):
            if isinstance(connection, BreakableProtocol):
                connection.transport.abort()


def server(app: object, *, limit_s: float = 5.0) -> SimServer:
    """A server for one process; sockets are given when it runs."""
    config = uvicorn.Config(
        app,  # type: ignore[arg-type] # uvicorn's own names for the same ASGI types
        http=BreakableProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=round(limit_s),
    )
    return SimServer(config)
