"""A range limits a number that people may set, and describes itself in error messages.

Adds seconds to a date without overflow: dates far in the future are capped at NEVER.
"""

from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple


class Range(NamedTuple):
    """Bounds a number on both sides; the bounds themselves are allowed."""

    low: float
    high: float
    zero: bool = False  # 0 is right as well, and turns it off

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high or (self.zero and value == 0)

    @property
    def text(self) -> str:
        words = f"{format_bound(self.low)} to {format_bound(self.high)}"
        return f"0, or {words}" if self.zero else words


# Of 1: a margin, a saving. Nearer to either end no suite has enough items.
SHARE_RANGE: Final = Range(0.0001, 0.999)


def format_bound(value: float) -> str:
    """Writes a number in full, such as 0.000001 and 31,622,400, up to what is too
    long to read.
    """
    if value and not 1e-9 <= abs(value) < 1e16:
        return f"{value:g}"
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:,.9f}".rstrip("0")


# A day's distance from the calendar's end: time zones and clocks may still add to it.
NEVER: Final = datetime(9999, 12, 30, tzinfo=UTC)


def add_seconds(at: datetime, seconds: float) -> datetime:
    """Returns the time `seconds` after `at`; NEVER beyond the calendar."""
    try:
        return min(at + timedelta(seconds=seconds), NEVER)
    except OverflowError:
        return NEVER
