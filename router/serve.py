"""Runs the router's application in uvicorn's server, in this process."""

import gc
import resource
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import uvicorn

from router.asgi import App
from router.connection import Connection

# Longer than the usual client pools keep a connection, so that they close it first.
KEEP_ALIVE_S: Final = 75
ENOUGH_FILES: Final = 65_536
STOP: Final = (signal.SIGTERM, signal.SIGINT)
# Requests leave no cycles behind, but thousands of live objects: Python's own thresholds look
# at all of them hundreds of times a second, a seventh of the time a request takes.
COLLECT_AFTER: Final = (50_000, 50, 100)


class Server(uvicorn.Server):
    """Ends by returning: uvicorn raises the signal again, and the process dies of it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {each: signal.signal(each, self.handle_exit) for each in STOP}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    async def _wait_tasks_to_complete(self) -> None:
        # A connection that was accepted a moment ago does not know yet.
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await super()._wait_tasks_to_complete()


def allow_connections() -> None:
    """As many open files as the system lets us have: the usual 1024 are as many clients."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # What macOS calls unlimited, it refuses.
    wanted = ENOUGH_FILES if most == resource.RLIM_INFINITY else min(most, ENOUGH_FILES)
    if now != resource.RLIM_INFINITY and now < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def server(
    app: App, host: str = "127.0.0.1", port: int = 8080, *, drain_s: float = 30.0
) -> Server:
    """A server that is not started yet. drain_s: how long a shutdown waits for requests."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=Connection,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        # Nothing here asks for the caller's address.
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(drain_s)),
        backlog=2048,
    )
    return Server(config)


def serve(
    app: App,
    host: str = "127.0.0.1",
    port: int = 8080,
    *,
    drain_s: float = 30.0,
    sockets: list[socket.socket] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; then accept nothing new, let requests end, return.

    sockets: bound already, instead of host and port. Raises SystemExit when the port is taken.
    """
    allow_connections()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
    server(app, host, port, drain_s=drain_s).run(sockets=sockets)
