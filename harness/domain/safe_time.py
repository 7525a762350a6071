"""Adds seconds to a date without overflow: dates far in the future are capped at NEVER."""

from datetime import UTC, datetime, timedelta
from typing import Final

# A day's distance from the calendar's end: time zones and clocks may still add to it.
NEVER: Final = datetime(9999, 12, 30, tzinfo=UTC)


def add_seconds(at: datetime, seconds: float) -> datetime:
    """Returns the time `seconds` after `at`; NEVER beyond the calendar."""
    try:
        return min(at + timedelta(seconds=seconds), NEVER)
    except OverflowError:
        return NEVER
