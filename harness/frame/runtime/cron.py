"""Times of cron expressions. The client's wheel has the clock, and must not get APScheduler."""

import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from harness.frame.errors import InputError

if TYPE_CHECKING:
    from apscheduler.triggers.cron import CronTrigger


WEEKDAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_DAYS: Final = re.compile(r"(?P<first>\*|[0-7])(-(?P<last>[0-7]))?(/(?P<step>[1-7]))?")


def parse_cron(cron: str) -> "CronTrigger":
    """Parses a cron expression: five fields, UTC. Weekdays are cron's, 0 and 7 for Sunday,
    whereas APScheduler counts from Monday. Raises InputError.
    """
    from apscheduler.triggers.cron import CronTrigger  # noqa: PLC0415 - few commands need it

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
    if found["first"] == "*":
        first = 0
        last = 6
    else:
        first = last = int(found["first"])
    if found["last"] or (found["step"] and found["first"] != "*"):
        last = int(found["last"] or 6)
    named = [WEEKDAYS[day % 7] for day in range(first, last + 1, int(found["step"] or 1))]
    return ",".join(named) or days
