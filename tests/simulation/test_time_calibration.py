"""How seldom a candidate is rolled back that only fails in other minutes than the incumbent,
and how soon harm is found all the same (statistics.md §2.20). Seeded.
"""

import math
from typing import Final

import numpy as np
import pytest

from harness.gate.arrays import Floats
from harness.gate.online.evidence_paths import counts_path
from harness.gate.online.guardrails import ExposureRule, Guardrail
from harness.gate.online.outcome import Reading
from harness.gate.online.worker_guard import abort_log_e
from router.observers.canary_guard import RolloutGuard
from tests.simulation.test_canary_calibration import upto
from tests.support.canary.uneven_errors import (
    BURSTS,
    RATE,
    SIZE,
    STEADY,
    blocks_to_rollback,
    burst_of_candidate,
    equal_beside_bursts,
    evenly,
    first_over,
    harm_after_incident,
    in_bursts,
    simulate,
)
from tests.support.sampling import later

pytestmark = pytest.mark.req("F3")
GUARD_ALPHA: Final = 0.01


@pytest.mark.parametrize(
    ("share", "height", "rollouts"),
    [
        (0.05, 1.0, 40),
        (0.25, 0.3, 40),
        *(later(share, height, 200) for share in (0.01, 0.05, 0.25) for height in (0.3, 1.0)),
    ],
)
def test_an_equal_candidate_stays_although_the_incumbent_fails_in_bursts(
    share: float,
    height: float,
    rollouts: int,
) -> None:
    alone, both = (
        sum(
            math.isfinite(equal_beside_bursts(share, height, usual_rate, [151, n]))
            for n in range(rollouts)
        )
        for usual_rate in (0.0, BURSTS)
    )

    assert both <= upto(0.05, rollouts)
    if height == 1.0:
        # Without a usual rate, the comparison at the same time rolls it back.
        assert alone >= 0.9 * rollouts


@pytest.mark.parametrize(
    ("share", "rollouts"),
    [(0.25, 40), *(later(share, 200) for share in (0.01, 0.05, 0.25))],
)
def test_an_incident_of_both_arms_is_no_evidence_against_the_usual_rate(
    share: float, rollouts: int
) -> None:
    """It would leave only the comparison with an incumbent that then fails in bursts."""
    rolled_back = sum(
        math.isfinite(equal_beside_bursts(share, 1.0, BURSTS, [181, n], incident=3))
        for n in range(rollouts)
    )

    assert rolled_back <= upto(0.05, rollouts)


@pytest.mark.parametrize("rollouts", [40, later(400)])
def test_a_burst_of_the_candidate_alone_is_found(rollouts: int) -> None:
    """It fails for 35 s, in which 5 % of 230 callers a minute are its own."""
    found = [burst_of_candidate(0.05, [157, n]) for n in range(rollouts)]
    assert sum(map(math.isfinite, found)) >= 0.60 * rollouts


@pytest.mark.parametrize(
    ("rate", "most", "times", "rollouts"),
    [
        (0.05, 400, 1.2, 60),
        (0.20, 60, 1.1, 60),
        later(0.02, 6000, 1.3, 200),
        later(0.05, 400, 1.12, 400),
        later(0.20, 60, 1.1, 400),
    ],
)
def test_even_harm_is_found_about_as_soon_as_by_the_comparison_at_the_same_time(
    rate: float,
    most: int,
    times: float,
    rollouts: int,
) -> None:
    alone = []
    both = []
    for n in range(rollouts):
        rng = np.random.default_rng([163, n])
        tallies = simulate(0.01, evenly(rate)(rng, most), evenly(RATE)(rng, most), rng)
        alone.append(first_over(counts_path(tallies)))
        both.append(blocks_to_rollback(tallies, 0.01, STEADY))

    ratio = np.quantile(both, 0.5, method="higher") / np.quantile(alone, 0.5, method="higher")
    assert ratio <= times


@pytest.mark.parametrize(
    ("share", "incident", "rollouts"),
    [
        (0.05, 12, 25),
        *(later(share, incident, 100) for share in (0.01, 0.05) for incident in (3, 12)),
    ],
)
def test_an_incident_of_the_incumbent_does_not_hide_later_harm(
    share: float,
    incident: int,
    rollouts: int,
) -> None:
    """The median rollout ends at most 150 exposures after the incident.

    Args:
        incident: blocks in which both arms fail, before the candidate fails 5 %.
    """
    later_harm = [harm_after_incident(share, incident, [167, n]) for n in range(rollouts)]

    assert np.quantile(later_harm, 0.5, method="higher") <= 150


def guard_stops(
    share: float,
    canary: Floats,
    control: Floats,
    rng: np.random.Generator,
    usual_rate: float,
    after: int = 0,
) -> float:
    """Counts the canary's units until a worker's guard stops it; inf for never.

    Args:
        canary: the failure rate of each caller in this arm.
        control: the failure rate of each caller in this arm.
        after: callers before the first unit that counts.
    """
    limit = abort_log_e(GUARD_ALPHA, workers=1, turn=0)
    guard = RolloutGuard(
        "r",
        ExposureRule(usual_rates={Guardrail.ERRORS: usual_rate} if usual_rate else {}),
        limit,
        longest_s=120.0,
    )
    number = len(canary)
    arms = (rng.random(number) < share).tolist()
    failed = (rng.random(number) < np.where(arms, canary, control)).tolist()
    for place, (arm, fails) in enumerate(zip(arms, failed, strict=True)):
        exposure = guard.begin(str(place), canary=arm, share=share, now_s=0.0)
        assert exposure is not None
        caller, _ = exposure
        caller.first = Reading.BAD if fails else Reading.GOOD
        if guard.read(0.0):
            return float(sum(arms[after : place + 1]))
    return math.inf


@pytest.mark.parametrize(
    ("share", "rollouts"),
    [(0.25, 6), *(later(share, 200) for share in (0.01, 0.05, 0.25))],
)
def test_the_guard_does_not_stop_an_equal_candidate_beside_bursts_of_the_incumbent(
    share: float, rollouts: int
) -> None:
    callers = 10_000
    stopped = 0
    for n in range(rollouts):
        rng = np.random.default_rng([173, n])
        control = np.repeat(in_bursts(1.0)(rng, callers // SIZE), SIZE)
        found = guard_stops(share, np.full(callers, RATE), control, rng, BURSTS)
        stopped += math.isfinite(found)

    assert stopped <= upto(GUARD_ALPHA, rollouts)


def test_an_incident_of_both_arms_does_not_make_the_guard_stop_an_equal_candidate() -> None:
    """300 callers, of whom 95 % fail; then the incumbent fails in bursts."""
    stopped = 0
    for n in range(6):
        rng = np.random.default_rng([191, n])
        during = np.full(300, 0.95)
        control = np.concatenate([during, np.repeat(in_bursts(1.0)(rng, 100), SIZE)])
        canary = np.concatenate([during, np.full(10_000, RATE)])
        stopped += math.isfinite(guard_stops(0.25, canary, control, rng, BURSTS))

    assert stopped == 0


@pytest.mark.parametrize("incident", [0, 2_000])
def test_the_guard_stops_a_candidate_that_always_fails_also_after_an_incident(
    incident: int,
) -> None:
    """The median guard stops after at most 16 of the canary's callers.

    Args:
        incident: callers of both arms at first, of whom 95 % fail.
    """
    needed = []
    for n in range(20):
        rng = np.random.default_rng([179, n])
        begin = np.full(incident, 0.95)
        canary = np.concatenate([begin, np.ones(1_000)])
        control = np.concatenate([begin, np.full(1_000, RATE)])
        needed.append(guard_stops(0.25, canary, control, rng, STEADY, after=incident))

    assert np.quantile(needed, 0.5, method="higher") <= 16
