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

# After the clock was set back, old rows look new until the clock reaches its old time, and
# this long beyond it. A row covers one minute, and Swapproof notices a missing row a minute
# later.
OLD_ROWS_PASS_FOR: Final = timedelta(seconds=180)


class ClockWatch:
    """Detects jumps of the wall clock: each `observe` compares it with the monotonic clock."""

    def __init__(self) -> None:
        self._lead: float | None = None
        self._jumps_s = 0.0
        self._jumped_s: float | None = None
        self._latest: datetime | None = None
        self._old_rows_pass_until: datetime | None = None

    def observe(self, now: datetime, monotonic: float) -> None:
        """Compares the wall clock `now` with the monotonic clock, in seconds."""
        lead = now.timestamp() - monotonic
        if self._lead is not None and abs(lead - self._lead) > JUMP_S:
            self._jumps_s += lead - self._lead
            self._jumped_s = monotonic
        self._lead = lead
        self._latest = max(now, self._latest or now)
        if self._latest - now > timedelta(seconds=JUMP_S):
            self._old_rows_pass_until = self._latest + OLD_ROWS_PASS_FOR

    def old_rows_pass_until(self, now: datetime) -> datetime | None:
        """Returns the time until which old rows look new, because the clock was set back; None
        if no old row looks new.
        """
        return (
            self._old_rows_pass_until
            if self._old_rows_pass_until is not None and now < self._old_rows_pass_until
            else None
        )

    def unsettled(self, monotonic: float) -> bool:
        """Returns whether the clock jumped less than SETTLE_S ago.

        Args:
            monotonic: now.
        """
        return self._jumped_s is not None and monotonic - self._jumped_s < SETTLE_S

    def steady(self, now: datetime) -> datetime:
        """Returns the wall clock's time without its jumps."""
        return now - timedelta(seconds=self._jumps_s)
