"""The system's clock (`SystemClock`)."""

import time
from datetime import UTC, datetime


class SystemClock:
    """Implements ports.Clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)  # noqa: TID251 - the one real clock

    # Not a function of our own around it: each request asks several times.
    monotonic = staticmethod(time.monotonic)
