"""Runs a demo's processes: in a folder, on free ports, with a log each. It waits until they
answer, kills one on request, and ends all of them (`play_to_end`).
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.domain.errors import SwapgateError
from harness.runtime.processes.tcp_ports import free_port

HOST = "127.0.0.1"
START_S = 240.0


@dataclass
class DemoProcesses:
    """A demo's folder, ports and processes."""

    folder: Path  # holds the database, the logs and swapgate.yaml
    ports: dict[str, int] = field(default_factory=dict)  # by process
    children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def config(self) -> Path:
        return self.folder / "swapgate.yaml"

    def url(self, name: str) -> str:
        return f"http://{HOST}:{self.ports[name]}"

    def choose_ports(self, wanted: Mapping[str, int]) -> list[str]:
        """Free ports; returns a note for each that had to move."""
        notes = []
        for name, port in wanted.items():
            spoken_for = {*wanted.values(), *self.ports.values()} - {port}
            self.ports[name] = free_port(HOST, port, spoken_for=spoken_for)
            if self.ports[name] != port:
                notes.append(f"port {port} is taken: {name} uses {self.ports[name]}")
        return notes

    def start(
        self, name: str, words: list[str], environment: Mapping[str, str] | None = None
    ) -> None:
        """One of our own commands, by its words. environment: beside this process's."""
        log = (self.folder / f"{name}.log").open("ab")
        with log:
            self.children[name] = subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, "-m", "swapgate", "--config", str(self.config), *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
                start_new_session=True,
            )

    def await_answer(self, name: str, path: str) -> None:
        """Wait until the process serves. Raises SwapgateError with the end of its log."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self.children[name].poll() is not None:
                break
            try:
                with urllib.request.urlopen(self.url(name) + path, timeout=2):  # noqa: S310
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        log = (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")
        raise SwapgateError(f"{name} did not start:\n{log[-2000:]}")

    def kill(self, name: str) -> int:
        """SIGKILL, as when a machine dies. Returns the pid that was killed."""
        child = self.children[name]
        child.send_signal(signal.SIGKILL)
        child.wait()
        return child.pid

    def close(self) -> None:
        """End every process that was started here; leave none behind."""
        for child in self.children.values():
            if child.poll() is None:
                child.terminate()
        for child in self.children.values():
            try:
                child.wait(timeout=15)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def make_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="swapgate-demo-"))


def play_to_end(stage: DemoProcesses, play: Callable[[], bool]) -> int:
    """Play a demo in its folder, and end its processes. Returns 0 where `play` says that all
    ended as it should; else the folder with the logs stays.
    """
    # A terminal that closes or a `kill` ends the demo as Ctrl-C does: no process stays behind.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    good = False
    try:
        good = play()
    except KeyboardInterrupt:
        print("\nended before its end")  # noqa: T201 - the demo talks to its user
    finally:
        stage.close()
        if good:
            shutil.rmtree(stage.folder, ignore_errors=True)
        else:
            print(f"the logs are in {stage.folder}")  # noqa: T201
    return 0 if good else 1
