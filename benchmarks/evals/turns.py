"""Processes that take turns on the machine; what CPU time and memory each one used."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

TURN_S: Final = 3.0
LOOK_S: Final = 0.05


def taken(
    commands: Mapping[str, Sequence[str]], folder: Path
) -> dict[str, tuple[float, float]]:
    """By name: CPU seconds (user and system), and the peak of resident memory in MiB.

    One runs at a time, for TURN_S; the others are stopped. Raises RuntimeError with the words
    of one that fails; the others are ended.
    """
    running = {
        name: _started(command, folder / f"{name}.log") for name, command in commands.items()
    }
    found: dict[str, tuple[float, float]] = {}
    try:
        while running:
            for name, process in list(running.items()):
                process.send_signal(signal.SIGCONT)
                used = _waited(process)
                if used is None:
                    process.send_signal(signal.SIGSTOP)
                    continue
                del running[name]
                found[name] = used
                if process.returncode:
                    words = (folder / f"{name}.log").read_text(encoding="utf-8")[-2000:]
                    raise RuntimeError(f"{name} ended with {process.returncode}: {words}")
    finally:
        for process in running.values():
            process.kill()
            process.wait()
    return found


def _started(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as out:
        process = subprocess.Popen(  # noqa: S603 - our own command
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
        )
    process.send_signal(signal.SIGSTOP)
    return process


def _waited(process: subprocess.Popen[bytes]) -> tuple[float, float] | None:
    """None when its turn is over before it is."""
    until = time.monotonic() + TURN_S
    while time.monotonic() < until:
        pid, status, used = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
        time.sleep(LOOK_S)
    return None
