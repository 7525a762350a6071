"""Keeps on disk the canaries that a worker stopped, and the number of workers of each canary.

It also keeps marks of conversations and callers that all workers of a machine share. No file
has content of a request. The files outlast a process, not a machine: other routers learn of an
abort through the database. `router.observers.canary_guard`, `router.observers.shadow` and
`router.request.planner` use them.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from harness.frame.plain_data import from_plain, to_plain
from harness.gate.online.worker_guard import GuardCount
from router.frame.limits import BoundedMap

SUFFIX: Final = ".json"


@dataclass(frozen=True, slots=True)
class LocalAbort:
    """Records a worker's own decision to abort a canary."""

    rollout: str
    route: str
    worker: str
    count: GuardCount
    at: datetime


class GuardTurn(NamedTuple):
    """A worker's place among the workers that watch a rollout."""

    turn: int  # the number of worker processes that watched the rollout before
    workers: int  # the number of workers at the first process's begin


class GuardFiles:
    """Keeps the files in a folder for all processes, or in memory without a folder.

    Raises OSError.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._memory: dict[str, Mapping[str, Any]] = {}

    def claim(self, rollout: str, workers: int) -> GuardTurn:
        """Takes the next turn of a rollout's guard.

        Args:
            workers: the router's current number.
        """
        with self._lock_folder():
            document = self._read(rollout)
            turn = int(document.get("turns", 0))
            first_workers = int(document.get("workers", workers))
            self._write(
                rollout,
                {
                    **document,
                    "turns": turn + 1,
                    "workers": first_workers,
                },
            )
        return GuardTurn(turn, first_workers)

    def keep(self, abort: LocalAbort) -> None:
        """Stores an abort. The first abort of a rollout stays."""
        with self._lock_folder():
            document = self._read(abort.rollout)
            if "aborted" not in document:
                self._write(abort.rollout, {**document, "aborted": to_plain(abort)})

    def aborted(self) -> list[LocalAbort]:
        """Lists the aborts of all processes."""
        documents = list(self._memory.values())
        if self._folder is not None and self._folder.exists():
            documents = [
                _read_document(file) for file in sorted(self._folder.glob(f"*{SUFFIX}"))
            ]
        aborts = (document.get("aborted") for document in documents)
        return [from_plain(LocalAbort, abort) for abort in aborts if abort is not None]

    def forget(self, ended_rollouts: frozenset[str]) -> None:
        """Removes the files of ended rollouts."""
        with self._lock_folder():
            for rollout in ended_rollouts:
                self._memory.pop(rollout, None)
                if self._folder is not None:
                    self._file(self._folder, rollout).unlink(missing_ok=True)

    @contextmanager
    def _lock_folder(self) -> Iterator[None]:
        if self._folder is None:
            yield
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @staticmethod
    def _file(folder: Path, rollout: str) -> Path:
        return folder / f"{quote(rollout, safe='')}{SUFFIX}"

    def _read(self, rollout: str) -> Mapping[str, Any]:
        if self._folder is None:
            return self._memory.get(rollout, {})
        return _read_document(self._file(self._folder, rollout))

    def _write(self, rollout: str, document: Mapping[str, object]) -> None:
        if self._folder is None:
            self._memory[rollout] = document
            return
        file = self._file(self._folder, rollout)
        temporary = file.with_suffix(".new")
        with temporary.open("w") as out:
            json.dump(document, out)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(file)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _read_document(file: Path) -> Mapping[str, Any]:
    try:
        parsed = json.loads(file.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return parsed if isinstance(parsed, dict) else {}


FILE: Final = "conversations"
# The most of its own marks that a process remembers.
MAX_OWN_MARKS: Final = 65_536
SLOTS: Final = 1 << 18
_MARK_BYTES: Final = 8  # bytes of a mark: one in 2^46 unknown names looks marked


class SharedMarks:
    """A set of seen names, for one event loop. secret: the key of the hashes.

    file: None to mark for this process alone. Raises OSError if it cannot create the file.
    """

    def __init__(self, secret: bytes, file: Path | None = None) -> None:
        self._secret = secret[: hashlib.blake2b.MAX_KEY_SIZE]
        self._own_marks: BoundedMap[str, int] = BoundedMap(MAX_OWN_MARKS)
        self._file: int | None = None
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)

    def add(self, name: str) -> None:
        """Marks a name. A failing disk only limits the mark to this process."""
        self._own_marks.put(name, 1)
        if self._file is not None:
            mark, offset = self._mark(name)
            with suppress(OSError):
                os.pwrite(self._file, mark, offset)

    def has(self, name: str) -> bool:
        """Returns whether a name has a mark. A later name may have overwritten the mark."""
        if self._own_marks.get(name) is not None:
            return True
        if self._file is None:
            return False
        mark, offset = self._mark(name)
        with suppress(OSError):
            return os.pread(self._file, _MARK_BYTES, offset) == mark
        return False

    def first(self, name: str) -> bool:
        """Marks a name, and returns whether it had no mark before."""
        is_first = not self.has(name)
        self.add(name)
        return is_first

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _mark(self, name: str) -> tuple[bytes, int]:
        encoded_name = name.encode("utf-8", "replace")
        mark = hashlib.blake2b(encoded_name, digest_size=_MARK_BYTES, key=self._secret).digest()
        return mark, int.from_bytes(mark, "big") % SLOTS * _MARK_BYTES
