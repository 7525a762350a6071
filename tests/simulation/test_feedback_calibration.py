"""Does feedback find a candidate that users dislike, whatever the length of its answers
(statistics.md §2.19)? Seeded.
"""

import math

import numpy as np
import pytest

from harness.gate.online.guardrails import ExposureRule, Guardrail
from harness.gate.online.rollout_evidence import collect_evidence
from tests.simulation.test_canary_calibration import upto
from tests.support.canary.late_feedback import POLICY, SHARE, exposures
from tests.support.canary.shared_ledgers import SharedLedgers
from tests.support.sampling import later

pytestmark = pytest.mark.req("F3")


@pytest.mark.parametrize(
    ("words", "rollouts"),
    [(1 / 2, 40), (1 / 3, 40), later(1 / 2, 200), later(1 / 3, 200), later(3.0, 200)],
)
def test_an_equally_disliked_candidate_with_other_lengths_is_not_rolled_back(
    words: float, rollouts: int
) -> None:
    found = [exposures(words, 1.0, seed=[163, n]) for n in range(rollouts)]
    assert sum(map(math.isfinite, found)) <= upto(0.05, rollouts)


@pytest.mark.parametrize("rollouts", [20, later(200)])
def test_a_candidate_that_is_twice_as_disliked_and_twice_as_long_is_found(
    rollouts: int,
) -> None:
    found = [exposures(2.0, 2.0, seed=[167, n]) for n in range(rollouts)]
    assert sum(map(math.isfinite, found)) >= 0.95 * rollouts


def test_sixty_seconds_of_feedback_would_blame_short_answers_and_excuse_long_ones() -> None:
    short = [exposures(1 / 3, 1.0, seed=[173, n], heard_s=60.0) for n in range(10)]
    long = [exposures(2.0, 2.0, seed=[179, n], heard_s=60.0) for n in range(10)]
    assert sum(map(math.isfinite, short)) >= 7
    assert sum(map(math.isfinite, long)) <= 2


def test_the_ledger_hears_late_feedback_and_the_canary_is_rolled_back_by_it() -> None:
    rng = np.random.default_rng(181)
    play = SharedLedgers(ExposureRule(guardrails={Guardrail.FEEDBACK: 1.25}))
    said = []
    for caller in range(2_000):
        canary = bool(rng.random() < SHARE)
        unit = play.admit(f"{caller}", canary=canary, weight_bps=round(SHARE * 10_000))
        play.finish(unit)
        if rng.random() < (0.4 if canary else 0.05):
            said.append(unit)
    play.wait(500.0)
    for unit in said:
        play.hear(unit, bad=True)
    play.wait(200.0)
    assert collect_evidence(play.blocks, POLICY).tripped is Guardrail.FEEDBACK
