"""The rate gate delays calls, so that all eval workers of a machine keep a provider's limits.

The limits hold for both arms of a comparison and for judges alike, and include the pauses that
a provider asks for. A slot is a file that its holder has locked: the kernel frees it however
the process ends.
"""

import asyncio
import fcntl
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from harness.domain.content_hash import short_hash
from harness.domain.reliability.rate_limits import (
    EvalLimits,
    RateDecision,
    RateLimit,
    RateState,
    admit_request,
    settle_request,
)
from harness.ports import RateBook

SHORTEST_NAP_S: Final = 0.01
LONGEST_SLOT_NAP_S: Final = 0.2


class Slots:
    """Holds `count` slots, each a locked file of the folder: all processes of this machine that
    use the same folder and count share them.
    """

    def __init__(self, folder: Path, count: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._count = count
        self._files: dict[int, int] = {}
        self._ours: set[int] = set()
        # One at a time looks for a free slot; the others come in order.
        self._first = asyncio.Lock()

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Waits until one is free. Raises OSError when the folder fails."""
        slot = await self._acquire()
        try:
            yield
        finally:
            self._left(slot)

    def close(self) -> None:
        for file in self._files.values():
            os.close(file)
        self._files.clear()

    def _left(self, slot: int) -> None:
        self._ours.discard(slot)
        if slot in self._files:
            fcntl.flock(self._files[slot], fcntl.LOCK_UN)

    async def _acquire(self) -> int:
        nap_s = SHORTEST_NAP_S
        async with self._first:
            while True:
                for slot in range(self._count):
                    if slot not in self._ours and self._try_lock(slot):
                        self._ours.add(slot)
                        return slot
                await asyncio.sleep(nap_s * JITTER.uniform(0.5, 1.5))
                nap_s = min(LONGEST_SLOT_NAP_S, nap_s * 1.5)

    def _try_lock(self, slot: int) -> bool:
        if slot not in self._files:
            file = self._folder / f"{slot}.lock"
            self._files[slot] = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._files[slot], fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


# As most tokenizers have it for English; other text is settled once the provider has counted.
BYTES_PER_TOKEN: Final = 4
LONGEST_NAP_S: Final = 5.0
# Those who were all told to wait must not all come back at one moment.
SPREAD_S: Final = 0.25
NO_LIMITS: Final = EvalLimits()
# Chance only keeps waiting workers apart; no result depends on it.
JITTER: Final = random.Random()  # noqa: S311 - as above


@dataclass(frozen=True, slots=True)
class RateGates:
    limits: Mapping[str, EvalLimits]  # by provider
    book: RateBook  # book, folder: shared by all workers of this machine
    folder: Path  # of the slots of all providers

    def gate_for(self, provider: str) -> "RateGate":
        """Opens the gate for one client of a provider; close it in the same event loop."""
        limits = self.limits.get(provider, NO_LIMITS)
        most = limits.max_concurrent
        # A provider's name may hold what a file's name may not.
        slots = Slots(self.folder / short_hash(provider).hex(), most) if most else None
        return RateGate(provider, limits.rate, self.book, slots)


@dataclass(frozen=True, slots=True)
class RateGate:
    provider: str
    limit: RateLimit
    book: RateBook
    slots: Slots | None  # None for no limit of calls under way
    # One at a time waits for the rate; the others come in order.
    _first: asyncio.Lock = field(default_factory=asyncio.Lock)

    @asynccontextmanager
    async def acquire(self, request_bytes: int) -> AsyncIterator[Callable[[int], None]]:
        """Waits until a request of about that size may go, and holds its slot.

        Gives a callback that takes the number of tokens used. Raises OSError when the folder of
        the slots fails.
        """
        tokens = request_bytes / BYTES_PER_TOKEN
        async with AsyncExitStack() as stack:
            if self.slots is not None:
                await stack.enter_async_context(self.slots.one())
            async with self._first:
                # What is waited for is in a file: others change it, and nothing tells us.
                while (wait_s := self._wait_s(tokens)) > 0:  # noqa: ASYNC110 - as above
                    await asyncio.sleep(min(LONGEST_NAP_S, wait_s))
            yield lambda actual: self._settle(tokens, actual)

    def hold(self, seconds: float) -> None:
        """Keeps all who share the book from asking the provider for so long: it said so."""
        until = time.monotonic() + seconds + JITTER.uniform(0, SPREAD_S)
        self.book.change(
            f"hold:{self.provider}",
            lambda state: state._replace(requests_until=max(state.requests_until, until)),
        )

    def close(self) -> None:
        if self.slots is not None:
            self.slots.close()

    def _wait_s(self, tokens: float) -> float:
        """0 when it may go; then it is counted."""
        now = time.monotonic()
        held = self.book.change(f"hold:{self.provider}", lambda state: state)
        if held.requests_until > now:
            return held.requests_until - now
        if self.limit.requests_per_min is None and self.limit.tokens_per_min is None:
            return 0.0
        decided: list[RateDecision] = []

        def change(state: RateState) -> RateState:
            decided.append(admit_request(state, self.limit, tokens, now))
            return decided[-1].state

        self.book.change(self.provider, change)
        return decided[-1].retry_after_s

    def _settle(self, estimated: float, actual: int) -> None:
        if self.limit.tokens_per_min is not None:
            now = time.monotonic()
            self.book.change(
                self.provider,
                lambda state: settle_request(
                    state, self.limit, estimated=estimated, actual=actual, now=now
                ),
            )
