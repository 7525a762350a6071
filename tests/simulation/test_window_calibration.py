"""How soon is a candidate rolled back that fails at later turns, and how seldom is a healthy
one (statistics.md §2.19)? Seeded.
"""

import math
from dataclasses import replace

import numpy as np
import pytest

from harness.gate.online.guardrails import ExposureRule, Guardrail
from harness.gate.online.rollout_evidence import collect_evidence
from harness.gate.policy import CanaryPolicy
from tests.simulation.test_canary_calibration import upto
from tests.support.canary.conversations import Conversations, exposures
from tests.support.canary.shared_ledgers import SharedLedgers
from tests.support.sampling import later

pytestmark = pytest.mark.req("F3")
# The candidate fails as often as the incumbent, in 1 % of all requests.
LOOP = Conversations(turns=40, pause_s=0.0)
HEALTHY = {
    "equal": LOOP,
    "half the time": replace(LOOP, times=0.5),
    "twice the time": replace(LOOP, times=2.0),
    "callers stop at the first failure": replace(LOOP, stops=True),
    "callers stop, and half the time": replace(LOOP, stops=True, times=0.5),
    "callers retry after a failure": replace(LOOP, retries=True),
    "callers retry, and half the time": replace(LOOP, retries=True, times=0.5),
    "a step every 10 minutes": Conversations(turns=40, steps_s=600.0),
    "5 turns": Conversations(),
}
ALPHA = 0.05
LATE = 7  # blocks that are assigned while a window is open: 12 minutes at 1 caller a second


@pytest.mark.parametrize(
    ("case", "share_bps", "rollouts"),
    [(case, 500, 30) for case in HEALTHY]
    + [later(case, share_bps, 200) for case in HEALTHY for share_bps in (100, 500, 2500)],
)
def test_an_equal_candidate_is_not_rolled_back_whatever_its_pace_and_its_callers(
    case: str,
    share_bps: int,
    rollouts: int,
) -> None:
    what = replace(HEALTHY[case], share_bps=share_bps)
    found = [exposures(what, most=1_000, seed=[131, n], late=LATE) for n in range(rollouts)]
    assert sum(map(math.isfinite, found)) <= upto(ALPHA, rollouts)


# By the failing share, the most exposures in the median: at the first turn, from the third on.
GOALS = {1.0: (3, 4), 0.2: (15, 30), 0.05: (130, 260), 0.02: (1450, math.inf)}
CAPS = {1.0: 30, 0.2: 150, 0.05: 900, 0.02: 6000}


@pytest.mark.parametrize(
    ("rate", "rollouts"),
    [(1.0, 40), (0.2, 100), (0.05, 40), later(0.05, 400), later(0.02, 100)],
)
def test_harm_at_the_first_turn_alone_is_found_as_soon_as_the_goal_says(
    rate: float, rollouts: int
) -> None:
    what = Conversations(canary=rate, turns=40, share_bps=100, to_turn=1)
    found = [
        exposures(what, most=CAPS[rate], seed=[137, n], late=LATE) for n in range(rollouts)
    ]
    assert np.quantile(found, 0.5) <= _spare(GOALS[rate][0], rollouts)


@pytest.mark.parametrize("rate", [1.0, 0.2, 0.05])
def test_harm_from_the_third_turn_on_is_found_as_soon_as_the_goal_says(rate: float) -> None:
    what = Conversations(canary=rate, from_turn=3, share_bps=100)
    found = [exposures(what, most=CAPS[rate], seed=[139, n]) for n in range(40)]
    assert np.quantile(found, 0.5, method="higher") <= GOALS[rate][1]


@pytest.mark.parametrize("rate", [1.0, 0.2])
def test_harm_that_a_fifth_of_the_callers_reach_takes_four_times_as_many_of_these(
    rate: float,
) -> None:
    what = Conversations(canary=rate, from_turn=3, reaching=0.2, share_bps=100)
    found = [
        exposures(what, most=6 * CAPS[rate], seed=[149, n], counted="reached")
        for n in range(40)
    ]
    assert np.quantile(found, 0.5, method="higher") <= 4 * GOALS[rate][1]


@pytest.mark.parametrize("routers", [1, 4])
def test_four_routers_in_turn_find_harm_at_the_third_turn_as_one_does(routers: int) -> None:
    play = SharedLedgers(_rule(), routers)
    rng = np.random.default_rng(151)
    arms = rng.random(1_000) < 0.05
    for turn in range(3):
        for caller, canary in enumerate(arms.tolist()):
            failed = bool(rng.random() < (1.0 if canary and turn == 2 else 0.01))
            router = (caller + turn) % routers
            play.ask(f"{caller}", canary=canary, failed=failed, router=router, weight_bps=500)
        play.wait(20.0)
    play.wait(61.0)
    play.wait(800.0)
    evidence = collect_evidence(play.blocks, CanaryPolicy())
    assert evidence.tripped is Guardrail.CALLER_ERRORS
    blocks = [block for block in play.blocks[: evidence.blocks] if block.late_of]
    assert sum(block.late_canary_units for block in blocks) <= 40


@pytest.mark.parametrize("seed", range(2))
def test_one_key_that_learns_its_arm_and_harms_it_at_the_second_turn_ends_no_rollout(
    seed: int,
) -> None:
    rng = np.random.default_rng([157, seed])

    def is_rolled_back(keys: int) -> bool:
        play = SharedLedgers(_rule())
        for caller in rng.permutation(2_500).tolist():
            canary = bool(rng.random() < 0.25)
            attacks = caller < 1_000
            client = f"attacker {caller % keys}" if attacks else "app"
            for failed in (rng.random() < 0.01, attacks and canary):
                play.ask(
                    f"{caller}",
                    canary=canary,
                    failed=bool(failed),
                    client=client,
                    weight_bps=2_500,
                )
        play.wait(800.0)
        return collect_evidence(play.blocks, CanaryPolicy()).block is not None

    assert not is_rolled_back(1)
    assert is_rolled_back(2)


def _rule() -> ExposureRule:
    return ExposureRule(ledger_salt="salt", window_s=600.0)


def _spare(goal: float, rollouts: int) -> float:
    """Adds the chance error of a median: times to a rollback vary by about their median."""
    return goal * (1.0 + (2.5 / math.sqrt(rollouts) if rollouts < 400 else 0.1))
