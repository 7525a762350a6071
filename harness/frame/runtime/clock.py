"""The system's clock, the detection of its jumps (`ClockWatch`), random ids, and times of cron
expressions.
"""

import re
import secrets
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

from harness.frame.errors import InputError

if TYPE_CHECKING:
    from apscheduler.triggers.cron import CronTrigger


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

# After a clock set back reaches its old time, old rows can pass for new ones this much longer:
# a row covers one minute, and a silence shows only after another minute.
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
        """Returns until when old rows can pass for new ones, after the clock was set back and
        passes the same times again. None if it does not.
        """
        return self._new_from if self._new_from is not None and now < self._new_from else None

    def unsettled(self, monotonic: float) -> bool:
        return self._jumped_s is not None and monotonic - self._jumped_s < SETTLE_S

    def steady(self, now: datetime) -> datetime:
        """Returns the wall clock's time without its jumps."""
        return now - timedelta(seconds=self._behind_s)


WEEKDAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_DAYS: Final = re.compile(r"(?P<first>\*|[0-7])(-(?P<last>[0-7]))?(/(?P<step>[1-7]))?")


def parse_cron(cron: str) -> "CronTrigger":
    """Parses a cron expression: five fields, UTC. Weekdays are cron's, 0 and 7 for Sunday,
    whereas APScheduler counts from Monday. Raises InputError.
    """
    # Imported late, because every command opens an installation and few need a schedule.
    from apscheduler.triggers.cron import CronTrigger  # noqa: PLC0415 - see above

    fields = cron.split()
    if len(fields) == 5:
        fields[4] = ",".join(map(_name_weekdays, fields[4].split(",")))
    try:
        return CronTrigger.from_crontab(" ".join(fields), timezone="UTC")
    except ValueError as error:
        raise InputError(f"{cron!r} is not a cron expression: {error}") from None


class CronCalendar:
    def next_time(self, cron: str, after: datetime) -> datetime | None:
        """Returns the first time after `after`; None if no time matches. Raises InputError."""
        later = after + timedelta(seconds=1)
        found: datetime | None = parse_cron(cron).get_next_fire_time(None, later)
        return found


def _name_weekdays(days: str) -> str:
    found = _DAYS.fullmatch(days)
    if found is None or days == "*":
        return days
    first, last = (0, 6) if found["first"] == "*" else (int(found["first"]),) * 2
    if found["last"] or (found["step"] and found["first"] != "*"):
        last = int(found["last"] or 6)
    named = [WEEKDAYS[day % 7] for day in range(first, last + 1, int(found["step"] or 1))]
    return ",".join(named) or days
