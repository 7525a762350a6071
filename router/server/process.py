"""Runs the application in uvicorn's server, and shuts it down in steps.

A worker of several, and a router that is one process, both run here.
`router.workers.parent` sends the signals. Connections are parsed in `connection`; uvicorn
only accepts them. The garbage collector's thresholds are set here, for the whole process.
"""

import asyncio
import gc
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final, cast

import uvicorn

from harness.frame.calm_server import CalmServer, stop_accepting
from router.frame.asgi import App
from router.server.connection import Connection, ConnectionState
from router.workers.parent import (
    HAND_OVER,
    KEEP_ALIVE_S,
    STOP,
    open_listeners,
)

MAX_OPEN_FILES: Final = 65_536
TICK_S: Final = 0.1
# How much of an answer may wait in a client's socket, besides bytes in transit.
UNSENT_BYTES: Final = 128 * 1024
# Requests leave no reference cycles, but thousands of live objects. With Python's default
# thresholds, the collector scans them hundreds of times a second: a seventh of a request's
# time.
COLLECT_AFTER: Final = (50_000, 50, 100)


class WorkerServer(CalmServer):
    """Returns after a signal, while uvicorn would raise the signal again and kill the process.

    A shutdown has four steps: it calls `on_stop`, serves as before for shutdown_delay_s, closes
    the listeners, and waits up to drain_s for the requests under way.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        drain_s: float,
        shutdown_delay_s: float,
        on_stop: Callable[[], None] | None,
    ) -> None:
        super().__init__(config)
        self.server_state: ConnectionState = ConnectionState()
        self._drain_s = drain_s
        self._delay_s = shutdown_delay_s
        self._on_stop = on_stop
        self._waits_for_balancers = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Bounds the send buffers of the listeners before the server accepts."""
        for listener in sockets or ():
            bound_unsent(listener)
        await super().startup(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handlers = {number: signal.signal(number, self.handle_exit) for number in STOP}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's
        """Begins the shutdown that a signal asks for; a second signal may shorten it."""
        state = self.server_state
        if sig == HAND_OVER:
            state.handed_over = not self.should_exit
        else:
            state.handed_over = False
            self._waits_for_balancers = sig == signal.SIGTERM and not self.should_exit
            if self._on_stop is not None:
                self._on_stop()
        state.ending = self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Closes the listeners, waits for the requests under way, and ends the rest."""
        self.server_state.ending = True
        await self._wait_for_balancers()
        # The server still accepts the connections that are queued by now. Once the last process
        # has closed the queue, the system refuses new connections.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await stop_accepting(self.servers)
        for closable in (*self.servers, *(sockets or ())):
            closable.close()
        await self._drain()
        # Abort the connections, because the ending event loop would not close them. Their
        # requests end as if their clients had left, but are no evidence of a canary.
        for connection in list(self.server_state.connections):
            cast("Connection", connection).abort()
        if self.server_state.tasks:
            await asyncio.sleep(TICK_S)
        for task in self.server_state.tasks:
            task.cancel()
        await self.lifespan.shutdown()
        await asyncio.sleep(0)

    async def _wait_for_balancers(self) -> None:
        until = time.monotonic() + self._delay_s
        while self._waits_for_balancers and time.monotonic() < until:
            await asyncio.sleep(TICK_S)
            await self.on_tick(0)  # updates the date header

    async def _drain(self) -> None:
        """Waits until all connections and requests have ended, at most drain_s.

        After a hand-over, clients may use their connections for KEEP_ALIVE_S more.
        """
        state = self.server_state
        handed_over = state.handed_over
        until = time.monotonic() + self._drain_s + (KEEP_ALIVE_S if handed_over else 0)
        while (state.connections or state.tasks) and time.monotonic() < until:
            if handed_over and not state.handed_over:  # the other processes end as well
                handed_over = False
                until = time.monotonic() + self._drain_s
            # Repeat this, because new connections may have been accepted.
            for connection in list(state.connections):
                connection.shutdown()
            await asyncio.sleep(TICK_S)


def bound_unsent(listener: socket.socket) -> None:
    """Bounds the send buffers. By default the system buffers megabytes for each slow reader,
    and the router would read and check a stream that far ahead of its client.
    """
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    if option is not None:
        with suppress(OSError):  # a Unix socket has no such option
            listener.setsockopt(socket.IPPROTO_TCP, option, UNSENT_BYTES)


def allow_connections() -> None:
    """Increases the limit of open files: the usual 1,024 would also limit the clients."""
    soft_limit, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS refuses the value that it reports as unlimited.
    limit = (
        MAX_OPEN_FILES
        if hard_limit == resource.RLIM_INFINITY
        else min(hard_limit, MAX_OPEN_FILES)
    )
    if soft_limit != resource.RLIM_INFINITY and soft_limit < limit:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard_limit))


def server(
    app: App,
    host: str = "127.0.0.1",
    port: int = 8080,
    *,
    drain_s: float = 30.0,
    shutdown_delay_s: float = 0.0,
    on_stop: Callable[[], None] | None = None,
) -> WorkerServer:
    """Builds a server.

    Args:
        drain_s: how long a shutdown waits.
        on_stop: called as it begins.
    """
    config = uvicorn.Config(
        app,
        interface="asgi3",
        host=host,
        port=port,
        http=Connection,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        # `Callers` reads these headers, and only to count wrong keys by address.
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        backlog=2048,
    )
    return WorkerServer(
        config,
        drain_s=drain_s,
        shutdown_delay_s=shutdown_delay_s,
        on_stop=on_stop,
    )


def serve(worker_server: WorkerServer, sockets: list[socket.socket] | None = None) -> None:
    """Serves until a signal.

    Args:
        sockets: already bound.

    Raises ConfigError if the port is taken.
    """
    allow_connections()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
    worker_server.run(
        sockets=sockets or open_listeners(worker_server.config.host, worker_server.config.port)
    )
