"""The background of a worker watches beside all requests: alerts, health checks and guards of
canaries. A fault ends one turn of what watches, and not all its turns.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from router.recording.internal_errors import InternalErrors, RouterPart

# After a fault of what watches.
BEGIN_AGAIN_S: Final = 1.0
Watch = Callable[[], Awaitable[None]]


class Background:
    """What watches in one worker, from `start` to `stop`."""

    def __init__(self, watches: Sequence[Watch], errors: InternalErrors) -> None:
        self._watches = tuple(watches)
        self._errors = errors
        self._tasks: list[asyncio.Future[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.ensure_future(self.keep_up(watch)) for watch in self._watches]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def keep_up(self, watch: Watch) -> None:
        """Runs it again and again, until this is cancelled."""
        while True:
            try:
                await watch()
            except Exception as error:
                self._errors.note(RouterPart.BACKGROUND, error)
            await asyncio.sleep(BEGIN_AGAIN_S)
