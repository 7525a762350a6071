"""Starts a group of child processes, restarts those that die, and ends all on Ctrl-C or
SIGTERM.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

RESTART_PAUSE_S = 1.0
LAST_WORDS_S = 20.0


@dataclass
class Supervisor:
    """A child that dies is started again after a pause; Ctrl-C or SIGTERM ends all of them and
    leaves none behind.
    """

    commands: Mapping[str, Sequence[str]]  # name to argv
    say: Callable[[str], None]  # told of every start, death and restart, in words
    restart: bool = True
    stop_s: float = LAST_WORDS_S  # how long they have for it
    children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _ending: threading.Event = field(default_factory=threading.Event)

    def run(self) -> int:
        """Start all and watch until a signal comes. Returns the exit code."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self._ending.set())
        try:
            for name in self.commands:
                self.start(name)
            while not self._ending.wait(0.2):
                self._watch()
        finally:
            self.stop()
        return 0

    def start(self, name: str) -> None:
        # A group of its own: Ctrl-C reaches the parent alone, which then ends them in order.
        self.children[name] = subprocess.Popen(  # noqa: S603 - our own commands
            list(self.commands[name]), start_new_session=True, env=dict(os.environ)
        )
        self.say(f"{name} runs as pid {self.children[name].pid}")

    def _watch(self) -> None:
        for name, child in self.children.items():
            code = child.poll()
            if code is None:
                continue
            self.say(f"{name} ended with {code}")
            if not self.restart:
                self._ending.set()
                return
            if not self._ending.wait(RESTART_PAUSE_S):
                self.start(name)
            return

    def stop(self) -> None:
        """Sends SIGTERM to all children, then SIGKILL to those that stay."""
        for child in self.children.values():
            if child.poll() is None:
                child.terminate()
        deadline = time.monotonic() + self.stop_s
        for name, child in self.children.items():
            try:
                child.wait(timeout=max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.say(f"{name} does not end: killed")
                child.kill()
                child.wait()
