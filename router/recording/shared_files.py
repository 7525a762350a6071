"""Keeps on disk which canaries a worker stopped, and how many workers watched each canary.

Also keeps marks of conversations and callers that all workers of a machine share. No file
has content of a request. The files outlast a process, not a machine: other routers learn of
an abort through the database. `router.observers.canary_guard`, `router.observers.shadow`
and `router.request.planner` use them.
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

    turn: int  # how many worker processes watched the rollout before
    workers: int  # how many workers the router had when the first began


class GuardFiles:
    """Keeps the files in a folder for all processes, or in memory without a folder.

    Raises OSError.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._memory: dict[str, Mapping[str, Any]] = {}

    def claim(self, rollout: str, workers: int) -> GuardTurn:
        """Takes the next turn of a rollout's guard. workers: how many workers the router
        has now.
        """
        with self._changing():
            kept = self._read(rollout)
            turn = int(kept.get("turns", 0))
            first = int(kept.get("workers", workers))
            self._write(
                rollout,
                {
                    **kept,
                    "turns": turn + 1,
                    "workers": first,
                },
            )
        return GuardTurn(turn, first)

    def keep(self, abort: LocalAbort) -> None:
        """Stores an abort; the first one of a rollout stays."""
        with self._changing():
            kept = self._read(abort.rollout)
            if "aborted" not in kept:
                self._write(abort.rollout, {**kept, "aborted": to_plain(abort)})

    def aborted(self) -> list[LocalAbort]:
        """Lists the aborts of all processes."""
        kept = list(self._memory.values())
        if self._folder is not None and self._folder.exists():
            kept = [_document(file) for file in sorted(self._folder.glob(f"*{SUFFIX}"))]
        aborts = (document.get("aborted") for document in kept)
        return [from_plain(LocalAbort, abort) for abort in aborts if abort is not None]

    def forget(self, over: frozenset[str]) -> None:
        """Removes what is kept of rollouts that are over."""
        with self._changing():
            for rollout in over:
                self._memory.pop(rollout, None)
                if self._folder is not None:
                    self._file(self._folder, rollout).unlink(missing_ok=True)

    @contextmanager
    def _changing(self) -> Iterator[None]:
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
        return _document(self._file(self._folder, rollout))

    def _write(self, rollout: str, kept: Mapping[str, object]) -> None:
        if self._folder is None:
            self._memory[rollout] = kept
            return
        file = self._file(self._folder, rollout)
        temporary = file.with_suffix(".new")
        with temporary.open("w") as out:
            json.dump(kept, out)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(file)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _document(file: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


FILE: Final = "conversations"
# How many of its own marks a process remembers.
KEPT: Final = 65_536
SLOTS: Final = 1 << 18
_SIZE: Final = 8  # bytes of a mark: one in 2^46 unknown names looks marked


class SharedMarks:
    """A set of seen names, for one event loop. secret: keys the hashes.

    file: None to mark for this process alone. Raises OSError if the file cannot be created.
    """

    def __init__(self, secret: bytes, file: Path | None = None) -> None:
        self._secret = secret[: hashlib.blake2b.MAX_KEY_SIZE]
        self._own: BoundedMap[str, int] = BoundedMap(KEPT)
        self._file: int | None = None
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)

    def add(self, name: str) -> None:
        """Marks a name. A failing disk only limits the mark to this process."""
        self._own.put(name, 1)
        if self._file is not None:
            mark, place = self._mark(name)
            with suppress(OSError):
                os.pwrite(self._file, mark, place)

    def has(self, name: str) -> bool:
        """Returns whether a name is marked. A later name may have overwritten its mark in
        the file.
        """
        if self._own.get(name) is not None:
            return True
        if self._file is None:
            return False
        mark, place = self._mark(name)
        with suppress(OSError):
            return os.pread(self._file, _SIZE, place) == mark
        return False

    def first(self, name: str) -> bool:
        """Marks a name, and returns whether it was not marked before."""
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
