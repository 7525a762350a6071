"""The system's clock (`SystemClock`)."""

import time
from datetime import UTC, datetime


class SystemClock:
    """Implements ports.Clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)  # noqa: TID251 - the one real clock

    def monotonic(self) -> float:
        return time.monotonic()
