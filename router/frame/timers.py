"""Bounds hundreds of waits by one look every few milliseconds.

`asyncio.timeout` and `call_later` cost more than the rest of an attempt's bookkeeping.
"""

import asyncio
from collections.abc import Callable
from functools import cached_property
from operator import attrgetter
from types import TracebackType
from typing import Final, Protocol, Self

# How much later than due a timer may go off.
TICK_S: Final = 0.01


class Timer(Protocol):
    """Has its `due` called once, at `when`."""

    # On the event loop's clock. It is made by its owner, so that removing it frees everything.
    when: float

    def due(self) -> None: ...


class Timers:
    """The timers of one event loop: the loop that sets the first."""

    def __init__(self) -> None:
        self._set: set[Timer] = set()
        self._looks: asyncio.TimerHandle | None = None
        # Removes a timer, also one that went off.
        self.discard: Callable[[Timer], None] = self._set.discard

    @cached_property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Returns the event loop. Up to Python 3.11, asyncio takes a system call to say it."""
        return asyncio.get_running_loop()

    def add(self, timer: Timer) -> None:
        self._set.add(timer)
        if self._looks is None:
            self._looks = self.loop.call_later(TICK_S, self._fire_due)

    def limit(self, when: float) -> "TimeLimit":
        return TimeLimit(self, when)

    def _fire_due(self) -> None:
        loop = self.loop
        now = loop.time()
        due = [timer for timer in self._set if timer.when <= now]
        if due:
            self._set.difference_update(due)
            # After a stall several are due at one look: the earlier ones still come first.
            due.sort(key=attrgetter("when"))
        for timer in due:
            timer.due()
        self._looks = loop.call_later(TICK_S, self._fire_due) if self._set else None


class TimeLimit:
    """Limits a block as `asyncio.timeout_at` does, up to a tick late; again and again."""

    __slots__ = ("_cancelling", "_reached", "_task", "_timers", "when")

    def __init__(self, timers: Timers, when: float) -> None:
        self._timers = timers
        self.when = when
        self._reached = False

    def __enter__(self) -> Self:
        task = asyncio.current_task(self._timers.loop)
        if task is None:
            raise RuntimeError("only what a task does can be limited")
        self._task = task
        self._cancelling = task.cancelling()
        self._reached = False
        self._timers.add(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timers.discard(self)
        # Someone else may have cancelled the task as well, who is not to be held up.
        if (
            self._reached
            and self._task.uncancel() <= self._cancelling
            and kind is asyncio.CancelledError
        ):
            raise TimeoutError from error

    def due(self) -> None:
        self._reached = True
        self._task.cancel()
