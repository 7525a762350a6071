"""A clock that tells noon when the tests begin (`MiddayClock`)."""

from datetime import datetime

from harness.frame.runtime.clock import SystemClock

_BEGUN = SystemClock.now()
_UNTIL_NOON = _BEGUN.replace(hour=12, minute=0, second=0) - _BEGUN


class MiddayClock(SystemClock):
    """The system's clock, moved by hours: sums of a day or a month are asked for on the day,
    and in the month, in which they were written, whenever the tests run.
    """

    @staticmethod
    def now() -> datetime:
        return SystemClock.now() + _UNTIL_NOON
