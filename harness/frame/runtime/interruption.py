"""Notes the signals that end a program (`interrupts`), for loops that look for them in their
own time.

A handler runs at any point of the program. Its exception can be lost in a callback of the
interpreter. A lock that it takes, an Event's too, may be held by the code that it interrupts,
which then waits for ever. So it sets a plain field.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LOOK_EVERY_S = 0.2
# Tells one process to read the configuration again. A SIGHUP is for all that a supervisor runs.
RELOAD: Final = signal.SIGUSR2
SUPERVISOR_VARIABLE: Final = "SWAPGATE_SUPERVISOR_PID"


def has_terminal() -> bool:
    """Tells whether a terminal controls this process. One that was closed does not any more."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def ends_with_terminal() -> bool:
    """Tells whether the closing of its terminal is to end this process: not under `nohup`."""
    return has_terminal() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN


def supervise_reloads() -> None:
    """Makes this process the one to which its children pass their SIGHUPs."""
    os.environ[SUPERVISOR_VARIABLE] = str(os.getpid())
    signal.pthread_sigmask(signal.SIG_BLOCK, {RELOAD})


def reload_at_hangup() -> None:
    """Turns each SIGHUP into a RELOAD of all that a supervisor runs, or of this process."""

    def reload() -> None:
        os.kill(os.getpid(), RELOAD)

    if os.environ.get(SUPERVISOR_VARIABLE) == str(os.getppid()):
        pass_hangups_on(orphaned=reload)
    else:
        signal.signal(signal.SIGHUP, lambda *_: reload())


def pass_hangups_on(orphaned: Callable[[], None]) -> None:
    """Passes each SIGHUP on to the parent process. orphaned: called instead once it is gone."""
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
    hung_up: bool = False  # by a SIGHUP that nobody has looked at
    on_terminal: bool = False  # a closed terminal ends the program

    def note(self, number: int, *, reloads: bool) -> None:
        if number == signal.SIGHUP and reloads:
            self.hung_up = True
        else:
            self.ended = True

    def wants_reload(self) -> bool:
        """Tells once of each SIGHUP. One that a closed terminal sent ends the program."""
        hung_up, self.hung_up = self.hung_up, False
        if hung_up and self.on_terminal and not has_terminal():
            self.ended = True
        return hung_up and not self.ended


@contextmanager
def interrupts(
    numbers: Sequence[signal.Signals] = ENDING, *, reloads: bool = False
) -> Iterator[Interruption]:
    """Meanwhile Ctrl-C, SIGTERM and SIGHUP are noted and raise nothing. Only the main thread
    gets any. reloads: a SIGHUP asks for a reload. Elsewhere it ends the program, or stays
    ignored where `nohup` started the program.
    """
    over = Interruption(on_terminal=reloads and ends_with_terminal())
    if threading.current_thread() is not threading.main_thread():
        yield over
        return
    before = {number: signal.getsignal(number) for number in numbers}
    if before.get(signal.SIGHUP) is signal.SIG_IGN and not reloads:
        del before[signal.SIGHUP]
    for number in before:
        signal.signal(number, lambda number, _: over.note(number, reloads=reloads))
    try:
        yield over
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def wait_for_interrupt() -> None:
    with interrupts() as over:
        while not over.ended:
            time.sleep(LOOK_EVERY_S)
