"""The plan of a canary says which share of callers shows harm at later turns."""

from dataclasses import replace

import pytest

from harness.canary.later_turns import (
    REACHING_SHARES,
    count_callers_to_rollback,
    describe_later_turns,
    find_visible_share,
    window_rate,
)
from harness.gate.policy import CanaryPolicy, CanaryStep
from harness.gate.ramp import TrafficPace

pytestmark = pytest.mark.req("F3")

POLICY = CanaryPolicy()
# Callers send 3 requests each.
PACE = TrafficPace(4_000, 12_000, 0.01, measured=True)


def test_the_plan_says_which_share_of_callers_shows_harm_at_later_turns() -> None:
    words = describe_later_turns(POLICY, PACE, 720.0)

    assert words == (
        "The canary also counts later turns, for 10 min after a caller's first request, and "
        "each step waits 12 min for the last turns of its callers. It shows a candidate that "
        "always fails at a later turn if at least 2 % of the callers reach this turn: after "
        "about 3 canary callers if all reach it, after 27 if 20 % do."
    )


def test_a_canary_with_few_exposures_says_that_it_shows_no_harm_at_later_turns() -> None:
    short = replace(POLICY, steps=(CanaryStep(5_000, 1),), block_size=2)

    assert find_visible_share(short, 0.01) is None
    assert "too short to show a candidate" in describe_later_turns(short, PACE, 720.0)


def test_a_policy_without_windows_says_nothing_of_later_turns() -> None:
    assert not describe_later_turns(replace(POLICY, window_s=0.0), PACE, 0.0)


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.05])
def test_the_fewer_callers_reach_the_turn_the_more_callers_it_takes(rate: float) -> None:
    numbers = [count_callers_to_rollback(POLICY, share, rate) for share in REACHING_SHARES]
    known = [number for number in numbers if number is not None]

    assert known == sorted(known, reverse=True)
    assert numbers[-1] is not None
    # Visible shares are the largest ones.
    assert numbers[: len(numbers) - len(known)] == [None] * (len(numbers) - len(known))


@pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
def test_callers_who_reach_the_turn_are_few_times_those_of_harm_at_the_first(
    share: float,
) -> None:
    at_first = count_callers_to_rollback(POLICY, 1.0, 0.01)
    reached = count_callers_to_rollback(POLICY, share, window_rate(PACE))

    assert at_first is not None
    assert reached is not None
    assert reached * share <= 4 * at_first


def test_a_caller_with_more_requests_fails_more_often_in_a_window() -> None:
    assert window_rate(PACE) == pytest.approx(1.0 - 0.99**3)
    assert window_rate(replace(PACE, requests_per_hour=1e6)) == pytest.approx(1.0 - 0.99**8)
    # Before the first canary, no router has counted callers.
    assert window_rate(replace(PACE, measured=False)) == pytest.approx(0.01)
