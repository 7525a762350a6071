"""Brings the files of exposures of one installation's processes on this machine into the
database, once a second.

A file holds its rows until the database has them, so it also serves as the spool while the
database is away. The rows and the position in their file change in one transaction, so each row
is stored once. One process flushes at a time; the others find its lock.
"""

import fcntl
import logging
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

from harness.frame.errors import StoreUnavailable
from harness.frame.ports import Clock
from harness.gate.online.exposures import Exposure, ExposureEvent
from router.frame.database import RouterDatabase
from router.recording.exposure_lines import LineReader

log = logging.getLogger(__name__)

# The most bytes that one transaction takes from a file.
MAX_READ_BYTES: Final = 256 * 1024
# The most transactions of one flush, so that other records do not wait for a long outage's.
MAX_TRANSACTIONS: Final = 20
# A process may create its first file this long after it has admitted a caller.
FIRST_FILE_S: Final = 2.0
CLOCK_EVERY_S: Final = 10.0
# The process that holds this file's lock flushes. It contains the result of the last flush.
_LOCK: Final = "lock"
_TIME_LENGTH: Final = 40


@dataclass(slots=True)
class _OpenFile:
    """A file that this process reads.

    position: the bytes that the database has; None before the database was asked.
    complete_until: the process of the file had written everything until this time.
    """

    path: Path
    reader: LineReader
    position: int | None = None
    complete_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class _Piece:
    """The next rows of a file, the position after them, and the time that the file tells."""

    rows: Sequence["_PlacedRow"]
    position: int
    complete_until: datetime | None = None
    unreadable: int = 0


class _PlacedRow(NamedTuple):
    """A row, and the position after its line."""

    row: Exposure | ExposureEvent
    end: int


class ExposureFlusher:
    """Flushes the files of a folder. Only one thread calls it.

    router: the name of the flushing process.
    counters: of the process; gets `exposure_rows_written` and `exposure_rows_refused`.
    """

    def __init__(
        self,
        folder: Path,
        store: RouterDatabase,
        clock: Clock,
        router: str,
        counters: Counter[str],
    ) -> None:
        self._folder = folder
        self._store = store
        self._clock = clock
        self._router = router
        self._counters = counters
        self._files: dict[str, _OpenFile] = {}
        self._deleted_files: list[str] = []
        self._lock_file = -1
        self._ahead = timedelta(0)  # of the database's clock
        self._ahead_known_s = float("-inf")

    def flush(self) -> datetime | None:
        """Writes the rows that the files have. Raises StoreUnavailable: the rows stay in the
        files.

        Returns the time, by the database's clock, until which the database has all exposures of
        this machine's processes; None if it is not known.
        """
        if not self._folder.exists():
            return self._clock.now()
        if not self._holds_lock():
            return self._read_complete_until()
        self._measure_clock()
        began_at = self._clock.now() + self._ahead
        times = [began_at - timedelta(seconds=FIRST_FILE_S)]
        transactions = MAX_TRANSACTIONS
        is_known = True
        for path in sorted(filter(_is_of_writer, self._folder.iterdir())):
            try:
                has_ended = _is_free(path)  # before the file is read, so that nothing is missed
                open_file = self._find_file(path)
                is_whole = False
                while transactions and not is_whole:
                    transactions -= 1
                    is_whole = self._flush_piece(open_file)
                if is_whole and has_ended:
                    self._delete(open_file)
                elif open_file.complete_until is not None:
                    times.append(open_file.complete_until)
                else:
                    is_known = is_known and is_whole
            except OSError as error:
                log.warning("the rows of %s wait: %s", path, error)
                is_known = False
        self._forget_deleted()
        return self._write_complete_until(min(times) if is_known else None)

    def close(self) -> None:
        if self._lock_file >= 0:
            os.close(self._lock_file)
            self._lock_file = -1

    def _holds_lock(self) -> bool:
        if self._lock_file < 0:
            descriptor = os.open(
                self._folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return False
            self._lock_file = descriptor
            self._files.clear()  # another process has read further
        return True

    def _write_complete_until(self, until: datetime | None) -> datetime | None:
        """Tells the other processes of this machine, which wait for the lock."""
        text = until.isoformat() if until is not None else ""
        os.pwrite(self._lock_file, text.ljust(_TIME_LENGTH).encode(), 0)
        return until

    def _read_complete_until(self) -> datetime | None:
        text = (self._folder / _LOCK).read_text().strip()
        return datetime.fromisoformat(text) if text else None

    def _measure_clock(self) -> None:
        now_s = self._clock.monotonic()
        if now_s - self._ahead_known_s < CLOCK_EVERY_S:
            return
        before = self._clock.now()
        with self._store.read() as tx:
            there = tx.exposures.now()
        after = self._clock.now()
        self._ahead = timedelta(0) if there is None else there - before - (after - before) / 2
        self._ahead_known_s = now_s

    def _find_file(self, path: Path) -> _OpenFile:
        """Returns what is known of a file. Raises StoreUnavailable."""
        known = self._files.get(path.name)
        if known is None:
            worker = path.name.rpartition(".")[0]
            known = self._files[path.name] = _OpenFile(path, LineReader(worker, {}))
        if known.position is None:
            with self._store.read() as tx:
                known.position = tx.exposures.file_positions([path.name]).get(path.name, 0)
            with path.open("rb") as file:
                # The part that the database has names rollouts of the other part.
                for line in file.read(known.position).splitlines():
                    with suppress(ValueError, KeyError, TypeError):
                        known.reader.read(line, timedelta(0))
        return known

    def _flush_piece(self, open_file: _OpenFile) -> bool:
        """Writes the next rows of a file. Returns whether the file has no further ones."""
        piece = self._read_piece(open_file)
        if piece.position == open_file.position:
            return True
        try:
            self._store_piece(open_file, piece)
        except StoreUnavailable:
            open_file.position = None  # the database may have the rows: ask it again
            raise
        open_file.position = piece.position
        open_file.complete_until = piece.complete_until or open_file.complete_until
        if piece.unreadable:
            self._counters["exposure_rows_refused"] += piece.unreadable
            log.error("%d lines of %s are unreadable", piece.unreadable, open_file.path)
        return False

    def _read_piece(self, open_file: _OpenFile) -> _Piece:
        position = open_file.position or 0
        with open_file.path.open("rb") as file:
            file.seek(position)
            data = file.read(MAX_READ_BYTES)
        whole = data[: data.rfind(b"\n") + 1]
        if not whole and len(data) == MAX_READ_BYTES:
            # No writer writes so long a line. Its end is unreadable, too.
            return _Piece((), position + len(data), unreadable=1)
        rows: list[_PlacedRow] = []
        complete_until = None
        unreadable = 0
        end = position
        for line in whole.splitlines(keepends=True):
            end += len(line)
            try:
                found = open_file.reader.read(line, self._ahead)
            except (ValueError, KeyError, TypeError):
                unreadable += 1
                continue
            if isinstance(found, datetime):
                complete_until = found
            elif found is not None:
                rows.append(_PlacedRow(found, end))
        return _Piece(rows, end, complete_until, unreadable)

    def _store_piece(self, open_file: _OpenFile, piece: _Piece) -> None:
        """Stores rows with the position after them. After a refusal, stores them one by one,
        and counts and leaves out those that the store refuses alone. Raises StoreUnavailable.
        """
        try:
            self._commit(open_file, piece.rows, piece.position)
        except StoreUnavailable:
            raise
        except Exception:
            if len(piece.rows) > 1:
                for placed in piece.rows:
                    self._store_piece(open_file, _Piece([placed], placed.end))
            else:
                log.exception("the store refused a row of %s", open_file.path)
                self._counters["exposure_rows_refused"] += 1
            self._commit(open_file, (), piece.position)
        else:
            self._counters["exposure_rows_written"] += len(piece.rows)

    def _commit(self, open_file: _OpenFile, placed: Sequence[_PlacedRow], end: int) -> None:
        rows = [row for row, _ in placed]
        with self._store.write() as tx:
            tx.exposures.append(
                [row for row in rows if isinstance(row, Exposure)],
                [row for row in rows if isinstance(row, ExposureEvent)],
            )
            tx.exposures.note_file(open_file.path.name, self._router, end, self._clock.now())

    def _delete(self, open_file: _OpenFile) -> None:
        """Deletes a file whose rows the database has."""
        open_file.path.unlink()
        del self._files[open_file.path.name]
        # If this process ends now, the position stays, and retention deletes it.
        self._deleted_files.append(open_file.path.name)

    def _forget_deleted(self) -> None:
        """Deletes the positions of deleted files. Raises StoreUnavailable."""
        if self._deleted_files:
            with self._store.write() as tx:
                tx.exposures.forget_files(self._deleted_files)
            self._deleted_files.clear()


def _is_of_writer(path: Path) -> bool:
    """Tells whether a path has the name of a file of `ExposureFile`."""
    return bool(path.suffix) and path.suffix[1:].isdecimal()


def _is_free(path: Path) -> bool:
    """Tells whether the process that wrote the file has ended it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
