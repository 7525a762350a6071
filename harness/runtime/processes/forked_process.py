"""Forks a process of the program that runs, with all that it has imported (`fork_process`): the
memory of that is shared, and none of it has to be read again. Linux only.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LOOK_EVERY_S: Final = 0.05
COMM: Final = Path("/proc/self/comm")  # what `ps -o comm` and `top` call a process


@dataclass
class ForkedProcess:
    """A child that was forked; the part of Popen that its supervisor needs."""

    pid: int
    returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Waits for the end; raises subprocess.TimeoutExpired, as Popen does."""
        until = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if until is not None and time.monotonic() > until:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            time.sleep(LOOK_EVERY_S)
        return code

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        if self.poll() is None:  # else the number may be another process's by now
            os.kill(self.pid, number)


def can_fork() -> bool:
    """Tells whether a fork is safe here: the locks of other threads would stay taken for good,
    and the libraries of macOS do not bear one.
    """
    return sys.platform == "linux" and threading.active_count() == 1


def fork_process(name: str) -> ForkedProcess | None:
    """Forks. Returns the child; and None in the child, which leads a session of its own, so
    that Ctrl-C does not reach it. name: for `ps`, at most 15 characters. Raises OSError.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return ForkedProcess(pid)
    os.setsid()
    with suppress(OSError):
        COMM.write_text(name, encoding="utf-8")
    return None
