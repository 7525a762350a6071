"""Starts few of the requests that come at once in one turn of the event loop.

So the first answer of many is on its way before the last request is.
"""

import asyncio
from collections import deque
from typing import Final, Protocol

# Fewer would bring no first answer earlier: a turn of the loop costs a hundredth of so many.
STARTS_IN_A_TURN: Final = 8


class Startable(Protocol):
    """A request that can start."""

    @property
    def gone(self) -> bool:
        """Tells whether its client has hung up."""
        ...

    def start(self) -> None: ...


class StartQueue:
    """Counts the starts on all connections. Nothing says that a turn begins: where the count is
    full because of turns before, a request waits for the end of its own.
    """

    __slots__ = ("_started", "_waiting")

    def __init__(self) -> None:
        self._started = 0
        self._waiting: deque[Startable] = deque()

    def takes(self) -> bool:
        """Counts a request that may start at once; False for one that is to wait."""
        if self._started >= STARTS_IN_A_TURN:
            return False
        self._started += 1
        return True

    def wait(self, request: Startable, loop: asyncio.AbstractEventLoop) -> None:
        """Has a request start in a later turn, unless its client has gone by then."""
        if not self._waiting:
            loop.call_soon(self._begin_turn, loop)
        self._waiting.append(request)

    def _begin_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        waiting = self._waiting
        self._started = min(len(waiting), STARTS_IN_A_TURN)
        # Each by itself: a fault in one start is not the others'.
        for _ in range(self._started):
            loop.call_soon(_start, waiting.popleft())
        if waiting:
            loop.call_soon(self._begin_turn, loop)


def _start(request: Startable) -> None:
    if not request.gone:
        request.start()
