"""What a step lasts at least, whatever the evidence says."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.domain.proposals.policy import CanaryStep, PeakHours
from harness.gate.online.next_step import missing_duration, peak_reached_at, peak_seconds

MONDAY = datetime(2026, 11, 16, tzinfo=UTC)
DAYTIME = PeakHours(8, 18)
HOUR = 3_600.0

pytestmark = pytest.mark.req("F3")


def at(hours: float) -> datetime:
    return MONDAY + timedelta(hours=hours)


@pytest.mark.parametrize(
    ("peak", "began", "ended", "hours"),
    [
        (DAYTIME, 0, 24, 10),
        (DAYTIME, 9, 10, 1),
        (DAYTIME, 17, 33, 2),
        (DAYTIME, 19, 30, 0),
        (PeakHours(22, 6), 0, 24, 8),
        (PeakHours(22, 6), 23, 29, 6),
        (PeakHours(0, 24), 5, 7.5, 2.5),
        (DAYTIME, 10, 9, 0),
    ],
)
def test_peak_hours_are_counted_within_the_window_alone(
    peak: PeakHours, began: float, ended: float, hours: float
) -> None:
    assert peak_seconds(peak, at(began), at(ended)) == hours * HOUR


@given(st.integers(0, 23), st.integers(0, 24), st.floats(0, 72), st.floats(0, 72))
def test_a_window_and_the_rest_of_the_day_make_the_whole_time(
    start: int, end: int, began: float, length: float
) -> None:
    whole = peak_seconds(PeakHours(0, 24), at(began), at(began + length))
    inside = peak_seconds(PeakHours(start, end), at(began), at(began + length))
    outside = peak_seconds(PeakHours(end % 24, start), at(began), at(began + length))
    assert whole == pytest.approx(length * HOUR, abs=1e-3)
    if start == end % 24:
        assert inside == whole
    else:
        assert inside + outside == pytest.approx(whole, abs=1e-3)


@given(st.integers(0, 24), st.integers(0, 24), st.floats(0, 72), st.floats(1, 1e7))
def test_a_peak_is_reached_at_the_first_moment_at_which_it_lasted_that_long(
    start: int, end: int, began: float, wanted_s: float
) -> None:
    peak = PeakHours(start, end)
    reached = peak_reached_at(peak, at(began), wanted_s)
    assert peak_seconds(peak, at(began), reached) == pytest.approx(wanted_s, abs=1e-3)
    assert peak_seconds(peak, at(began), reached - timedelta(seconds=1)) < wanted_s


def test_a_step_that_is_too_short_says_what_is_left() -> None:
    step = CanaryStep(100, 10, min_s=2 * HOUR)
    assert missing_duration(step, DAYTIME, at(0), at(0.5)) == (
        "The step lasts at least 2 h: 1 h 30 min are left"
    )
    assert missing_duration(step, DAYTIME, at(0), at(2)) == ""


def test_a_clock_that_was_set_back_is_called_that_and_not_a_floor() -> None:
    assert missing_duration(CanaryStep(100, 5), DAYTIME, at(1), at(0.5)) == (
        "By this machine's clock the step begins in 30 min"
    )
    assert missing_duration(CanaryStep(100, 5), DAYTIME, at(1), at(1)) == ""


def test_a_step_may_ask_for_peak_traffic() -> None:
    step = CanaryStep(100, 10, min_peak_s=3 * HOUR)
    left = missing_duration(step, DAYTIME, at(0), at(10))
    assert left == ("The step lasts at least 3 h of peak traffic (8 to 18 h UTC): 1 h are left")
    assert missing_duration(step, DAYTIME, at(0), at(11)) == ""
