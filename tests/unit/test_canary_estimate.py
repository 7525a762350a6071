"""The estimate of a canary's time: callers who return, the hours of a day, and its states."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.canary.canary_state import describe_canary_state
from harness.gate.caller_forecast import (
    DAY_S,
    HOUR_S,
    PART,
    CallerCurve,
    TrafficForecast,
    TrafficPart,
    count_since,
    find_time,
    fit_curve,
    forecast_hours,
    measure_pace,
)
from harness.gate.explain import EstimateBasis, RolloutExplanation, explain_rollout
from harness.gate.online.observation import ObservationBlock
from harness.gate.online.rollout import Rollout, RolloutState
from harness.gate.online.rollout_action import decide_action
from harness.gate.policy import CanaryPolicy, CanaryStep
from harness.gate.ramp import (
    CanaryModel,
    EstimateState,
    TrafficPace,
    estimate_canary,
    forecast_pace,
    plan_ramp,
)
from tests.support.canary.left_out_traffic import (
    START,
    ArmTruth,
    LeftOutScene,
    simulate_left_out,
)

pytestmark = pytest.mark.req("F3")
NOON: Final = datetime(2026, 11, 16, 12, tzinfo=UTC)
# Both arms answer all requests; one block closes each second, with 20 canary callers.
BLOCKS: Final = simulate_left_out(
    LeftOutScene(ArmTruth()), blocks=4, rng=np.random.default_rng(3)
)
POLICY: Final = CanaryPolicy(steps=(CanaryStep(2_500, 200), CanaryStep(5_000, 400)))
ROLLOUT: Final = Rollout(
    id="r",
    proposal="p",
    route="chat",
    incumbent="a",
    candidate="b",
    verdict="v",
    policy=POLICY,
    salt="s",
    step=0,
    state=RolloutState.WAITING,
    started_at=START,
    step_started_at=START,
    updated_at=START,
)
# 100 requests a second, each of a new caller, since half an hour before the canary.
BUSY: Final = [
    *(TrafficPart("w", START - timedelta(minutes=n), 60_000, 60_000) for n in (30, 20, 10)),
    TrafficPart("w", START, 400, 400),
]


def explain(
    rollout: Rollout = ROLLOUT,
    blocks: Sequence[ObservationBlock] = BLOCKS,
    parts: Sequence[TrafficPart] = BUSY,
    *,
    held: bool = False,
) -> RolloutExplanation:
    now = START + timedelta(seconds=4)
    action = decide_action(rollout, blocks, now)
    return explain_rollout(rollout, action, blocks, now, EstimateBasis(parts, held=held))


@given(st.floats(1.0, 1e6), st.floats(1.0, 50.0), st.floats(0.0, 1e6), st.floats(0.0, 1e5))
def test_more_requests_have_more_callers_but_never_more_than_visits_or_the_pool(
    pool: float, turns: float, requests: float, more: float
) -> None:
    curve = CallerCurve(pool, turns)
    callers = curve.count(requests)
    assert callers <= curve.count(requests + more) <= pool
    assert callers <= requests / turns


def test_the_counts_of_all_processes_fit_the_callers_and_their_visits() -> None:
    truth = CallerCurve(pool=1_000.0, turns=3.0)
    parts = []
    for worker in ("w-0", "w-1"):
        counts = [round(truth.count(300.0 * n)) for n in range(40)]
        parts += [
            TrafficPart(worker, NOON + timedelta(minutes=10 * n), 300, after - before)
            for n, (before, after) in enumerate(itertools.pairwise(counts))
        ]
    found = fit_curve(parts)

    assert found is not None
    for requests in (300.0, 3_000.0, 20_000.0):
        assert found.count(requests) == pytest.approx(truth.count(requests), rel=0.08)
    assert fit_curve([TrafficPart("w", NOON, 300, 0)]) is None


def test_hours_keep_the_shape_of_the_day_before_at_the_level_of_the_last_hour() -> None:
    begin = NOON - timedelta(hours=25)
    by_hour = [100 if (begin.hour + n) % 24 >= 8 else 10 for n in range(24)]
    parts = [
        TrafficPart("w", begin + timedelta(hours=n), requests, 0)
        for n, requests in enumerate([*by_hour, 200])
    ]
    pace = measure_pace(parts, NOON)
    assert pace == 200.0
    hourly = forecast_hours(parts, pace, NOON)

    assert hourly[15] == pytest.approx(200.0, rel=0.1)
    assert hourly[3] == pytest.approx(20.0, rel=0.1)
    # A young route has only its pace.
    assert forecast_hours(parts[-1:], pace, NOON) == (200.0,) * 24
    assert measure_pace(parts, NOON + timedelta(hours=2)) is None
    # So has a route that hardly had a request before the last hour.
    idle = [replace(parts[0], requests=1), *parts[-1:]]
    assert forecast_hours(idle, pace, NOON) == (200.0,) * 24


def test_requests_since_a_moment_have_a_share_of_the_part_around_it() -> None:
    late = TrafficPart("w", NOON - timedelta(minutes=3), 900, 0)
    parts = [late, TrafficPart("w", NOON, 500, 0)]

    assert count_since(parts, NOON, NOON + timedelta(seconds=12)) == 500.0
    assert count_since(parts, NOON - timedelta(minutes=1), NOON + PART) == 300.0 + 500.0
    assert count_since(parts, NOON + timedelta(minutes=5), NOON + PART) == 250.0


def test_a_caller_counts_once_a_day_so_a_pool_of_callers_slows_a_step_down() -> None:
    curve = CallerCurve(pool=400.0)
    forecast = TrafficForecast(NOON, (100.0,) * 24, curve, began=NOON)
    first_day = forecast.callers_until(DAY_S)

    assert first_day == pytest.approx(curve.count(2_400.0))
    assert forecast.callers_until(2.0 * DAY_S) == pytest.approx(2.0 * first_day)
    assert forecast.callers_until(HOUR_S) > 0.15 * first_day
    # New callers over both days are fewer than the callers of each day.
    assert forecast.new_callers_until(2.0 * DAY_S) == pytest.approx(curve.count(4_800.0))


@given(st.floats(0.0, 1e6), st.floats(0.0, 1e6))
def test_the_found_time_is_the_first_at_which_the_condition_holds(
    wanted_s: float, most_s: float
) -> None:
    found = find_time(lambda at_s: at_s >= wanted_s, 0.0, most_s)
    expected = wanted_s if wanted_s <= most_s else float("inf")
    assert found == pytest.approx(expected, abs=1e-2)


def test_the_plan_and_the_estimate_of_a_canary_that_has_not_begun_are_the_same() -> None:
    pace = TrafficPace(4_000.0, 12_000.0, 0.003, measured=True)
    policy = CanaryPolicy()
    model = CanaryModel(policy, forecast_pace(pace), pace.failure_rate, 720.0)

    planned = [step.typical_s for step in plan_ramp(policy, pace, 720.0)]
    estimated = [step.ends_s - step.begins_s for step in estimate_canary(model)]

    assert planned == pytest.approx(estimated)


def test_a_step_that_takes_seconds_does_not_wait_for_its_warm_up() -> None:
    found = explain()

    assert POLICY.warm_up_s == 600.0
    assert found.estimate is EstimateState.KNOWN
    # The step lacks about 100 canary callers, and 25 come in a second.
    assert found.eta_s == pytest.approx(4.0, rel=0.2)
    assert found.promotion_eta_s == pytest.approx(4.0 + 8.0, rel=0.2)
    assert "and to the promotion in about" in found.eta
    assert "warm-up" not in [need.what for need in found.needs]


def test_a_hold_and_a_pause_show_no_time() -> None:
    held = explain(held=True)
    paused = explain(replace(ROLLOUT, state=RolloutState.PAUSED))

    assert (held.estimate, paused.estimate) == (EstimateState.HELD, EstimateState.PAUSED)
    for found in (held, paused):
        assert (found.eta_s, found.promotion_eta_s) == (None, None)
        assert all(need.done or need.eta_s is None for need in found.needs)
        assert "about" not in found.eta
    action = decide_action(ROLLOUT, BLOCKS, START)
    state = describe_canary_state(ROLLOUT, ["the gateway is away"], action, held)
    assert "about" not in state.next_step


def test_without_a_request_in_the_last_hour_the_time_is_unknown() -> None:
    earlier = [replace(part, began=part.began - timedelta(hours=2)) for part in BUSY]
    found = explain(parts=earlier)

    assert found.estimate is EstimateState.NO_TRAFFIC
    assert (found.eta_s, found.units_per_hour) == (None, None)
    assert "too few requests in the last hour" in found.eta


def test_a_step_that_will_miss_its_deadline_says_that_instead_of_a_time() -> None:
    step = replace(POLICY.steps[0], deadline_s=5.0)
    late = replace(ROLLOUT, policy=replace(POLICY, steps=(step, POLICY.steps[1])))
    found = explain(late)

    assert found.estimate is EstimateState.NOT_IN_TIME
    assert found.eta_s is None
    assert found.eta == "later than its deadline at this traffic; it would then pause"
