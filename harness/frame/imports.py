"""Speeds up imports of large libraries: these functions keep the garbage collector from
searching modules, because modules stay until the process ends. `import_plain_structlog` skips a
library that our logs never use.
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Final

# A collection starts when this many more objects are allocated than freed. A short command
# allocates fewer.
STARTING_THRESHOLD: Final = 400_000
USUAL_THRESHOLDS: Final = gc.get_threshold()  # the interpreter's default


@contextmanager
def pause_garbage_collection() -> Iterator[None]:
    """Pauses the garbage collector inside the block. During imports it finds no garbage, and
    takes a quarter of the import time of a library such as Inspect.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def import_plain_structlog() -> None:
    """Imports structlog without rich, which formats tracebacks for a terminal. Our tracebacks
    are JSON or one line. Does nothing if rich is not installed, as beside swapproof-try.
    """
    if "structlog" in sys.modules or "rich" in sys.modules or find_spec("rich") is None:
        return
    sys.modules["rich"] = None  # type: ignore[assignment]  # marks it as not importable
    try:
        import structlog  # noqa: F401, PLC0415 - later imports get this module
    finally:
        del sys.modules["rich"]


def delay_collection() -> None:
    """Delays the first collection of a starting process until it has allocated more than its
    modules need. A short command then never collects, and takes a fifth less time.
    """
    gc.set_threshold(STARTING_THRESHOLD, *USUAL_THRESHOLDS[1:])


def freeze_modules() -> None:
    """Restores the usual collections for a serving process, but excludes all objects that
    exist now.
    """
    gc.freeze()
    gc.set_threshold(*USUAL_THRESHOLDS)


def freeze_application() -> None:
    """Excludes a process's application and endpoints from collections. Otherwise a call that
    allocates many objects would wait while the collector searches the application.
    """
    gc.collect()
    gc.freeze()
