"""Slows targets whose provider asked for a pause, and lets requests wait for their turn.

The rules are in `harness.routing.reliability.slowdown`. The turns of a target are in the
machine's book of rates, so that all workers together keep the gap. A worker learns of a
slowdown by its own first refusal.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from typing import Final

from harness.frame.people.limits import RateState
from harness.frame.ports import RateBook
from harness.routing.reliability.slowdown import (
    RequestSize,
    Slowdown,
    TooLarge,
    Turns,
    begin_slowdown,
    find_too_large,
    refuse_probe,
    reserve_turn,
    start_turns,
    widen_turns,
)

# The beginning of a target's name in the book of rates.
_BOOK_PREFIX: Final = "pause:"
_NO_TURNS: Final = Turns()


class TargetTurn(Enum):
    """How a request may go to a target."""

    FREE = "free"  # the target is not slowed
    PROBE = "probe"  # the request tests the slowed target
    NONE = "none"  # not now


class Slowdowns:
    """The slowed targets of one worker, by id, for one event loop.

    on_pause: called with the pause in seconds, if requests stop for a time.
    """

    def __init__(self, monotonic: Callable[[], float], book: RateBook) -> None:
        self._monotonic = monotonic
        self._book = book
        self.slowed: dict[str, Slowdown] = {}  # an entry may be over already
        self.on_pause: Callable[[str, float], None] | None = None
        self._reserved: set[str] = set()  # targets at which a request waits for the next turn
        # Requests that wait for a turn or a probe's result, with their size.
        self._waiting: dict[str, list[tuple[RequestSize, asyncio.Future[None]]]] = {}
        self._too_large: dict[str, TooLarge] = {}

    def current(self, target: str, now: float) -> Slowdown | None:
        """Returns a target's slowdown; None if it has none, or its pause is over."""
        slowdown = self.slowed.get(target)
        if slowdown is not None and slowdown.until <= now:
            self.end(target)
            return None
        return slowdown

    def rest_s(self, target: str) -> float:
        """Returns the rest of the pause that the provider asked for, in seconds."""
        now = self._monotonic()
        slowdown = self.current(target, now)
        return 0.0 if slowdown is None else slowdown.rest_s(now)

    def note_refusal(
        self,
        target: str,
        size: RequestSize,
        pause_s: float,
        *,
        exhausted: bool,
    ) -> None:
        """Slows a target after a refusal, unless its size is known to be the cause.

        Args:
            size: of the refused request.
            pause_s: the pause that the provider asked for.
            exhausted: the provider reports that no request remains.
        """
        now = self._monotonic()
        before = self.current(target, now)
        if before is None and not exhausted and self.is_too_large(target, size):
            return
        turns = self._change(target, lambda turns: start_turns(turns, now, pause_s))
        after = begin_slowdown(before, turns, now, pause_s, size, exhausted=exhausted)
        self._store(target, before, after)

    def is_too_large(self, target: str, size: RequestSize) -> bool:
        """Returns whether the size of a refused request is known to be the cause."""
        too_large = self._too_large.get(target)
        return too_large is not None and too_large.explains(size, self._monotonic())

    def note_refused_probe(
        self,
        target: str,
        size: RequestSize,
        pause_s: float | None,
        *,
        exhausted: bool,
    ) -> None:
        """Doubles a target's gap after a refused probe.

        Args:
            size: of the probe.
        """
        now = self._monotonic()
        before = self.current(target, now)
        if before is None:  # its pause ended while the probe was under way
            if pause_s:
                self.note_refusal(target, size, pause_s, exhausted=exhausted)
            return
        rest_s = before.rest_s(now) if pause_s is None else pause_s
        turns = self._change(target, lambda turns: widen_turns(turns, now, rest_s))
        after = refuse_probe(before, turns, size, now, pause_s, exhausted=exhausted)
        self._store(target, before, after)

    def end(self, target: str, accepted: RequestSize | None = None) -> bool:
        """Ends a slowdown: after a good answer, or because a person asked for it.

        Returns whether the provider refused only requests that were too large.

        Args:
            accepted: the size of the probe that got a good answer.
        """
        slowdown = self.slowed.pop(target, None)
        too_large = None
        if slowdown is not None:
            self._too_large.pop(target, None)
            if accepted is not None:
                too_large = find_too_large(slowdown, accepted)
            if too_large is not None:
                self._too_large[target] = too_large
            self._change(target, lambda _: _NO_TURNS)
        self._wake(target)
        return too_large is not None

    async def take_turn(
        self,
        target: str,
        size: RequestSize,
        patience_s: float,
        *,
        waited: bool = False,
    ) -> TargetTurn:
        """Waits for a request's turn at a target.

        Args:
            patience_s: the longest wait in seconds; 0 to wait for no turn.
            waited: the request itself was refused, and has waited as the provider asked.

        A good answer to an earlier probe lets all waiting requests go.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + patience_s
        while True:
            now = self._monotonic()
            slowdown = self.current(target, now)
            if slowdown is None:
                return TargetTurn.FREE
            left_s = until - loop.time()
            may_wait = left_s > 0 and (
                slowdown.may_wait(size) or (waited and not slowdown.exhausted)
            )
            if target in self._reserved and may_wait:
                # Another request has the next turn. Its answer may also end the slowdown.
                await self._wait_for_news(target, size, left_s)
                continue
            may_go = slowdown.may_go(size) or may_wait
            wait_s = self._reserve(
                target, slowdown, size, left_s if may_wait else 0.0, may_go=may_go
            )
            if wait_s is None:
                return TargetTurn.FREE
            if wait_s <= 0:
                return TargetTurn.PROBE
            if not may_wait or left_s < wait_s:
                return TargetTurn.NONE
            if not await self._wait_reserved_turn(target, size, wait_s):
                return TargetTurn.PROBE

    async def _wait_reserved_turn(self, target: str, size: RequestSize, wait_s: float) -> bool:
        """Waits for a reserved turn; returns whether news of the target comes before it.

        At its end, even if the caller leaves, it wakes the next waiting request.
        """
        self._reserved.add(target)
        try:
            return await self._wait_for_news(target, size, wait_s)
        finally:
            self._reserved.discard(target)
            self._wake(target, most=1)

    def _reserve(
        self,
        target: str,
        slowdown: Slowdown,
        size: RequestSize,
        patience_s: float,
        *,
        may_go: bool,
    ) -> float | None:
        """Takes the next turn if it comes within `patience_s`. Returns the seconds until the
        next turn; None if another worker's good answer ended the slowdown.
        """
        now = self._monotonic()
        waits_s: list[float] = []

        def change(turns: Turns) -> Turns:
            waits_s.append(slowdown.with_turns(turns).wait_s(now, size))
            may_take = may_go and turns.is_slowed and waits_s[-1] <= patience_s
            return reserve_turn(turns, now + waits_s[-1]) if may_take else turns

        turns = self._change(target, change)
        if not turns.is_slowed:
            self.end(target)
            return None
        self.slowed[target] = slowdown.with_turns(turns)
        return waits_s[-1] if may_go else slowdown.rest_s(now)

    async def _wait_for_news(self, target: str, size: RequestSize, wait_s: float) -> bool:
        """Waits for news of the target; returns whether it comes within `wait_s`."""
        news = asyncio.get_running_loop().create_future()
        entry = size, news
        self._waiting.setdefault(target, []).append(entry)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await news
                return True
        finally:
            waiting = self._waiting[target]
            waiting.remove(entry)
            if not waiting:
                del self._waiting[target]
        return False

    def _wake(self, target: str, most: int | None = None) -> None:
        """Wakes waiting requests, the smallest first: it is the likeliest to succeed.

        Args:
            most: how many; None for all.
        """
        entries = [entry for entry in self._waiting.get(target, ()) if not entry[1].done()]
        for _, news in sorted(entries, key=lambda entry: entry[0].total)[:most]:
            news.set_result(None)

    def _store(self, target: str, before: Slowdown | None, after: Slowdown) -> None:
        """Stores a slowdown. Wakes the waiting requests if their turns are void."""
        self.slowed[target] = after
        stops = after.exhausted and (before is None or not before.exhausted)
        if stops or (before is not None and after.turns.gap_s != before.turns.gap_s):
            self._wake(target)
        if stops and self.on_pause is not None:
            self.on_pause(target, after.rest_s(self._monotonic()))

    def _change(self, target: str, change: Callable[[Turns], Turns]) -> Turns:
        """Changes a target's turns for all workers, and returns them."""
        new_turns: list[Turns] = []

        def change_state(state: RateState) -> RateState:
            new_turns.append(change(Turns(*state)))
            return RateState(*new_turns[-1])

        self._book.change(f"{_BOOK_PREFIX}{target}", change_state)
        return new_turns[-1]
