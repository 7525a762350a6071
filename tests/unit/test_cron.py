from datetime import UTC, datetime

import pytest

from harness.frame.errors import InputError
from harness.frame.runtime.cron import CronCalendar

FRIDAY = datetime(2026, 11, 27, 3, tzinfo=UTC)


@pytest.mark.parametrize(
    ("cron", "day"),
    [
        ("0 3 * * 1", 30),
        ("0 3 * * mon", 30),
        ("0 3 * * 0", 29),
        ("0 3 * * 7", 29),
        ("0 3 * * 6,7", 28),
        ("0 3 * * 1-5", 30),
        ("0 3 * * 5-7", 28),
        ("0 3 * * */2", 28),
        ("0 3 * * *", 28),
    ],
)
def test_weekdays_are_counted_from_sunday(cron: str, day: int) -> None:
    assert CronCalendar().next_time(cron, FRIDAY) == datetime(2026, 11, day, 3, tzinfo=UTC)


def test_a_time_that_never_comes_and_an_expression_that_is_none() -> None:
    assert CronCalendar().next_time("0 0 31 2 *", FRIDAY) is None
    for wrong in ("0 3 * *", "0 3 * * 9", "tomorrow", "61 3 * * 1"):
        with pytest.raises(InputError, match="not a cron expression"):
            CronCalendar().next_time(wrong, FRIDAY)
