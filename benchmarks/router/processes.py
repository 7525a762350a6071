"""A benchmark's processes, which may be pinned to a core, and measures of their load."""

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
    """The process ended, or did not listen in time."""


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
    """Starts a process; the end of `stack` ends it.

    Args:
        core: pins it to a core; None for any.
    """
    pinned = ["taskset", "-c", str(core)] if core is not None else []
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own command
            [*pinned, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Each start would compile all modules anew.
            env={
                **environ,
                "PYTHONDONTWRITEBYTECODE": "",
                **(env or {}),
            },
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


def wait_for(
    port: int,
    process: subprocess.Popen[bytes],
    timeout_s: float,
) -> None:
    """Waits until the process listens on the port. Raises DidNotStart."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise DidNotStart(f"nothing listens on its port after {timeout_s:.0f} s")


# If other processes use a larger share of all cores' time, a round's figures are unreliable.
TOO_BUSY = 0.1
PEER_CORE = 1
LOAD_CORE = 0


def tree(pid: int) -> list[psutil.Process]:
    """Returns the process and its descendants."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def cpu_s(pid: int) -> float:
    """Returns the CPU time of a process and its descendants so far, in seconds."""
    found = 0.0
    for process in tree(pid):
        with suppress(psutil.NoSuchProcess):
            found += sum(process.cpu_times()[:2])
    return found


def rss_mib(pid: int) -> float:
    """Returns the resident memory of the worker: the busiest process below the given one."""
    worker = max(tree(pid), key=lambda process: sum(process.cpu_times()[:2]))
    return float(worker.memory_info().rss) / 2**20


@dataclass
class Busy:
    """Measures the block's use of all cores, as shares. total: by all processes and the
    hypervisor. steal: by the hypervisor.
    """

    total: float = 0.0
    steal: float = 0.0

    def __enter__(self) -> Self:
        self._before = psutil.cpu_times()
        self._began = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        after = psutil.cpu_times()
        # Without the last two fields: guest time is also part of user time.
        gone = [new - old for old, new in zip(self._before[:8], after[:8], strict=True)]
        every = sum(gone) or 1.0
        self.total = 1 - (gone[3] + gone[4]) / every  # neither idle nor waiting for a disk
        self.steal = gone[7] / every
        self.seconds = time.monotonic() - self._began

    def others(self, ours_s: float) -> float:
        """Returns other processes' share.

        Args:
            ours_s: the benchmark's CPU time in the block.
        """
        return max(0.0, self.total - ours_s / (self.seconds * (os.cpu_count() or 1)))


PLAIN = "plain"
STREAMED = "streamed"
PATH = "/v1/chat/completions"


@dataclass(frozen=True)
class Site:
    """A contender's folder and port. upstreams: the providers' ports, by name."""

    folder: Path
    port: int
    upstreams: Mapping[str, int]


@dataclass(frozen=True)
class Ask:
    path: str = PATH
    model: str = PLAIN
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Peer:
    """A contender. command: writes files into the site's folder, and returns the command line.
    ask: builds a request of a kind (PLAIN, STREAMED).
    """

    name: str
    command: Callable[[Site], Sequence[str]]
    ask: Callable[[Site, str], Ask]
    env: Mapping[str, str] = field(default_factory=dict)
    start_s: float = 30.0
