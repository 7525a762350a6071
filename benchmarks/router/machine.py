"""What the machine did: CPU time and memory of processes, and how busy the others were."""

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

import psutil

# Of all cores' time, what others may take before a round is worth little.
TOO_BUSY = 0.1
PEER_CORE, LOAD_CORE = 1, 0


def tree(pid: int) -> list[psutil.Process]:
    """The process and its descendants."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def cpu_s(pid: int) -> float:
    """User and system time of a process and its descendants so far, in seconds."""
    found = 0.0
    for process in tree(pid):
        with suppress(psutil.NoSuchProcess):
            found += sum(process.cpu_times()[:2])
    return found


def rss_mib(pid: int) -> float:
    """Resident memory of the largest of a process and its descendants: of a worker."""
    return max(process.memory_info().rss for process in tree(pid)) / 2**20


@dataclass
class Busy:
    """Shares of all cores' time while it ran: everything, and what the hypervisor took."""

    total: float = 0.0
    steal: float = 0.0

    def __enter__(self) -> Self:
        self._before, self._began = psutil.cpu_times(), time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        after = psutil.cpu_times()
        # guest time, the last two, is in user time already
        gone = [new - old for old, new in zip(self._before[:8], after[:8], strict=True)]
        every = sum(gone) or 1.0
        self.total = 1 - (gone[3] + gone[4]) / every  # neither idle nor waiting for a disk
        self.steal = gone[7] / every
        self.seconds = time.monotonic() - self._began

    def others(self, ours_s: float) -> float:
        """The share that neither we (CPU seconds in the same time) nor idleness had."""
        return max(0.0, self.total - ours_s / (self.seconds * (os.cpu_count() or 1)))
