"""Runs the application in uvicorn's server, and shuts it down in steps."""

import asyncio
import gc
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Final, cast

import uvicorn

from router.frame.asgi import App
from router.server.connection import Connection, ConnectionState
from router.workers.parent import HAND_OVER, KEEP_ALIVE_S, STOP, open_listeners

ENOUGH_FILES: Final = 65_536
TICK_S: Final = 0.1
# As often answers say another time. uvicorn looks ten times as often whether it is to stop.
DATE_EVERY_S: Final = 1.0
# Of an answer, for each client, beyond what is under way to it.
UNSENT_BYTES: Final = 128 * 1024
# Requests leave no cycles behind, but thousands of live objects: Python's own thresholds look
# at all of them hundreds of times a second, a seventh of the time a request takes.
COLLECT_AFTER: Final = (50_000, 50, 100)


class WorkerServer(uvicorn.Server):
    """Ends by returning: uvicorn raises the signal again, and the process dies of it. It goes
    in steps: `on_stop`, the delay in which it serves as before, its listeners closed, its
    requests ended within drain_s.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        drain_s: float,
        shutdown_delay_s: float,
        on_stop: Callable[[], None] | None,
    ) -> None:
        self._woken: Callable[[], object] | None = None
        super().__init__(config)
        self.server_state: ConnectionState = ConnectionState()
        self._drain_s = drain_s
        self._delay_s = shutdown_delay_s
        self._on_stop = on_stop
        self._delayed = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        for listener in sockets or ():
            bound_unsent(listener)
        await super().startup(sockets)

    @property
    def should_exit(self) -> bool:
        return self._should_exit

    @should_exit.setter
    def should_exit(self, value: bool) -> None:
        self._should_exit = value
        if self._woken is not None:
            self._woken()

    async def main_loop(self) -> None:
        stop = asyncio.Event()
        self._woken = partial(asyncio.get_running_loop().call_soon_threadsafe, stop.set)
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), DATE_EVERY_S)
        self._woken = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in STOP}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's
        state = self.server_state
        if sig == HAND_OVER:
            state.handed_over = not self.should_exit
        else:
            state.handed_over = False
            self._delayed = sig == signal.SIGTERM and not self.should_exit
            if self._on_stop is not None:
                self._on_stop()
        state.ending = self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.server_state.ending = True
        await self._wait_for_balancers()
        # Whoever is in the queue by now is let in; when the last process has closed it, the
        # next one is refused.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for closable in (*self.servers, *(sockets or ())):
            closable.close()
        await self._drain()
        # A loop that ends closes no connection. Each request that is under way ends as one whose
        # client has left, and is recorded so.
        for connection in list(self.server_state.connections):
            cast("Connection", connection).transport.abort()
        if self.server_state.tasks:
            await asyncio.sleep(TICK_S)
        for task in self.server_state.tasks:
            task.cancel()
        await self.lifespan.shutdown()
        await asyncio.sleep(0)

    async def _wait_for_balancers(self) -> None:
        until = time.monotonic() + self._delay_s
        while self._delayed and time.monotonic() < until:
            await asyncio.sleep(TICK_S)
            await self.on_tick(0)  # answers go on to say what time it is

    async def _drain(self) -> None:
        state = self.server_state
        handed_over = state.handed_over
        until = time.monotonic() + self._drain_s + (KEEP_ALIVE_S if handed_over else 0)
        while (state.connections or state.tasks) and time.monotonic() < until:
            if handed_over and not state.handed_over:  # and now the others end as well
                handed_over = False
                until = time.monotonic() + self._drain_s
            # Again and again: one that was accepted a moment ago does not know yet.
            for connection in list(state.connections):
                connection.shutdown()
            await asyncio.sleep(TICK_S)


def bound_unsent(listener: socket.socket) -> None:
    """Left alone, the system takes megabytes for each slow reader: a stream is read and looked
    through that far ahead of its client, in one burst.
    """
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    if option is not None:
        with suppress(OSError):  # of a Unix socket
            listener.setsockopt(socket.IPPROTO_TCP, option, UNSENT_BYTES)


def allow_connections() -> None:
    """Lifts the limit of open files: the usual 1024 are as many clients."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # What macOS calls unlimited, it refuses.
    wanted = ENOUGH_FILES if most == resource.RLIM_INFINITY else min(most, ENOUGH_FILES)
    if now != resource.RLIM_INFINITY and now < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def server(
    app: App,
    host: str = "127.0.0.1",
    port: int = 8080,
    *,
    drain_s: float = 30.0,
    shutdown_delay_s: float = 0.0,
    on_stop: Callable[[], None] | None = None,
) -> WorkerServer:
    """Makes a server. drain_s: how long a shutdown waits. on_stop: called as it begins."""
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
        # They are looked at where the caller's address is, for wrong keys alone.
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        backlog=2048,
    )
    return WorkerServer(
        config, drain_s=drain_s, shutdown_delay_s=shutdown_delay_s, on_stop=on_stop
    )


def serve(made: WorkerServer, sockets: list[socket.socket] | None = None) -> None:
    """Serves until a signal. sockets: bound already. Raises ConfigError: no port."""
    allow_connections()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
    made.run(sockets=sockets or open_listeners(made.config.host, made.config.port))
