from datetime import UTC, datetime, timedelta

import pytest

from harness.frame.errors import InputError
from harness.routing.freeze import Freeze, build_window, measure_frozen_time

pytestmark = pytest.mark.req("G2")


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "until"),
    [
        # Friday 16:00 in Berlin is 14:00 UTC in summer and 15:00 in winter.
        ("2026-07-03 13:59", None),
        ("2026-07-03 14:00", "2026-07-06 06:00"),
        ("2026-07-06 05:59", "2026-07-06 06:00"),
        ("2026-07-06 06:00", None),
        ("2026-11-20 14:59", None),
        ("2026-11-20 15:00", "2026-11-23 07:00"),
        # Clocks change within these two weekends: each edge goes by the time of its own day.
        ("2026-03-27 15:00", "2026-03-30 06:00"),
        ("2026-10-23 14:00", "2026-10-26 07:00"),
        ("2026-10-26 06:59", "2026-10-26 07:00"),
    ],
)
def test_a_weekly_freeze_goes_by_the_clock_of_its_zone(now: str, until: str | None) -> None:
    window = build_window("Fri 16:00", "Mon 08:00", "Europe/Berlin", "the weekend", ())
    freezes = window.list_freezes(utc(now), utc(now))
    assert [freeze.ends_at for freeze in freezes] == ([utc(until)] if until else [])


def test_a_freeze_that_ends_in_a_repeated_or_skipped_hour_is_the_longer_one() -> None:
    window = build_window("Sat 22:00", "Sun 02:30", "Europe/Berlin", "the night", ())
    for at, until in [
        ("2026-10-24 23:00", "2026-10-25 01:30"),  # 02:30 comes twice
        ("2026-03-28 22:00", "2026-03-29 01:30"),  # 02:30 is skipped
    ]:
        (freeze,) = window.list_freezes(utc(at), utc(at))
        assert freeze.ends_at == utc(until)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("Fri 25:00", "Mon 08:00", "UTC", "why"), "not a time of the week"),
        (
            ("Someday 5:00", "Mon 08:00", "UTC", "why"),
            "not a time of the week",
        ),
        (("Fri 16:00", "Fri 16:00", "UTC", "why"), "is empty"),
        (
            ("Fri 16:00", "Mon 08:00", "Mars/Olympus", "why"),
            "does not know the time zone",
        ),
        (
            ("Fri 16:00", "Mon 08:00", "../../etc/passwd", "why"),
            "does not know the time zone",
        ),
        (("Fri 16:00", "Mon 08:00", "UTC", "  "), "needs a `reason`"),
    ],
)
def test_a_window_that_makes_no_sense_is_refused(
    words: tuple[str, str, str, str], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        build_window(*words, routes=())


def test_time_under_two_freezes_at_once_counts_once() -> None:
    start = utc("2026-11-20 00:00")
    hour = timedelta(hours=1)
    spans = [
        Freeze("sw_1", "chat", "why", "ben", start + a * hour, start + b * hour)
        for a, b in (
            (0, 4),
            (2, 3),
            (3, 6),
            (20, 90),
        )
    ]
    now = start + 21 * hour
    assert measure_frozen_time(spans, start + hour, now) == 6 * hour
