"""A uvicorn server that sleeps while it is idle."""

import asyncio
import socket
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, Final

import uvicorn

# How often the date header changes. uvicorn itself checks for a stop ten times as often.
DATE_EVERY_S: Final = 1.0
# So many turns of the event loop after an accept, the connection's protocol has begun.
ACCEPTING_TURNS: Final = 4
STARTUP_FAILURE: Final = 3  # the exit code of `uvicorn.run`


class CalmServer(uvicorn.Server):
    """Wakes once a second and at a stop; uvicorn's own loop wakes ten times a second."""

    _woken: Callable[[], object] | None = None

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

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await stop_accepting(self.servers)
        await super().shutdown(sockets)


async def stop_accepting(servers: Iterable[asyncio.Server]) -> None:
    """Accepts no more, and lets the connections that were just accepted begin: asyncio loses a
    connection without a word if its server is closed first (CPython issue 109564).
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
