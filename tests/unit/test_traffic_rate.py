from datetime import UTC, datetime, timedelta

import pytest

from harness.canary import duration_estimate
from harness.canary.duration_estimate import MeasuredTraffic
from harness.frame.errors import InputError
from harness.gate import explain
from harness.gate.caller_forecast import TrafficPart
from harness.gate.online.observation import ObservationBlock
from harness.gate.policy import CanaryPolicy
from harness.gate.ramp import EstimateState, plan_ramp

NOW = datetime(2026, 11, 20, 22, 0, tzinfo=UTC)
POLICY = CanaryPolicy()


def recorded(requests: int, lasting: timedelta, callers: int = 0) -> list[TrafficPart]:
    """Returns the parts of ten minutes in which so many requests came, evenly."""
    number = max(1, round(lasting / timedelta(minutes=10)))
    begins = [NOW - lasting + n * lasting / number for n in range(number)]
    shares = [requests * (n + 1) // number - requests * n // number for n in range(number)]
    counts = [callers * (n + 1) // number - callers * n // number for n in range(number)]
    return [
        TrafficPart("w", began, *both)
        for began, *both in zip(begins, shares, counts, strict=True)
    ]


def measure(
    parts: list[TrafficPart],
    exposures: float | None = None,
    rate: tuple[float, bool] = (0.01, False),
) -> MeasuredTraffic:
    traffic = duration_estimate.measure_traffic(parts, exposures, rate, NOW)
    assert traffic is not None
    return traffic


@pytest.mark.parametrize(
    ("requests", "lasting_s", "per_hour"),
    [
        (20, 2, 1_200),
        (540, 60, 32_400),
        (43_200, 3_600, 43_200),
        (14_400, 86_400, 600),
    ],
)
def test_the_pace_is_that_of_the_last_hour_and_of_a_minute_at_least(
    requests: int,
    lasting_s: int,
    per_hour: float,
) -> None:
    found = measure(recorded(requests, timedelta(seconds=lasting_s)))
    assert found.pace.requests_per_hour == pytest.approx(per_hour)
    assert found.forecast.requests_until(3_600.0) == pytest.approx(per_hour)


def test_without_a_request_in_the_last_hour_there_is_no_pace() -> None:
    earlier = [TrafficPart("w", NOW - timedelta(hours=2), 5_000, 900)]
    rate = (0.01, False)
    assert duration_estimate.measure_traffic([], None, rate, NOW) is None
    assert duration_estimate.measure_traffic(earlier, None, rate, NOW) is None


def test_a_failure_rate_of_too_few_requests_is_called_assumed() -> None:
    found = measure(recorded(20, timedelta(minutes=1))).pace
    words = explain.ramp_summary(found, plan_ramp(POLICY, found))
    assert "a failure rate of 1 % is assumed (the policy's `p0`)" in words
    assert "fail today" not in words


def test_a_failure_rate_of_enough_requests_is_called_measured() -> None:
    found = measure(recorded(1_000, timedelta(minutes=5)), rate=(0.02, True)).pace
    assert "2 % of requests fail today" in explain.ramp_summary(found, plan_ramp(POLICY, found))


@pytest.mark.parametrize(
    ("blocks", "lasting_s", "per_hour"),
    [
        (0, 0, None),
        (3, 599, None),
        (3, 600, 1_800.0),
        (3, 7_200, 150.0),
    ],
)
def test_new_keys_an_hour_are_told_by_blocks_that_span_ten_minutes_at_least(
    blocks: int,
    lasting_s: int,
    per_hour: float | None,
) -> None:
    ends = NOW + timedelta(seconds=lasting_s)
    observed = [
        ObservationBlock("r", "w", n, 100, 100, 1, 0, 0, 0, NOW, ends) for n in range(blocks)
    ]
    assert duration_estimate.measure_exposures_per_hour(observed) == per_hour


@pytest.mark.parametrize(
    ("exposures", "per_hour", "measured"),
    [
        (None, 1_200.0, False),
        (40.0, 40.0, True),
        (9_000.0, 1_200.0, True),
    ],
)
def test_an_earlier_canary_gives_the_pace_of_callers_where_no_router_counts_them(
    exposures: float | None,
    per_hour: float,
    *,
    measured: bool,
) -> None:
    found = measure(recorded(100, timedelta(minutes=5)), exposures).pace

    assert found.units_per_hour == pytest.approx(per_hour)
    assert found.measured is measured


def test_the_callers_that_the_routers_counted_give_the_pace_of_callers() -> None:
    found = measure(recorded(9_000, timedelta(hours=22), 2_000))

    assert found.pace.measured
    assert found.callers_per_day == pytest.approx(2_000 * 24 / 22, rel=0.1)


@pytest.mark.parametrize(("requests", "in_time"), [(10**7, True), (1, False), (0, False)])
def test_a_ramp_is_in_time_if_each_step_is(requests: int, *, in_time: bool) -> None:
    pace = measure(recorded(requests, timedelta(hours=1))).pace if requests else None
    steps = plan_ramp(POLICY, pace) if pace else ()

    plan = duration_estimate.RampPlan("support", POLICY, pace, tuple(steps), (), "")

    assert plan.in_time is in_time
    states = {10**7: EstimateState.KNOWN, 1: EstimateState.NOT_IN_TIME}
    assert plan.state is states.get(requests, EstimateState.NO_TRAFFIC)


def test_expected_traffic_gives_a_plan_before_any_request() -> None:
    expected = duration_estimate.expect_traffic(2_000.0, 9_000.0)
    assert expected is not None
    found = duration_estimate.assume_traffic(expected, [], POLICY, NOW)

    assert found.callers_per_day == pytest.approx(2_000.0)
    assert found.pace.requests_per_hour == 375.0
    assert duration_estimate.expect_traffic(None, None) is None
    with pytest.raises(InputError, match="set --callers-per-day, too"):
        duration_estimate.expect_traffic(None, 9_000.0)
    with pytest.raises(InputError, match="at least one request"):
        duration_estimate.expect_traffic(2_000.0, 900.0)


def test_callers_of_a_minute_are_a_rate_per_day() -> None:
    said = duration_estimate.describe_short_period(10, 60.0)
    assert said.startswith("At most 10 callers came in 1 min, or 14,000 a day")
