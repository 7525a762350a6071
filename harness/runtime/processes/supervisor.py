"""Starts a group of child processes, restarts those that die, and ends all on Ctrl-C,
SIGTERM or a terminal that closes.
"""

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from harness.runtime.processes.interruption import LOOK_EVERY_S, Interruption, interrupts

RESTART_PAUSE_S = 1.0
LAST_WORDS_S = 20.0
LAST_WORDS = "what they have begun is done first"
STARTING_S = 300.0
MISCONFIGURED = 2  # the exit code of a command whose configuration a person has to mend


@dataclass
class Supervisor:
    """A child that dies is started again after a pause; a signal ends all of them and leaves
    none behind. A child that ends with `MISCONFIGURED` while all are starting ends all: it
    would end so again. Later its neighbours go on serving.
    """

    commands: Mapping[str, Sequence[str]]  # name to argv
    say: Callable[[str], None]  # told of every start, death and restart, in words
    restart: bool = True
    stop_s: float = LAST_WORDS_S  # how long they have for it
    children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _ending: bool = False
    _began: float = 0.0
    _code: int = 0

    def run(self) -> int:
        """Start all and watch until a signal comes. Returns the exit code."""
        self._began = time.monotonic()
        with interrupts() as over:
            try:
                for name in self.commands:
                    self.start(name)
                while not (over.ended or self._ending):
                    time.sleep(LOOK_EVERY_S)
                    self._watch(over)
                if over.ended:
                    self.say(f"ending {', '.join(self.children)}: {LAST_WORDS}")
            finally:
                self.stop()
        return self._code

    def start(self, name: str) -> None:
        # A group of its own: Ctrl-C reaches the parent alone, which then ends them in order.
        self.children[name] = subprocess.Popen(  # noqa: S603 - our own commands
            list(self.commands[name]), start_new_session=True, env=dict(os.environ)
        )
        self.say(f"{name} runs as pid {self.children[name].pid}")

    def _watch(self, over: Interruption) -> None:
        for name, child in self.children.items():
            code = child.poll()
            if code is None or over.ended:
                continue
            self.say(f"{name} ended with {code}")
            misconfigured = (
                code == MISCONFIGURED and time.monotonic() - self._began < STARTING_S
            )
            if misconfigured:
                self._code = code
            if misconfigured or not self.restart:
                self._ending = True
                return
            time.sleep(RESTART_PAUSE_S)
            if not over.ended:
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
