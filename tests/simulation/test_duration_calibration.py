"""How often is the estimate of a canary's time right within a factor of 1.5? Seeded.

`benchmarks.canary.durations` has 200 canaries, with days, nights and more kinds of routes.
"""

from dataclasses import replace
from typing import Final

import pytest

from harness.gate.policy import CanaryPolicy, CanaryStep
from tests.support.canary.timed_canaries import DAY_S, RouteScene, judge_estimates
from tests.support.sampling import later

pytestmark = pytest.mark.req("F3")

SMALL: Final = CanaryPolicy(
    p0=0.05,
    window_s=60.0,
    steps=(CanaryStep(1000, 20), CanaryStep(2500, 60, certify=True)),
)
# A canary in the morning, whose pace doubles within the hours that it takes.
MORNING: Final = RouteScene(
    SMALL,
    10_000,
    8_000,
    turns=1.5,
    night=0.05,
    start_h=5.0,
    history_s=1.2 * DAY_S,
    total_timeout_s=20.0,
    failure_rate=0.0005,
    tick_s=60.0,
)
SCENES: Final = {
    "morning": MORNING,
    # Half of the requests come from callers who counted already.
    "callers return": replace(MORNING, callers=1_000, night=1.0, visits_per_day=12_000),
    # The canary is over before its warm-up of 10 minutes.
    "busy": replace(
        MORNING,
        visits_per_day=0.8 * DAY_S,
        callers=200_000,
        night=1.0,
        history_s=900.0,
        tick_s=5.0,
    ),
}


# By scene; a busy canary has the fewest blocks, so it takes the least time here.
FEW: Final = {"morning": 5, "callers return": 5, "busy": 14}


@pytest.mark.parametrize(
    ("canaries", "right_looks"), [(FEW, 0.9), later(dict.fromkeys(SCENES, 60), 0.8)]
)
def test_estimates_before_and_in_a_canary_are_right_within_a_factor_of_one_and_a_half(
    canaries: dict[str, int], right_looks: float
) -> None:
    """Nine of ten plans are right, and eight of ten looks during a step: these are the hardest
    kinds of routes. With 60 canaries each, 306 of 360 looks are right.
    """
    found = [
        judge_estimates(SCENES[scene], number, seed=5) for scene, number in canaries.items()
    ]
    plans = [right for errors in found for right in errors.plans]
    looks = [right for errors in found for right in errors.looks]

    assert sum(plans) >= 0.9 * len(plans)
    assert sum(looks) >= right_looks * len(looks)
