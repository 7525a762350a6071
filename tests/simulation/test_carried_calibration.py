"""Does evidence that is carried over days find harm on a small route, and does it err as seldom
as it says when callers come back, to two routers that start again (statistics.md §2.12)?
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
import pytest

from harness.gate.online.guardrails import Guardrails
from harness.gate.online.observation import (
    KeyClaim,
    KeyHistory,
    NeverSeen,
    ObservationBlock,
    claim_keys,
    page_of,
)
from harness.gate.online.rollout_evidence import collect_evidence
from harness.gate.policy import CanaryPolicy
from tests.simulation.test_canary_calibration import upto
from tests.support.sampling import later

START: Final = datetime(2026, 3, 1, tzinfo=UTC)
BLOCK: Final = 100
# As a policy has it by default.
CARRIED: Final = CanaryPolicy()

Flags = np.ndarray


@dataclass(frozen=True)
class DailyTraffic:
    """Callers of a route: some come every day, others on one day alone."""

    regulars: int
    newcomers: int  # of each day
    days: int
    share: float  # of the canary
    candidate: float  # failure rate
    rate: float = 0.01  # the same, with the incumbent
    sticky: float = 0.0  # share of the callers whose requests always fail, with either
    counts: int = 1  # how often a caller is met in a day: by routers, and after restarts
    restarted: int = 0  # of the days: those on which he is met once more


# 20 exposures a day at 1 %, all of callers who were never there before.
SMALL: Final = DailyTraffic(0, 2000, 14, 0.01, 0.05)
# Half of the callers come every day, to two routers that start again on three of 30 days.
BUSY: Final = DailyTraffic(
    100,
    100,
    30,
    0.5,
    0.005,
    0.005,
    0.02,
    counts=2,
    restarted=3,
)


def simulate_days(traffic: DailyTraffic, seed: Sequence[int]) -> Iterator[ObservationBlock]:
    """The blocks of a rollout, day by day; routers ask the ledger who was counted before."""
    rng = np.random.default_rng(seed)
    keys = traffic.regulars + traffic.newcomers * traffic.days
    canary = rng.random(keys) < traffic.share
    always = rng.random(keys) < traffic.sticky
    fails = np.where(always, 1.0, np.where(canary, traffic.candidate, traffic.rate))
    pages: dict[int, bytes] = {}
    number = 0
    for day in range(1, traffic.days + 1):
        met = _met(traffic, day, rng)
        for begin in range(0, len(met), BLOCK):
            units = met[begin : begin + BLOCK]
            failed = rng.random(len(units)) < fails[units]
            # Of 16 keys each: fewer than of fingerprints, and so the quicker.
            prints = [int(key) // 16 << 32 | int(key) for key in units]
            known = {page: pages[page] for page in set(map(page_of, prints)) & pages.keys()}
            changed, found = claim_keys(known, KeyClaim("r", day, prints))
            pages |= changed
            history = np.array(found)
            counted = history != KeyHistory.COUNTED
            if not counted.any():
                continue
            number += 1
            new = history == KeyHistory.NEVER_SEEN
            all_counted = _tally(counted, canary[units], failed)
            of_new = _tally(new, canary[units], failed)
            at = START + timedelta(days=day - 1)
            yield ObservationBlock(
                "r",
                "w",
                number,
                round(traffic.share * 10_000),
                *all_counted,
                0,
                at,
                at,
                number,
                period=day,
                never_seen=NeverSeen(*of_new),
            )


def _met(
    traffic: DailyTraffic,
    day: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Who is met on a day, in order; whose count is the first is chance."""
    first = traffic.regulars + (day - 1) * traffic.newcomers
    here = [
        *range(traffic.regulars),
        *range(first, first + traffic.newcomers),
    ]
    # The restarts are spread over the days.
    every = traffic.days // traffic.restarted if traffic.restarted else traffic.days + 1
    counts = traffic.counts * (2 if day % every == 0 else 1)
    return np.concatenate([rng.permutation(here) for _ in range(counts)])


def _tally(
    chosen: Flags,
    canary: Flags,
    failed: Flags,
) -> tuple[int, int, int, int]:
    parts = (
        chosen,
        chosen & canary,
        chosen & failed,
        chosen & failed & canary,
    )
    units, in_canary, failures, canary_failures = (int(part.sum()) for part in parts)
    return units, in_canary, failures, canary_failures


pytestmark = pytest.mark.req("F3")
# All of alpha for the errors: the most that they can err.
ERRORS_ALONE = replace(CARRIED, guardrails=Guardrails.none())


def rolled_back(
    traffic: DailyTraffic,
    policy: CanaryPolicy,
    rollouts: int,
) -> int:
    return sum(
        collect_evidence(list(simulate_days(traffic, [47, n])), policy).block is not None
        for n in range(rollouts)
    )


@pytest.mark.parametrize("rollouts", [10, later(300)])
def test_harm_on_a_small_route_is_found_within_two_weeks_in_nine_of_ten_cases(
    rollouts: int,
) -> None:
    assert rolled_back(SMALL, CARRIED, rollouts) >= rollouts - upto(0.1, rollouts)


def test_callers_who_come_back_to_many_routers_roll_nothing_back() -> None:
    """Counted each time, a third of these canaries would fall."""
    traffic = replace(
        BUSY,
        days=3,
        counts=20,
        restarted=1,
    )
    assert rolled_back(traffic, ERRORS_ALONE, 25) <= upto(0.04, 25)


@pytest.mark.parametrize("share", [later(0.25), 0.5])
@pytest.mark.parametrize(
    ("regulars", "newcomers"),
    [
        (5, 0),
        (20, 0),
        (10, 10),
        (0, 49),
    ],
)
def test_a_larger_share_or_more_time_for_few_callers_blames_no_healthy_candidate(
    regulars: int,
    newcomers: int,
    share: float,
) -> None:
    traffic = DailyTraffic(regulars, newcomers, 28, share, 0.05, 0.05, sticky=0.1)
    assert rolled_back(traffic, ERRORS_ALONE, 20) <= upto(0.04, 20)


@pytest.mark.verify
@pytest.mark.parametrize("share", [0.01, 0.5])
@pytest.mark.parametrize("sticky", [0.02, 0.1])
@pytest.mark.parametrize("regulars", [0, 100, 190])
def test_thirty_days_keep_their_alpha_however_many_callers_come_back(
    regulars: int,
    sticky: float,
    share: float,
) -> None:
    who = {"regulars": regulars, "newcomers": 200 - regulars}
    traffic = replace(
        BUSY,
        sticky=sticky,
        share=share,
        **who,
    )
    assert rolled_back(traffic, ERRORS_ALONE, 200) <= upto(0.04, 200)
