"""Clocks: the system's (`SystemClock`), and one that tests turn by hand (`ManualClock`)."""

import time
from datetime import UTC, datetime, timedelta


class SystemClock:
    """Implements ports.Clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)  # noqa: TID251 - the one real clock

    def monotonic(self) -> float:
        return time.monotonic()


class ManualClock:
    """Implements ports.Clock; stands still until it is turned."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now, self._monotonic = start, 0.0

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Time goes by: both readings move."""
        self._now += timedelta(seconds=seconds)
        self._monotonic += seconds

    def jump(self, seconds: float) -> None:
        """Somebody sets the wall clock: only that reading moves."""
        self._now += timedelta(seconds=seconds)
