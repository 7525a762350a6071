"""Notes the signals that end a program (`interrupts`), for loops that look for them in their
own time.

A handler runs at any point of the program. Its exception can be lost in a callback of the
interpreter. A lock that it takes, an Event's too, may be held by the code that it interrupts,
which then waits for ever. So it sets a plain field.
"""

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LOOK_EVERY_S = 0.2


@dataclass
class Interruption:
    ended: bool = False

    def note(self) -> None:
        self.ended = True


@contextmanager
def interrupts(numbers: Sequence[signal.Signals] = ENDING) -> Iterator[Interruption]:
    """Meanwhile Ctrl-C, SIGTERM and SIGHUP are noted and raise nothing. A SIGHUP that the
    program was started to ignore, by `nohup`, stays ignored. Only the main thread gets any.
    """
    over = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield over
        return
    before = {number: signal.getsignal(number) for number in numbers}
    if before.get(signal.SIGHUP) is signal.SIG_IGN:
        del before[signal.SIGHUP]
    for number in before:
        signal.signal(number, lambda *_: over.note())
    try:
        yield over
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def wait_for_interrupt() -> None:
    with interrupts() as over:
        while not over.ended:
            time.sleep(LOOK_EVERY_S)
