"""`Supervisor` starts a group of child processes, restarts an ended child, and stops the group.
`interrupts` records the signals that end a program; the program's loops check the record.

A signal handler interrupts the program at any point. An exception of the handler is lost if it
interrupts a callback of the interpreter. A handler that needs a lock may wait for ever, because
the interrupted code may hold the lock. So the handlers here only set a field.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Final, Protocol

from harness.frame.formatting import format_span

ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CHECK_EVERY_S = 0.2

# Makes a single process read the configuration again. A SIGHUP makes all of the supervisor's
# processes read it.
RELOAD: Final = signal.SIGUSR2
SUPERVISOR_VARIABLE: Final = "SWAPPROOF_SUPERVISOR_PID"


def has_terminal() -> bool:
    """Returns whether an open terminal controls this process."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def ends_with_terminal() -> bool:
    """Returns whether this process must end when its terminal closes: not under `nohup`."""
    return has_terminal() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN


def supervise_reloads() -> None:
    """Makes this process the supervisor to which its children pass their SIGHUPs."""
    os.environ[SUPERVISOR_VARIABLE] = str(os.getpid())
    signal.pthread_sigmask(signal.SIG_BLOCK, {RELOAD})


def reload_at_hangup() -> None:
    """Makes a SIGHUP to this process reload all of the supervisor's processes. Without a
    supervisor, only this process reloads.
    """

    def reload() -> None:
        os.kill(os.getpid(), RELOAD)

    if os.environ.get(SUPERVISOR_VARIABLE) == str(os.getppid()):
        pass_hangups_on(orphaned=reload)
    else:
        signal.signal(signal.SIGHUP, lambda *_: reload())


def pass_hangups_on(orphaned: Callable[[], None]) -> None:
    """Passes each SIGHUP to the parent process.

    Args:
        orphaned: called if the parent has ended.
    """
    parent = os.getppid()

    def pass_on(*_: object) -> None:
        if os.getppid() == parent:
            os.kill(parent, signal.SIGHUP)
        else:
            orphaned()

    signal.signal(signal.SIGHUP, pass_on)


@dataclass
class Interruption:
    ended: bool = False
    hung_up: bool = False  # a SIGHUP arrived since the last `wants_reload`
    on_terminal: bool = False  # a closed terminal ends the program

    def note(self, number: int, *, reloads: bool) -> None:
        if number == signal.SIGHUP and reloads:
            self.hung_up = True
        else:
            self.ended = True

    def wants_reload(self) -> bool:
        """Returns True once for each SIGHUP. A SIGHUP of a closed terminal ends the program."""
        hung_up = self.hung_up
        self.hung_up = False
        if hung_up and self.on_terminal and not has_terminal():
            self.ended = True
        return hung_up and not self.ended


@contextmanager
def interrupts(
    numbers: Sequence[signal.Signals] = ENDING_SIGNALS, *, reloads: bool = False
) -> Iterator[Interruption]:
    """Records Ctrl-C, SIGTERM and SIGHUP inside the block, instead of raising an exception.

    Python handles signals in the main thread only, so a block in another thread records none.

    Args:
        reloads: whether a SIGHUP requests a reload. Otherwise it ends the program, unless
            `nohup` started the program.
    """
    interruption = Interruption(on_terminal=reloads and ends_with_terminal())
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    former_handlers = {number: signal.getsignal(number) for number in numbers}
    if former_handlers.get(signal.SIGHUP) is signal.SIG_IGN and not reloads:
        del former_handlers[signal.SIGHUP]
    for number in former_handlers:
        signal.signal(number, lambda number, _: interruption.note(number, reloads=reloads))
    try:
        yield interruption
    finally:
        for number, handler in former_handlers.items():
            signal.signal(number, handler)


def wait_for_interrupt() -> None:
    with interrupts() as interruption:
        while not interruption.ended:
            time.sleep(CHECK_EVERY_S)


# The first pause before a restart. It doubles, up to LONGEST_PAUSE_S, while a child ends soon.
RESTART_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
SETTLED_S = 60.0
STOP_TIMEOUT_S = 20.0
ENDING_NOTE = "they finish their current work first"
STARTING_S = 300.0
MISCONFIGURED = 2  # the exit code of a command with a wrong configuration


class Child(Protocol):
    """A supervisor's child process: a Popen or a ForkedProcess."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def send_signal(self, number: int) -> None: ...

    def terminate(self) -> None: ...

    def kill(self) -> None: ...


@dataclass
class Supervisor:
    """Restarts a child that ends, after a pause that grows while the child ends soon after each
    start. A signal ends all children. After a SIGHUP to the supervisor or to a child, all
    children read the configuration again.

    A child that ends with `MISCONFIGURED` during the start ends all children, because it would
    fail again. After the start, the other children continue to serve.
    """

    commands: Mapping[str, Sequence[str]]  # maps a name to argv
    say: Callable[[str], None]  # reports each start, end and restart, in words
    restart: bool = True
    stop_s: float = STOP_TIMEOUT_S  # how long the children may take to end
    # Before `run`, it holds the children that run already.
    children: dict[str, Child] = field(default_factory=dict)
    _started: dict[str, float] = field(default_factory=dict)  # monotonic times
    _next_pause_s: dict[str, float] = field(default_factory=dict)  # before the next start
    _next_start: dict[str, float] = field(default_factory=dict)  # monotonic times
    _ending: bool = False
    _run_started: float = 0.0
    _exit_code: int = 0

    def run(self, interruption: Interruption | None = None) -> int:
        self._run_started = time.monotonic()
        with nullcontext(interruption) if interruption else interrupts(reloads=True) as record:
            try:
                for name in self.commands:
                    if name in self.children:
                        self._note_start(name)
                    else:
                        self.start(name)
                while not (record.ended or self._ending):
                    time.sleep(CHECK_EVERY_S)
                    self._check_children(record)
                    if record.wants_reload():
                        self._reload()
                if record.ended:
                    self.say(f"ending {', '.join(self.children)}: {ENDING_NOTE}")
            finally:
                self.stop()
        return self._exit_code

    def start(self, name: str) -> None:
        # Each child gets its own session, so that Ctrl-C reaches only the parent. The parent
        # then ends the children.
        self.children[name] = subprocess.Popen(  # noqa: S603 - our own commands
            list(self.commands[name]),
            start_new_session=True,
            env=dict(os.environ),
        )
        self._note_start(name)

    def _note_start(self, name: str) -> None:
        self._started[name] = time.monotonic()
        self.say(f"{name} runs as pid {self.children[name].pid}")

    def _check_children(self, interruption: Interruption) -> None:
        for name, child in self.children.items():
            if interruption.ended or self._ending:
                return
            if name in self._next_start:
                if time.monotonic() >= self._next_start[name]:
                    del self._next_start[name]
                    self.start(name)
            elif (code := child.poll()) is not None:
                self._note_end(name, code)

    def _reload(self) -> None:
        self.say(f"SIGHUP: {', '.join(self.children)} read the configuration again")
        for child in self.children.values():
            if child.poll() is None:
                child.send_signal(RELOAD)

    def _note_end(self, name: str, code: int) -> None:
        now = time.monotonic()
        misconfigured = code == MISCONFIGURED and now - self._run_started < STARTING_S
        if misconfigured:
            self._exit_code = code
        if misconfigured or not self.restart:
            self.say(f"{name} ended with {code}")
            self._ending = True
            return
        settled = now - self._started[name] >= SETTLED_S
        pause_s = RESTART_PAUSE_S if settled else self._next_pause_s.get(name, RESTART_PAUSE_S)
        self._next_pause_s[name] = min(2 * pause_s, LONGEST_PAUSE_S)
        self._next_start[name] = now + pause_s
        plan = (
            f"; it starts again in {format_span(pause_s)}" if pause_s > RESTART_PAUSE_S else ""
        )
        self.say(f"{name} ended with {code}{plan}")

    def stop(self) -> None:
        for child in self.children.values():
            if child.poll() is None:
                child.terminate()
        deadline = time.monotonic() + self.stop_s
        for name, child in self.children.items():
            try:
                child.wait(timeout=max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.say(f"{name} did not end in time; the supervisor killed it")
                child.kill()
                child.wait()
