"""What the machine did: CPU time and memory of processes, and how busy the others were."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
# Of all cores' time, what others may take before a round is worth little.
TOO_BUSY = 0.1
PEER_CORE, LOAD_CORE = 1, 0


def tree(pid: int) -> list[psutil.Process]:
    """The process and its descendants."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def cpu_s(pid: int) -> float:
    """User and system time of a process and its descendants so far, in seconds."""
    return sum(_ticks(process.pid) for process in tree(pid)) * TICK_S


def _ticks(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except FileNotFoundError:
        return 0
    fields = text.rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def rss_mib(pid: int) -> float:
    """Resident memory of the largest of a process and its descendants: of a worker."""
    return max(process.memory_info().rss for process in tree(pid)) / 2**20


@dataclass
class Busy:
    """Shares of all cores' time while it ran: everything, and what the hypervisor took."""

    total: float = 0.0
    steal: float = 0.0
    load: float = 0.0

    def __enter__(self) -> Self:
        self._before, self._began = _stat(), time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        gone = [after - before for before, after in zip(self._before, _stat(), strict=True)]
        every = sum(gone) or 1
        self.total = 1 - (gone[3] + gone[4]) / every  # neither idle nor waiting for a disk
        self.steal = gone[7] / every
        self.seconds = time.monotonic() - self._began
        self.load = os.getloadavg()[0]

    def others(self, ours_s: float) -> float:
        """The share that neither we (CPU seconds in the same time) nor idleness had."""
        return max(0.0, self.total - ours_s / (self.seconds * (os.cpu_count() or 1)))


def _stat() -> list[int]:
    line = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0]
    # guest time, the last two, is in user time already
    return [int(part) for part in line.split()[1:9]]
