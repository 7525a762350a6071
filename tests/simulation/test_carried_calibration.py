"""Does evidence that is carried over days find harm on a small route, and does it err as seldom
as it says when callers come back, to two routers that start again (statistics.md §2.12)?
"""

import math
from dataclasses import replace

import pytest

from harness.domain.canary.guardrails import Guardrails
from harness.domain.proposals.policy import CanaryPolicy
from tests.support.canary.canary_days import (
    BUSY,
    CARRIED,
    SMALL,
    DailyTraffic,
    exposures_to_rollback,
)

pytestmark = pytest.mark.req("F3")
# All of alpha for the errors: the most that they can err.
ERRORS_ALONE = replace(CARRIED, guardrails=Guardrails.none())


def rolled_back(traffic: DailyTraffic, policy: CanaryPolicy, rollouts: int) -> int:
    found = (exposures_to_rollback(traffic, policy, [47, n]) for n in range(rollouts))
    return sum(map(math.isfinite, found))


def upto(rate: float, trials: int) -> float:
    """A rate that is kept shows more than this once in a thousand."""
    return rate * trials + 3.1 * math.sqrt(rate * (1.0 - rate) * trials)


def test_harm_on_a_small_route_is_found_within_two_weeks() -> None:
    assert rolled_back(SMALL, CARRIED, 20) >= 20 - upto(0.1, 20)


def test_callers_who_come_back_to_two_routers_roll_nothing_back() -> None:
    traffic = replace(BUSY, days=10, restarted=1)
    assert rolled_back(traffic, ERRORS_ALONE, 25) <= upto(0.04, 25)


@pytest.mark.parametrize("share", [0.25, 0.5])
@pytest.mark.parametrize(("regulars", "newcomers"), [(5, 0), (20, 0), (10, 10), (0, 49)])
def test_a_larger_share_or_more_time_for_few_callers_blames_no_healthy_candidate(
    regulars: int, newcomers: int, share: float
) -> None:
    traffic = DailyTraffic(regulars, newcomers, 28, share, 0.05, 0.05, sticky=0.1)
    assert rolled_back(traffic, ERRORS_ALONE, 20) <= upto(0.04, 20)


@pytest.mark.verify
@pytest.mark.parametrize("share", [0.01, 0.5])
@pytest.mark.parametrize("sticky", [0.02, 0.1])
@pytest.mark.parametrize("regulars", [0, 100, 190])
def test_thirty_days_keep_their_alpha_however_many_callers_come_back(
    regulars: int, sticky: float, share: float
) -> None:
    who = {"regulars": regulars, "newcomers": 200 - regulars}
    traffic = replace(BUSY, sticky=sticky, share=share, **who)
    assert rolled_back(traffic, ERRORS_ALONE, 200) <= upto(0.04, 200)


@pytest.mark.verify
def test_harm_on_a_small_route_is_found_in_nine_of_ten_cases() -> None:
    assert rolled_back(SMALL, CARRIED, 300) >= 300 - upto(0.1, 300)
