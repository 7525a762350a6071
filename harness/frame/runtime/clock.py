"""The system's clock (`SystemClock`)."""

import secrets
import time
from datetime import UTC, datetime
from functools import partial


class SystemClock:
    # No functions of our own around them: each request asks several times.
    now = staticmethod(partial(datetime.now, UTC))  # noqa: TID251 - the one real clock
    monotonic = staticmethod(time.monotonic)


class SystemRandomIds:
    def token(self, prefix: str) -> str:
        return f"{prefix}{secrets.token_hex(8)}"

    def secret(self) -> str:
        return secrets.token_urlsafe(32)
