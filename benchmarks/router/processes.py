"""Processes that a benchmark owns: perhaps pinned to one core, ended by their own pids."""

import os
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from os import environ
from pathlib import Path
from typing import Self

import psutil


class DidNotStart(Exception):
    """The process ended, or answered nothing in time."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def start(
    command: Sequence[str],
    stack: ExitStack,
    *,
    log: Path,
    core: int | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Ended when `stack` is. core: the only one that it may run on; None for any."""
    pinned = ["taskset", "-c", str(core)] if core is not None else []
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own command
            [*pinned, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Each start would compile all modules anew.
            env={**environ, "PYTHONDONTWRITEBYTECODE": "", **(env or {})},
        )
    stack.callback(_end, process)
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)


def wait_for(port: int, process: subprocess.Popen[bytes], timeout_s: float) -> None:
    """Until something listens there. Raises DidNotStart."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise DidNotStart(f"nothing listens on its port after {timeout_s:.0f} s")


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
    """Resident memory of the worker: of a process and its descendants the busiest."""
    worker = max(tree(pid), key=lambda process: sum(process.cpu_times()[:2]))
    return float(worker.memory_info().rss) / 2**20


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


PLAIN, STREAMED = "plain", "streamed"
PATH = "/v1/chat/completions"


@dataclass(frozen=True)
class Site:
    """Where a contender runs. folder: its own. upstreams: port by PLAIN and STREAMED."""

    folder: Path
    port: int
    upstreams: Mapping[str, int]


@dataclass(frozen=True)
class Ask:
    """What is sent. model: in the body."""

    path: str = PATH
    model: str = PLAIN
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Peer:
    """command: of the process, after writing its files into the site's folder.

    ask: by site and kind (PLAIN, STREAMED).
    """

    name: str
    command: Callable[[Site], Sequence[str]]
    ask: Callable[[Site, str], Ask]
    env: Mapping[str, str] = field(default_factory=dict)
    start_s: float = 30.0
