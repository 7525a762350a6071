"""Processes of the game day: each on a host, with a log of its own, ended by its id."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.gameday.network import Network
from harness.runtime.clock import SystemClock

_CLOCK = SystemClock()


def now_s() -> float:
    """Unix time."""
    return _CLOCK.now().timestamp()


class NotReady(Exception):
    """Something did not happen in time; the text says what, and shows the log's end."""


@dataclass
class Processes:
    network: Network
    folder: Path
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(
        self,
        name: str,
        *words: str,
        host: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """host: by default the one of that name."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(  # noqa: S603 - our own commands
                self.network.command(host or name, *words),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(environment or {})},
                start_new_session=True,  # Ctrl-C is the script's to handle
            )

    def pid(self, name: str) -> int:
        return self.running[name].pid

    def log_end(self, name: str, lines: int = 30) -> str:
        text = (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def kill(self, name: str) -> None:
        """SIGKILL to the process and all below it, as when a machine dies."""
        main = psutil.Process(self.pid(name))
        below = main.children(recursive=True)
        for process in (main, *below):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.running.pop(name).wait()
        _reap([process.pid for process in below])

    def signal(self, name: str, number: signal.Signals) -> None:
        os.kill(self.pid(name), number)

    def terminate(self, name: str, within_s: float = 180.0) -> int:
        """SIGTERM; the exit code. SIGKILL to what does not end by then."""
        process = self.running[name]
        process.terminate()
        try:
            return process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.kill(name)
            return -signal.SIGKILL
        finally:
            self.running.pop(name, None)

    def end(self) -> None:
        """Ends whatever still runs, the last that was started first."""
        for name in reversed([*self.running]):
            if self.running[name].poll() is None:
                self.signal(name, signal.SIGCONT)
                self.kill(name)


def _reap(pids: list[int]) -> None:
    """Whoever lost its parent is a child of the run's first process: this one."""
    until = time.monotonic() + 30.0
    while pids and time.monotonic() < until:
        for pid in [*pids]:
            with suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0] == 0:
                    continue
            if not psutil.pid_exists(pid):
                pids.remove(pid)
        time.sleep(0.05)
