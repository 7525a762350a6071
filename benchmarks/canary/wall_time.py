"""Wall time, as every process of the installation has it, and waiting for something."""

import time
from collections.abc import Callable
from typing import Final

from harness.runtime.clock import SystemClock

LOOK_S: Final = 0.02
_CLOCK: Final = SystemClock()


class TooLate(Exception):
    """What was waited for did not happen in its time."""


def now_s() -> float:
    return _CLOCK.now().timestamp()


def until(condition: Callable[[], object], timeout_s: float, every_s: float = LOOK_S) -> float:
    """When it came true. Raises TooLate."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise TooLate(f"not within {timeout_s:.0f} s")
        time.sleep(every_s)
    return now_s()
