"""Processes that a benchmark owns: perhaps pinned to one core, ended by their own pids."""

import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from os import environ
from pathlib import Path


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
            env={**environ, **(env or {})},
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
