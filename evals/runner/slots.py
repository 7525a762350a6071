"""How many calls of a provider may be under way, over all workers of a machine.

A slot is a file that its holder has locked: the kernel frees it however the process ends.
"""

import asyncio
import fcntl
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

SHORTEST_NAP_S: Final = 0.01
LONGEST_NAP_S: Final = 0.2


class Slots:
    """`count` of them in the folder; all who open it with the same count share them."""

    def __init__(self, folder: Path, count: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._count = count
        self._files: dict[int, int] = {}
        self._ours: set[int] = set()
        # One at a time looks for a free slot; the others come in order.
        self._first = asyncio.Lock()
        # Chance only keeps waiting workers apart; no result depends on it.
        self._jitter = random.Random()  # noqa: S311 - as above

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Waits until one is free. Raises OSError when the folder fails."""
        slot = await self._found()
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

    async def _found(self) -> int:
        nap_s = SHORTEST_NAP_S
        async with self._first:
            while True:
                for slot in range(self._count):
                    if slot not in self._ours and self._locked(slot):
                        self._ours.add(slot)
                        return slot
                await asyncio.sleep(nap_s * self._jitter.uniform(0.5, 1.5))
                nap_s = min(LONGEST_NAP_S, nap_s * 1.5)

    def _locked(self, slot: int) -> bool:
        if slot not in self._files:
            file = self._folder / f"{slot}.lock"
            self._files[slot] = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._files[slot], fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
