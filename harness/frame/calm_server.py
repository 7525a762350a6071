"""A uvicorn server that sleeps while it is idle."""

import asyncio
import socket
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, Final

import uvicorn

# The date header changes once a second. uvicorn itself wakes ten times as often.
WAKE_EVERY_S: Final = 1.0
# After an accept, the event loop needs this many turns to begin the connection's protocol.
ACCEPTING_TURNS: Final = 4
STARTUP_FAILURE: Final = 3  # the exit code of `uvicorn.run`


class CalmServer(uvicorn.Server):
    """Wakes once a second and at a stop; uvicorn's own loop wakes ten times a second."""

    _wake: Callable[[], object] | None = None

    @property
    def should_exit(self) -> bool:
        return self._should_exit

    @should_exit.setter
    def should_exit(self, value: bool) -> None:
        self._should_exit = value
        if self._wake is not None:
            self._wake()

    async def main_loop(self) -> None:
        stop = asyncio.Event()
        self._wake = partial(asyncio.get_running_loop().call_soon_threadsafe, stop.set)
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), WAKE_EVERY_S)
        self._wake = None

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await stop_accepting(self.servers)
        await super().shutdown(sockets)


async def stop_accepting(servers: Iterable[asyncio.Server]) -> None:
    """Stops accepting connections, and lets the protocols of the accepted connections begin.

    If a server closes before that, asyncio drops the connection silently (CPython issue
    109564).
    """
    loop = asyncio.get_running_loop()
    for server in servers:
        for listener in server.sockets:
            loop.remove_reader(listener.fileno())
    for _ in range(ACCEPTING_TURNS):
        await asyncio.sleep(0)


def run_app(app: Any, **config: Any) -> None:
    """Serves an ASGI application until a signal, like `uvicorn.run`."""
    server = CalmServer(uvicorn.Config(app, **config))
    with suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        sys.exit(STARTUP_FAILURE)
