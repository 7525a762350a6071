from datetime import UTC, datetime, timedelta

import pytest

from harness.canary import duration_estimate
from harness.gate import explain
from harness.gate.online.observation import ObservationBlock, TrafficTotal
from harness.gate.policy import CanaryPolicy
from harness.gate.ramp import TrafficPace, plan_ramp
from harness.routing.reports.monthly_bill import measure_bill

NOW = datetime(2026, 11, 20, 22, 0, tzinfo=UTC)
POLICY = CanaryPolicy()


def recorded(
    requests: int,
    lasting: timedelta,
    charged: int = 0,
) -> list[TrafficTotal]:
    first = NOW - lasting
    return [
        TrafficTotal(
            "support",
            "incumbent",
            "t",
            first,
            NOW,
            requests,
            0,
            charged,
            0,
            10,
            0,
            10,
            0.1,
            0,
        )
    ]


def pace(totals: list[TrafficTotal]) -> TrafficPace:
    traffic_pace = duration_estimate.compute_pace(totals, None, POLICY, NOW)
    assert traffic_pace is not None
    return traffic_pace


@pytest.mark.parametrize(
    ("requests", "lasting_s", "per_hour"),
    [
        (20, 2, 1_200),
        (540, 60, 32_400),
        (43_200, 3_600, 43_200),
        (12, 86_400, 0.5),
    ],
)
def test_the_pace_is_reckoned_over_what_the_records_cover_and_a_minute_at_least(
    requests: int,
    lasting_s: int,
    per_hour: float,
) -> None:
    traffic_pace = pace(recorded(requests, timedelta(seconds=lasting_s)))
    assert traffic_pace.requests_per_hour == pytest.approx(per_hour)


@pytest.mark.parametrize("lasting_s", [0, 2, 75, 4_000])
def test_the_plan_and_the_monthly_bill_know_the_same_pace(lasting_s: int) -> None:
    totals = recorded(300, timedelta(seconds=lasting_s))
    a_month = measure_bill(totals, "t", None, NOW).requests_per_month
    assert pace(totals).requests_per_hour * 720 == pytest.approx(a_month)


def test_a_failure_rate_that_nobody_measured_is_called_assumed() -> None:
    found = pace(recorded(20, timedelta(minutes=1)))
    words = explain.ramp_summary(found, plan_ramp(POLICY, found))
    assert "a failure rate of 1 % is assumed (the policy's `p0`)" in words
    assert "fail today" not in words


def test_a_failure_rate_of_enough_requests_is_told_as_measured() -> None:
    found = pace(recorded(1_000, timedelta(minutes=5), charged=20))
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
    ("counted", "per_hour", "measured"),
    [
        (None, 1_200.0, False),
        (40.0, 40.0, True),
        (9_000.0, 1_200.0, True),
    ],
)
def test_a_pace_of_keys_is_measured_where_they_were_counted_and_is_never_above_that_of_requests(
    counted: float | None,
    per_hour: float,
    *,
    measured: bool,
) -> None:
    totals = recorded(100, timedelta(minutes=5))

    found = duration_estimate.compute_pace(totals, counted, CanaryPolicy(), NOW)

    assert found is not None
    assert (found.units_per_hour, found.measured) == (per_hour, measured)
    assert found.rate_measured


@pytest.mark.parametrize(
    ("requests", "in_time"),
    [
        (10**7, True),
        (1, False),
        (0, False),
    ],
)
def test_a_ramp_is_in_time_where_each_step_is(requests: int, *, in_time: bool) -> None:
    found = pace(recorded(requests, timedelta(hours=1))) if requests else None
    steps = plan_ramp(POLICY, found) if found else ()

    ramp = duration_estimate.RampPlan("support", POLICY, found, tuple(steps), (), "")

    assert ramp.in_time is in_time


def test_callers_of_a_minute_are_told_as_a_rate_per_day() -> None:
    said = duration_estimate.describe_short_period(10, 60.0)
    assert said.startswith("At most 10 callers came in 1 min, or 14,000 a day")


def test_without_a_request_there_is_no_pace() -> None:
    assert duration_estimate.compute_pace([], None, POLICY, NOW) is None
