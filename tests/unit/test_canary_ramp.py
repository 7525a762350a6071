from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.canary import duration_estimate
from harness.frame import formatting
from harness.gate import explain, ramp
from harness.gate.policy import CanaryPolicy, CanaryStep, PeakHours
from harness.gate.ramp import TrafficPace
from harness.gate.step_duration import (
    missing_duration,
    peak_reached_at,
    peak_seconds,
)

pytestmark = pytest.mark.req("F3")

POLICY = CanaryPolicy()


def pace(per_hour: float, rate: float = 0.01) -> TrafficPace:
    return TrafficPace(per_hour, per_hour, rate, measured=True)


def test_a_step_takes_its_exposures_at_its_share_of_the_traffic() -> None:
    steps = ramp.plan_ramp(POLICY, pace(4000))

    assert steps[0].typical_s == pytest.approx(300 / (0.01 * 4000) * 3600)
    assert steps[1].typical_s == pytest.approx(1000 / (0.05 * 4000) * 3600)
    assert all(step.in_time for step in steps)


def test_a_step_takes_its_exposures_and_the_windows_of_their_callers() -> None:
    without = ramp.plan_ramp(POLICY, pace(4000))
    steps = ramp.plan_ramp(POLICY, pace(4000), 720.0)

    # The last caller waits for half of a block of 60 s, too.
    assert steps[0].typical_s == pytest.approx((without[0].typical_s or 0.0) + 750.0)
    assert steps[1].cautious_s == pytest.approx((without[1].cautious_s or 0.0) + 750.0)


def test_a_floor_of_time_is_in_the_plan() -> None:
    long = replace(POLICY, steps=(CanaryStep(100, 1, min_s=86_400.0),))

    assert ramp.plan_ramp(long, pace(1e6))[0].typical_s == 86_400.0


# Medians of the odds ratio's certificate alone, as the reference implementation has them; it is
# half of the mean here.
@pytest.mark.parametrize(
    ("rate", "median"),
    [
        (0.01, 1010),
        (0.05, 260),
        (0.10, 170),
    ],
)
def test_the_certificate_takes_the_exposures_that_were_measured(
    rate: float, median: int
) -> None:
    policy = replace(POLICY, block_size=40, steps=(CanaryStep(2500, 1, certify=True),))

    exposures = ramp.plan_ramp(policy, pace(36_000, rate))[0].exposures

    assert exposures is not None
    assert 0.5 * median < exposures < 2 * median


def test_on_a_route_that_hardly_fails_few_hundred_clean_exposures_certify() -> None:
    policy = replace(POLICY, steps=(CanaryStep(2500, 1, certify=True),))

    exposures = ramp.plan_ramp(policy, pace(36_000, 0.0))[0].exposures

    assert exposures is not None
    assert 300 <= exposures <= 600


def test_two_hundred_sessions_a_day_do_not_certify_and_options_are_offered() -> None:
    quiet = TrafficPace(200 / 24, 50_000 / 24, 0.01, measured=True)

    steps = ramp.plan_ramp(POLICY, quiet)
    said = explain.ramp_summary(quiet, steps)

    assert not steps[0].in_time
    assert not steps[2].in_time
    assert "would pause for a person" in said
    assert explain.ramp_options(steps, may_mirror=False) == (explain.TOO_SLOW,)


def test_more_traffic_never_makes_a_plan_longer() -> None:
    times = [
        ramp.plan_ramp(POLICY, pace(per_hour))[0].typical_s for per_hour in (10, 100, 1000, 1e5)
    ]

    assert times == sorted(times, key=lambda t: -(t or 1e18))


def test_the_same_plan_is_the_same_twice_and_says_what_it_rests_on() -> None:
    unknown = TrafficPace(4000, 4000, 0.01, measured=False)

    steps = ramp.plan_ramp(POLICY, unknown)
    ramp.simulate_crossings.cache_clear()

    assert ramp.plan_ramp(POLICY, unknown) == steps
    assert "not measured yet" in explain.ramp_summary(unknown, steps)
    assert explain.ramp_options(steps, may_mirror=True) == ()


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.4, "1 s"),
        (90, "1.5 min"),
        (7200, "2 h"),
        (9000, "2.5 h"),
        (864_000, "10 days"),
    ],
)
def test_a_forecast_has_two_figures(seconds: float, said: str) -> None:
    assert formatting.format_estimate(seconds) == said


@pytest.mark.parametrize(
    ("per_hour", "said"),
    [
        (17_940.0, "17,940"),
        (1_234_567.0, "1,234,567"),
        (8.333, "8.33"),
        (250.4, "250"),
    ],
)
def test_traffic_is_written_as_people_write_it(per_hour: float, said: str) -> None:
    busy = TrafficPace(per_hour, per_hour, 0.01, measured=True)
    words = explain.ramp_summary(busy, ramp.plan_ramp(POLICY, busy))
    assert f"from {said} new callers an hour ({said} requests an hour)" in words


@pytest.mark.parametrize(
    ("quiet", "said"),
    [
        (
            TrafficPace(5 / 24, 2.0, 0.01, measured=True),
            "at 25 % about 1.2 of them meet",
        ),
        (
            TrafficPace(2.0, 2.0, 0.01, measured=False),
            "are the same each day, 0.0001 % of",
        ),
        (
            TrafficPace(90.0, 90.0, 0.01, measured=False),
            "a day, one step takes 600 days or",
        ),
        (TrafficPace(90.0, 90.0, 0.01, measured=True), ""),
    ],
)
def test_a_plan_says_what_few_callers_can_show(quiet: TrafficPace, said: str) -> None:
    told = duration_estimate.describe_few_callers(POLICY, quiet)
    assert said in told
    assert bool(told) == bool(said)
    few = quiet.units_per_hour < 50 / 24
    assert ("5 callers in the canary, all of whose" in told) == few


MONDAY = datetime(2026, 11, 16, tzinfo=UTC)
DAYTIME = PeakHours(8, 18)
HOUR = 3_600.0


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
    peak: PeakHours,
    began: float,
    ended: float,
    hours: float,
) -> None:
    assert peak_seconds(peak, at(began), at(ended)) == hours * HOUR


@given(
    st.integers(0, 23),
    st.integers(0, 24),
    st.floats(0, 72),
    st.floats(0, 72),
)
def test_a_window_and_the_rest_of_the_day_make_the_whole_time(
    start: int,
    end: int,
    began: float,
    length: float,
) -> None:
    whole = peak_seconds(PeakHours(0, 24), at(began), at(began + length))
    inside = peak_seconds(PeakHours(start, end), at(began), at(began + length))
    outside = peak_seconds(PeakHours(end % 24, start), at(began), at(began + length))
    assert whole == pytest.approx(length * HOUR, abs=1e-3)
    if start == end % 24:
        assert inside == whole
    else:
        assert inside + outside == pytest.approx(whole, abs=1e-3)


@given(
    st.integers(0, 24),
    st.integers(0, 24),
    st.floats(0, 72),
    st.floats(1, 1e7),
)
def test_a_peak_is_reached_at_the_first_moment_at_which_it_lasted_that_long(
    start: int,
    end: int,
    began: float,
    wanted_s: float,
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
