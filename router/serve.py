"""Runs the router's application under uvicorn, in this process."""

import socket
from typing import Final

import uvicorn

from router.asgi import App

# Longer than the usual client pools keep a connection, so that they close it first.
KEEP_ALIVE_S: Final = 75


def server(
    app: App, host: str = "127.0.0.1", port: int = 8080, *, drain_s: float = 30.0
) -> uvicorn.Server:
    """A server that is not started yet. drain_s: how long a shutdown waits for requests."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=round(drain_s),
        backlog=2048,
    )
    return uvicorn.Server(config)


def serve(
    app: App,
    host: str = "127.0.0.1",
    port: int = 8080,
    *,
    drain_s: float = 30.0,
    sockets: list[socket.socket] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; then accept nothing new, and let requests end.

    sockets: bound already, instead of host and port. Raises SystemExit when the port is taken.
    """
    server(app, host, port, drain_s=drain_s).run(sockets=sockets)
