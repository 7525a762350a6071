"""Times on the command line are in UTC, whatever zone they were given in."""

from datetime import UTC, datetime, timedelta, timezone

from harness.cli.frame.output import timestamp


def test_a_moment_given_in_another_zone_is_written_in_utc() -> None:
    zone = timezone(timedelta(hours=1))
    given = datetime(2026, 12, 20, 0, 30, tzinfo=zone)

    assert timestamp(given) == "2026-12-19 23:30:00"
    assert timestamp(given.astimezone(UTC)) == "2026-12-19 23:30:00"
