"""Starts a group of child processes, restarts dead ones, and ends all together."""

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Protocol

from harness.frame.formatting import format_span
from harness.frame.runtime.interruption import LOOK_EVERY_S, RELOAD, Interruption, interrupts

# Doubled each time that a child dies soon after its start, up to the longest.
RESTART_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
SETTLED_S = 60.0
LAST_WORDS_S = 20.0
LAST_WORDS = "what they have begun is done first"
STARTING_S = 300.0
MISCONFIGURED = 2  # the exit code of a command whose configuration a person has to mend


class Child(Protocol):
    """A process that a supervisor started, or was given: a Popen or a ForkedProcess."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def send_signal(self, number: int) -> None: ...

    def terminate(self) -> None: ...

    def kill(self) -> None: ...


@dataclass
class Supervisor:
    """A child that dies is started again after a pause, which grows while it dies soon after
    each start; a signal ends all of them and leaves none behind. After a SIGHUP, also to one
    child, each child reads the configuration again. A child that ends with
    `MISCONFIGURED` while all are starting ends all: it would end so again. Later its neighbours
    go on serving.
    """

    commands: Mapping[str, Sequence[str]]  # name to argv
    say: Callable[[str], None]  # told of every start, death and restart, in words
    restart: bool = True
    stop_s: float = LAST_WORDS_S  # how long they have for it
    children: dict[str, Child] = field(default_factory=dict)  # given: children that run already
    _started: dict[str, float] = field(default_factory=dict)  # when, monotonic
    _pause_s: dict[str, float] = field(default_factory=dict)  # before its next start
    _due: dict[str, float] = field(default_factory=dict)  # when to start it, while it waits
    _ending: bool = False
    _began: float = 0.0
    _code: int = 0

    def run(self, interruption: Interruption | None = None) -> int:
        self._began = time.monotonic()
        with nullcontext(interruption) if interruption else interrupts(reloads=True) as over:
            try:
                for name in self.commands:
                    if name in self.children:
                        self._note_start(name)
                    else:
                        self.start(name)
                while not (over.ended or self._ending):
                    time.sleep(LOOK_EVERY_S)
                    self._watch(over)
                    if over.wants_reload():
                        self._reload()
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
        self._note_start(name)

    def _note_start(self, name: str) -> None:
        self._started[name] = time.monotonic()
        self.say(f"{name} runs as pid {self.children[name].pid}")

    def _watch(self, over: Interruption) -> None:
        for name, child in self.children.items():
            if over.ended or self._ending:
                return
            if name in self._due:
                if time.monotonic() >= self._due[name]:
                    del self._due[name]
                    self.start(name)
            elif (code := child.poll()) is not None:
                self._note_death(name, code)

    def _reload(self) -> None:
        self.say(f"SIGHUP: {', '.join(self.children)} read the configuration again")
        for child in self.children.values():
            if child.poll() is None:
                child.send_signal(RELOAD)

    def _note_death(self, name: str, code: int) -> None:
        now = time.monotonic()
        misconfigured = code == MISCONFIGURED and now - self._began < STARTING_S
        if misconfigured:
            self._code = code
        if misconfigured or not self.restart:
            self.say(f"{name} ended with {code}")
            self._ending = True
            return
        settled = now - self._started[name] >= SETTLED_S
        pause_s = RESTART_PAUSE_S if settled else self._pause_s.get(name, RESTART_PAUSE_S)
        self._pause_s[name] = min(2 * pause_s, LONGEST_PAUSE_S)
        self._due[name] = now + pause_s
        later = (
            f"; it starts again in {format_span(pause_s)}" if pause_s > RESTART_PAUSE_S else ""
        )
        self.say(f"{name} ended with {code}{later}")

    def stop(self) -> None:
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
