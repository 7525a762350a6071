"""Notices that somebody put another file in the place of a SQLite database, closes what is
open, and sets the old file's write-ahead log aside.

A connection goes on with the file that it opened, though it has no name any more: what is
committed there is lost. And the write-ahead log goes by its name alone: SQLite would play the
old file's log into the new one. So the connections of this process are closed, and the old
file's log is set aside before the new file is opened. (SQLite itself leaves a log alone when it
closes a file that was moved, so nobody who still has the old one open takes the new log.)
"""

import fcntl
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from harness.domain.errors import StoreUnavailable

LOG, INDEX = "-wal", "-shm"
ASIDE: Final = ".replaced"
Identity = tuple[int, int]


def identity(file: Path) -> Identity | None:
    """Device and inode; None where there is no such file."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


class SqliteFile:
    """Watches the file of a SQLite database, which may be replaced while it is open. close: of
    all idle connections of this process; those in use close when they are done.
    """

    def __init__(self, file: Path, close: Callable[[], None]) -> None:
        self._file = file
        self._close = close
        self._turn = threading.Lock()
        self._open: Identity | None = None
        self._log: Identity | None = None

    def require(self) -> None:
        """Checks, before a connection is used, that the file is the same; closes the
        connections to a file before it.
        """
        now = identity(self._file)
        if now == self._open and now is not None:
            self._log = identity(self._beside(LOG)) or self._log
            return
        with self._turn:
            if now is None:
                self._close()
                return  # to open it says so
            if self._open is not None and now != self._open:
                self._close()
                self._set_log_aside()
            self._open, self._log = now, None

    def require_same(self, *, committed: bool = False) -> None:
        """Requires that the file was not replaced, which would lose what is committed; else
        raises StoreUnavailable. committed: it is done. Then a file that is away has it, and
        brings it back when it comes back: written again, it would be there twice.
        """
        now = identity(self._file)
        away = now is None and committed
        if self._open is not None and now != self._open and not away:
            raise StoreUnavailable(
                f"{self._file} was replaced while it was written: what was written is lost "
                "with the file before, and must be written again"
            )

    def _set_log_aside(self) -> None:
        if self._log is None:
            return
        folder = os.open(self._file.parent, os.O_RDONLY)
        try:
            # Of several processes one; the others find another log, or none.
            fcntl.flock(folder, fcntl.LOCK_EX)
            if identity(self._beside(LOG)) == self._log:
                for suffix in (LOG, INDEX):
                    with suppress(FileNotFoundError):
                        self._beside(suffix).replace(self._beside(f"{suffix}{ASIDE}"))
        finally:
            os.close(folder)

    def _beside(self, ending: str) -> Path:
        return self._file.with_name(f"{self._file.name}{ending}")
