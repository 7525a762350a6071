"""Slots limit the calls of all processes of a machine at one time. A slot is a locked file: the
kernel releases the lock, however the process ends.
"""

import asyncio
import fcntl
import math
import os
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

SHORTEST_NAP_S: Final = 0.01
LONGEST_SLOT_NAP_S: Final = 0.2
# Longer than the longest nap of another process.
COURTESY_S: Final = 1.75 * LONGEST_SLOT_NAP_S
# Randomness only separates waiting workers; no result depends on it.
JITTER: Final = random.Random()  # noqa: S311 - not for security


class Slots:
    """Locked files that this machine's processes share. count: returns the current number.

    fair: if another process waits for a single slot, it gets the slot first. Otherwise this
    process, which notices its own release at once, could keep the slot.
    """

    def __init__(
        self,
        folder: Path,
        count: Callable[[], int],
        *,
        fair: bool = False,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._count = count
        self._fair = fair
        self._released_at_s = -math.inf  # monotonic seconds
        self._freed = asyncio.Event()
        self._files: dict[int, int] = {}
        self._own_slots: set[int] = set()
        # One call at a time looks for a free slot; the other calls wait in order.
        self._search_lock = asyncio.Lock()

    @asynccontextmanager
    async def one(self) -> AsyncIterator[int]:
        """Waits for a free slot and holds it inside the block. Yields its number, from 0."""
        slot = await self._acquire()
        try:
            yield slot
        finally:
            self._release(slot)

    def close(self) -> None:
        for file in self._files.values():
            os.close(file)
        self._files.clear()

    def _release(self, slot: int) -> None:
        self._own_slots.discard(slot)
        self._released_at_s = time.monotonic()
        self._freed.set()
        if slot in self._files:
            fcntl.flock(self._files[slot], fcntl.LOCK_UN)

    async def _acquire(self) -> int:
        nap_s = SHORTEST_NAP_S
        async with self._search_lock:
            while True:
                self._freed.clear()
                count = self._count()
                if self._fair and count == 1:
                    await asyncio.sleep(self._released_at_s + COURTESY_S - time.monotonic())
                for slot in range(count):
                    if slot not in self._own_slots and self._try_lock(slot):
                        self._own_slots.add(slot)
                        return slot
                # A slot of this process wakes us; for other processes we must poll.
                with suppress(TimeoutError):
                    async with asyncio.timeout(nap_s * JITTER.uniform(0.5, 1.5)):
                        await self._freed.wait()
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
