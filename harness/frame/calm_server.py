"""A uvicorn server that sleeps while it is idle."""

import asyncio
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

import uvicorn

# How often the date header changes. uvicorn itself checks for a stop ten times as often.
DATE_EVERY_S: Final = 1.0
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


def run_app(app: Any, **config: Any) -> None:
    """Serves an ASGI application until a signal, like `uvicorn.run`."""
    server = CalmServer(uvicorn.Config(app, **config))
    with suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        sys.exit(STARTUP_FAILURE)
