"""Limits on waits, by timers, and on memory, by maps of the latest entries.

`Timers` limits hundreds of waits with one check every few milliseconds. `asyncio.timeout` and
`call_later` cost more than the rest of an attempt's bookkeeping.
"""

import asyncio
from collections.abc import Callable, ValuesView
from functools import cached_property
from itertools import islice
from operator import attrgetter
from types import TracebackType
from typing import Final, Generic, Protocol, Self, TypeVar

# A timer may fire this much late.
TICK_S: Final = 0.01


class Timer(Protocol):
    """`Timers` calls `due` once, at `when` (the event loop's clock).

    A timer may move its `when` while it is set.
    """

    when: float

    def due(self) -> None: ...


class Timers:
    """The timers of one event loop: the loop that adds the first timer."""

    def __init__(self) -> None:
        self._pending: set[Timer] = set()
        self._check_timer: asyncio.TimerHandle | None = None
        # Removing a timer that has fired is allowed.
        self.discard: Callable[[Timer], None] = self._pending.discard

    @cached_property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop, cached: up to Python 3.11, asyncio needs a system call for it."""
        return asyncio.get_running_loop()

    def add(self, timer: Timer) -> None:
        """Sets a timer. It fires at most TICK_S late while the event loop is free."""
        self._pending.add(timer)
        if self._check_timer is None:
            self._check_timer = self.loop.call_later(TICK_S, self._fire_due)

    def limit(self, when: float) -> "TimeLimit":
        """Returns a limit for a block that ends at `when`, on the event loop's clock."""
        return TimeLimit(self, when)

    def _fire_due(self) -> None:
        loop = self.loop
        now = loop.time()
        due = [timer for timer in self._pending if timer.when <= now]
        if due:
            self._pending.difference_update(due)
            # After a stall, several timers are due at once: the earliest fires first.
            due.sort(key=attrgetter("when"))
        for timer in due:
            timer.due()
        self._check_timer = loop.call_later(TICK_S, self._fire_due) if self._pending else None


class TimeLimit:
    """Limits a block like `asyncio.timeout_at`, up to TICK_S late. It is reusable.

    A block with many waits sets `when` before each wait, and calls `is_own_cancellation` if a
    wait was cancelled: that is cheaper than a block for each wait.
    """

    __slots__ = ("_cancelling", "_reached", "_task", "_timers", "when")

    def __init__(self, timers: Timers, when: float) -> None:
        self._timers = timers
        self.when = when
        self._reached = False

    def __enter__(self) -> Self:
        task = asyncio.current_task(self._timers.loop)
        if task is None:
            raise RuntimeError("TimeLimit needs a running task; use it in a coroutine")
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
        if self.is_own_cancellation() and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def is_own_cancellation(self) -> bool:
        """Undoes the limit's cancellation of the task.

        Returns False if other code cancelled the task, too: that cancellation must continue.
        """
        is_reached = self._reached
        self._reached = False
        return is_reached and self._task.uncancel() <= self._cancelling

    def due(self) -> None:
        self._reached = True
        self._task.cancel()


K = TypeVar("K")

V = TypeVar("V")


class BoundedMap(Generic[K, V]):
    """A map of the latest entries: at least `min_entries`, at most a sixteenth more.

    An entry that is put again is the latest one. Reading an entry does not renew it.
    """

    def __init__(self, min_entries: int) -> None:
        # It removes several entries at once, because deleted entries slow a dict's iteration.
        self._surplus = min_entries // 16 + 1
        self._max_entries = min_entries + self._surplus
        self._entries: dict[K, V] = {}

    def put(self, key: K, value: V) -> None:
        entries = self._entries
        if len(entries) >= self._max_entries:
            for oldest in list(islice(entries, self._surplus)):
                del entries[oldest]
        entries.pop(key, None)
        entries[key] = value

    def get(self, key: K) -> V | None:
        return self._entries.get(key)

    def pop(self, key: K) -> V | None:
        return self._entries.pop(key, None)

    def values(self) -> ValuesView[V]:
        return self._entries.values()

    def __len__(self) -> int:
        return len(self._entries)
