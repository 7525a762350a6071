"""The system's clock (`SystemClock`)."""

import time
from datetime import UTC, datetime
from functools import partial


class SystemClock:
    """Implements ports.Clock."""

    # No functions of our own around them: each request asks several times.
    now = staticmethod(partial(datetime.now, UTC))  # noqa: TID251 - the one real clock
    monotonic = staticmethod(time.monotonic)
