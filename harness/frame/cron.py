"""Reads cron expressions as crontab(5) has them: five fields in UTC, or a nickname.

If neither day field begins with `*`, either one may match: `0 3 1,15 * 1` is the 1st, the 15th
and each Monday. A day field that begins with `*` widens nothing: `0 3 */2 * 1` is Mondays on
odd days. cronsim follows Debian's cron; its additions (`MON#1`, `L`, seconds) are refused here.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from harness.frame.errors import InputError

if TYPE_CHECKING:
    from cronsim import CronSim

NICKNAMES: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
# The field's name, cronsim's word for it, its numbers, and its names.
_FIELDS: Final = (
    ("minute", "minute", "0 to 59", ""),
    ("hour", "hour", "0 to 23", ""),
    ("day", "day-of-month", "1 to 31", ""),
    ("month", "month", "1 to 12", "jan feb mar apr may jun jul aug sep oct nov dec"),
    ("weekday", "day-of-week", "0 to 7", "sun mon tue wed thu fri sat"),
)
_PART: Final = re.compile("[0-9A-Za-z*/,-]{1,200}")
_ANY_TIME: Final = datetime(2000, 1, 1, tzinfo=UTC)
_MOMENT: Final = timedelta(seconds=1)


def check_cron(cron: str) -> None:
    """Checks an expression. Raises InputError if it is malformed, or names a time that never
    comes.
    """
    next_time(cron, _ANY_TIME)


def next_time(cron: str, after: datetime) -> datetime:
    """Returns the first time after `after`, an aware UTC time. Raises InputError."""
    try:
        return next(_iterate_times(cron, after))
    except StopIteration:
        raise _build_never_error(cron) from None


def latest_time(cron: str, until: datetime) -> datetime:
    """Returns the last time up to `until`, an aware UTC time. Raises InputError."""
    try:
        return next(_iterate_times(cron, until.replace(microsecond=0) + _MOMENT, reverse=True))
    except StopIteration:
        raise _build_never_error(cron) from None


def _iterate_times(cron: str, start: datetime, *, reverse: bool = False) -> "CronSim":
    """Iterates over the times from `start`. Raises InputError for a faulty expression."""
    from cronsim import CronSim, CronSimError  # noqa: PLC0415 - few commands need it

    fields = NICKNAMES.get(cron.strip().lower(), cron).split()
    if len(fields) != len(_FIELDS):
        nicknames = ", ".join(NICKNAMES)
        raise InputError(
            f"{cron!r} is not a cron expression: write five fields (minute, hour, day, month, "
            f"weekday; UTC), such as '0 3 * * 1', or one of {nicknames}"
        )
    for part, (name, _, numbers, words) in zip(fields, _FIELDS, strict=True):
        letters = set(re.findall("[a-z]+", part.lower()))
        if not _PART.fullmatch(part) or not letters <= set(words.split()):
            raise _build_field_error(cron, name, part, numbers, words)
    try:
        return CronSim(" ".join(fields), start.astimezone(UTC), reverse=reverse)
    except CronSimError as error:
        at = next(n for n, field in enumerate(_FIELDS) if str(error).endswith(field[1]))
        name, _, numbers, words = _FIELDS[at]
        if name == "day" and _is_day(fields[at]):
            raise _build_never_error(cron) from None
        raise _build_field_error(cron, name, fields[at], numbers, words) from None


def _is_day(part: str) -> bool:
    from cronsim import CronSim, CronSimError  # noqa: PLC0415 - few commands need it

    try:
        CronSim(f"0 0 {part} * *", _ANY_TIME)
    except CronSimError:
        return False
    return True


def _build_field_error(cron: str, name: str, part: str, numbers: str, words: str) -> InputError:
    names = f" or {', '.join(words.split())}" if words else ""
    return InputError(
        f"{cron!r} is not a cron expression: the {name} is {part!r}, but it takes {numbers}"
        f"{names}, with * - / and commas"
    )


def _build_never_error(cron: str) -> InputError:
    return InputError(f"{cron!r} names a time that never comes: no such day is in its months")
