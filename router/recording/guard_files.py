"""Guard files keep on disk, for each rollout, that a worker stopped its canary (`LocalAbort`),
and how many worker processes have watched it: a worker's canary guard must not forget either
when its process ends.

A small file for each rollout, written whole under a lock. Nothing here needs a database.
"""

import fcntl
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import quote

from harness.domain.reliability.failures import describe_failures

SUFFIX: Final = ".json"


@dataclass(frozen=True, slots=True)
class LocalAbort:
    """Records a worker's own decision to abort a canary."""

    rollout: str
    route: str
    worker: str
    log_e: float
    log_limit: float
    # Units, in both arms, of them canary_failures, whose classes are canary_classes as far as
    # they are known.
    failures: int
    canary_failures: int
    exposures: int
    at: datetime
    canary_classes: Mapping[str, int] = field(default_factory=dict)

    @property
    def text(self) -> str:
        which = f" ({describe_failures(self.canary_classes)})" if self.canary_classes else ""
        return (
            f"Worker {self.worker} saw {self.canary_failures} of {self.exposures} keys fail in "
            f"the canary{which}, {self.failures - self.canary_failures} outside it: evidence "
            f"of harm e = {math.exp(min(self.log_e, 700.0)):.3g}, and it stops at "
            f"{math.exp(self.log_limit):.3g}."
        )

    def as_json(self) -> dict[str, object]:
        return {**asdict(self), "at": self.at.isoformat()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "LocalAbort":
        return cls(**{**data, "at": datetime.fromisoformat(data["at"])})


class GuardTurn(NamedTuple):
    """Holds a worker's place in the line of those that watch a rollout."""

    turn: int  # how many worker processes watched a rollout before
    workers: int  # when the first did


class GuardFiles(Protocol):
    """Keeps aborts and turns for the guards; each method raises OSError when the disk fails."""

    def claim(self, rollout: str, workers: int) -> GuardTurn:
        """Claims the turn of a process that begins to watch; no two get the same."""
        ...

    def keep(self, abort: LocalAbort) -> None:
        """Keeps an abort, durably once this returns; the first abort of a rollout stays."""
        ...

    def aborted(self) -> list[LocalAbort]: ...

    def forget(self, over: frozenset[str]) -> None:
        """Forgets rollouts that have ended."""
        ...


class InMemoryGuardFiles:
    """Keeps the guards' files in memory, for a router that is one process and ends with its
    test or benchmark.
    """

    def __init__(self) -> None:
        self._turns: dict[str, int] = {}
        self._aborted: dict[str, LocalAbort] = {}

    def claim(self, rollout: str, workers: int) -> GuardTurn:
        turn = self._turns.get(rollout, 0)
        self._turns[rollout] = turn + 1
        return GuardTurn(turn, workers)

    def keep(self, abort: LocalAbort) -> None:
        self._aborted.setdefault(abort.rollout, abort)

    def aborted(self) -> list[LocalAbort]:
        return list(self._aborted.values())

    def forget(self, over: frozenset[str]) -> None:
        for file in over:
            self._aborted.pop(file, None)
            self._turns.pop(file, None)


class GuardFolder:
    """Implements GuardFiles for all processes of one router."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def claim(self, rollout: str, workers: int) -> GuardTurn:
        with self._changing() as folder:
            kept = _read(self._file(folder, rollout))
            turn = int(kept.get("turns", 0))
            first = int(kept.get("workers", workers))
            self._write(rollout, {**kept, "turns": turn + 1, "workers": first})
        return GuardTurn(turn, first)

    def keep(self, abort: LocalAbort) -> None:
        with self._changing() as folder:
            kept = _read(self._file(folder, abort.rollout))
            if "aborted" not in kept:
                self._write(abort.rollout, {**kept, "aborted": abort.as_json()})

    def aborted(self) -> list[LocalAbort]:
        if not self._folder.exists():
            return []
        kept = (_read(file) for file in sorted(self._folder.glob(f"*{SUFFIX}")))
        return [
            LocalAbort.from_json(document["aborted"])
            for document in kept
            if "aborted" in document
        ]

    def forget(self, over: frozenset[str]) -> None:
        with self._changing() as folder:
            for file in over:
                self._file(folder, file).unlink(missing_ok=True)

    @contextmanager
    def _changing(self) -> Iterator[Path]:
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield self._folder

    @staticmethod
    def _file(folder: Path, rollout: str) -> Path:
        return folder / f"{quote(rollout, safe='')}{SUFFIX}"

    def _write(self, rollout: str, kept: Mapping[str, object]) -> None:
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


def _read(file: Path) -> Mapping[str, Any]:
    """Nothing for a file that is not there, or not ours."""
    try:
        found = json.loads(file.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
