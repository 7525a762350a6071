"""Imports large libraries without looking for garbage among what they make: while something is
imported (`pause_garbage_collection`), from a process's first line on (`put_off_collection`),
and afterwards (`leave_modules_alone`); `leave_alone_what_serves` does it for what a process
serves with. `import_plain_structlog` leaves out what our logs never use.
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

# Objects more than were freed. A command makes less than that on its way to its answer.
STARTING: Final = 400_000
USUAL: Final = gc.get_threshold()  # this interpreter's own


@contextmanager
def pause_garbage_collection() -> Iterator[None]:
    """Pauses the garbage collector: modules stay, so looking for garbage among them finds none
    and takes a quarter of the time of importing a library such as Inspect.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def import_plain_structlog() -> None:
    """Imports structlog without rich, with which it would paint tracebacks on a terminal. Ours
    are JSON, or one line.
    """
    if "structlog" in sys.modules or "rich" in sys.modules:
        return
    sys.modules["rich"] = None  # type: ignore[assignment]  # as the import system has it
    try:
        import structlog  # noqa: F401, PLC0415 - now, and for whoever imports it later
    finally:
        del sys.modules["rich"]


def put_off_collection() -> None:
    """Lets a process that begins collect only when it has made as much as all its modules: a
    short command never does, and takes a fifth less time.
    """
    gc.set_threshold(STARTING, *USUAL[1:])


def leave_modules_alone() -> None:
    """Lets a process that serves collect as usual from now on, what is there by now left out:
    that stays.
    """
    gc.freeze()
    gc.set_threshold(*USUAL)


def leave_alone_what_serves() -> None:
    """Leaves out of all collections what a process is about to serve with, the application with
    its endpoints: a call that makes many objects would wait until all of these were looked at.
    """
    gc.collect()
    gc.freeze()
