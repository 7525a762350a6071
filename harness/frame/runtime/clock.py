"""The system's clock, the detection of its jumps (`ClockWatch`) and random ids."""

import secrets
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final


class SystemClock:
    # Without wrapper functions, because each request reads the clock several times.
    now = staticmethod(partial(datetime.now, UTC))  # noqa: TID251 - the one real clock
    monotonic = staticmethod(time.monotonic)


class SystemRandomIds:
    def token(self, prefix: str) -> str:
        return f"{prefix}{secrets.token_hex(8)}"

    def secret(self) -> str:
        return secrets.token_urlsafe(32)


JUMP_S: Final = 5.0

# After a clock jump, irreversible decisions wait this long.
SETTLE_S: Final = 120.0

# If the clock was set back, old rows look new until the clock reaches its old time, and for
# this long after it: a row covers one minute, and Swapgate misses a row only a minute later.
PASS_FOR_NEW: Final = timedelta(seconds=180)


class ClockWatch:
    """Detects jumps of the wall clock: each `observe` compares it with the monotonic clock."""

    def __init__(self) -> None:
        self._lead: float | None = None
        self._behind_s = 0.0
        self._jumped_s: float | None = None
        self._latest: datetime | None = None
        self._new_from: datetime | None = None

    def observe(self, now: datetime, monotonic: float) -> None:
        lead = now.timestamp() - monotonic
        if self._lead is not None and abs(lead - self._lead) > JUMP_S:
            self._behind_s += lead - self._lead
            self._jumped_s = monotonic
        self._lead = lead
        self._latest = max(now, self._latest or now)
        if self._latest - now > timedelta(seconds=JUMP_S):
            self._new_from = self._latest + PASS_FOR_NEW

    def lives_again_until(self, now: datetime) -> datetime | None:
        """Returns until when old rows look new, because the clock was set back; None if they
        do not.
        """
        return self._new_from if self._new_from is not None and now < self._new_from else None

    def unsettled(self, monotonic: float) -> bool:
        return self._jumped_s is not None and monotonic - self._jumped_s < SETTLE_S

    def steady(self, now: datetime) -> datetime:
        """Returns the wall clock's time without its jumps."""
        return now - timedelta(seconds=self._behind_s)
