"""Cron expressions come at the times that crontab(5) gives them."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.frame.cron import NICKNAMES, latest_time, next_time
from harness.frame.errors import InputError

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
    assert next_time(cron, FRIDAY) == datetime(2026, 11, day, 3, tzinfo=UTC)


@pytest.mark.parametrize(
    ("cron", "days"),
    [
        ("0 3 1,15 * 1", ["11-30", "12-01", "12-07", "12-14", "12-15"]),
        ("0 3 */2 * 1", ["12-07", "12-21", "01-11", "01-25", "02-01"]),
        ("0 3 1 * */2", ["12-01", "04-01", "05-01", "06-01", "07-01"]),
        ("0 3 */2 * */3", ["11-29", "12-05", "12-09", "12-13", "12-19"]),
    ],
)
def test_either_day_field_may_match_unless_one_begins_with_a_star(
    cron: str, days: list[str]
) -> None:
    found = [FRIDAY]
    for _ in days:
        found.append(next_time(cron, found[-1]))

    assert [f"{at:%m-%d}" for at in found[1:]] == days


@pytest.mark.parametrize("nickname", sorted(NICKNAMES))
def test_a_nickname_means_its_five_fields(nickname: str) -> None:
    assert next_time(nickname.upper(), FRIDAY) == next_time(NICKNAMES[nickname], FRIDAY)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("0 3 * *", "write five fields"),
        ("* * * * * *", "write five fields"),
        ("tomorrow", "write five fields"),
        ("@reboot", "write five fields"),
        ("0 3 * * 9", "the weekday is '9', but it takes 0 to 7"),
        ("0 3 * * MON#1", "the weekday is 'MON#1'"),
        ("0 3 * * 5L", "the weekday is '5L'"),
        ("0 3 L * *", "the day is 'L'"),
        ("0 3 * mon *", "the month is 'mon'"),
        ("61 3 * * 1", "the minute is '61', but it takes 0 to 59"),
        ("0 3 31 2 *", "names a time that never comes"),
        ("0 3 31 4,6 *", "names a time that never comes"),
    ],
)
def test_an_expression_that_is_none_or_never_comes_is_refused(wrong: str, reason: str) -> None:
    for read in (next_time, latest_time):
        with pytest.raises(InputError, match=reason):
            read(wrong, FRIDAY)


@given(
    minutes=st.integers(0, 3_000_000),
    cron=st.sampled_from(["*/7 * * * *", "0 3 * * 1", "15 4 1 * *", "0 3 1,15 * 1"]),
)
def test_the_newest_time_lies_just_before_the_next_one(minutes: int, cron: str) -> None:
    now = FRIDAY + timedelta(minutes=minutes)
    newest = latest_time(cron, now)

    assert newest <= now < next_time(cron, now)
    assert next_time(cron, newest) == next_time(cron, now)
