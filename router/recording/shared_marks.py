"""Marks that something was seen, for all processes that open the same file, without a lock.

A mark in the same slot replaces the one before, so the oldest are forgotten.
"""

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from router.frame.bounded_map import BoundedMap

FILE: Final = "conversations"
# Of this process's own.
KEPT: Final = 65_536
SLOTS: Final = 1 << 18
_SIZE: Final = 8  # bytes of a mark: a name that was never seen passes for one in 2^46


class SharedMarks:
    """Marks names, for one event loop. secret: the installation's. file: None for this process
    alone. Raises OSError when the file cannot be made.
    """

    def __init__(self, secret: bytes, file: Path | None = None) -> None:
        self._secret = secret[: hashlib.blake2b.MAX_KEY_SIZE]
        self._own: BoundedMap[str, int] = BoundedMap(KEPT)
        self._file: int | None = None
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)

    def add(self, name: str) -> None:
        self._own.put(name, 1)
        if self._file is not None:
            mark, place = self._mark(name)
            with suppress(OSError):
                os.pwrite(self._file, mark, place)

    def has(self, name: str) -> bool:
        if self._own.get(name) is not None:
            return True
        if self._file is None:
            return False
        mark, place = self._mark(name)
        with suppress(OSError):
            return os.pread(self._file, _SIZE, place) == mark
        return False

    def first(self, name: str) -> bool:
        is_first = not self.has(name)
        self.add(name)
        return is_first

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _mark(self, name: str) -> tuple[bytes, int]:
        given = name.encode("utf-8", "replace")
        mark = hashlib.blake2b(given, digest_size=_SIZE, key=self._secret).digest()
        return mark, int.from_bytes(mark, "big") % SLOTS * _SIZE
