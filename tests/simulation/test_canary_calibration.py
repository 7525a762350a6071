"""Does the canary's guard err as often as it says, and see harm as soon as it says? Seeded."""

import math

import numpy as np
import pytest

from harness.domain.canary.guardrails import FailureTally
from harness.gate.online.evidence_paths import counts_path
from harness.gate.online.fisher import (
    ALARM_LOG_E,
    Certificate,
    add_block,
    log_certificate,
    log_srm,
)
from tests.support.canary.detection import INCIDENT, detect_errors
from tests.support.canary.guarded_traffic import Truth, simulate_traffic
from tests.support.sampling import later

pytestmark = pytest.mark.req("F3")


def upto(rate: float, trials: int) -> float:
    return rate + 3.0 * math.sqrt(rate * (1.0 - rate) / trials)


def test_a_healthy_canary_is_rolled_back_in_at_most_one_of_twenty() -> None:
    found = detect_errors(Truth(), cap=1000, rollouts=400)
    assert float(np.isfinite(found).mean()) <= upto(0.05, 400)


def test_an_incident_of_both_arms_rolls_nothing_back() -> None:
    found = detect_errors(Truth(), cap=1000, rollouts=400, incident=INCIDENT)
    assert float(np.isfinite(found).mean()) <= upto(0.05, 400)


@pytest.mark.parametrize(
    ("rate", "median", "p95", "cap"),
    [later(0.05, 95, 310, 1500), (0.20, 10, 34, 1000), (1.0, 2, 3, 1000)],
)
def test_a_sick_canary_is_rolled_back_within_the_stated_exposures(
    rate: float, median: float, p95: float, cap: int
) -> None:
    found = detect_errors(Truth(canary=rate), cap=cap, rollouts=400)

    assert np.median(found) <= median * 1.15
    assert np.quantile(found, 0.95) <= p95 * 1.15


@pytest.mark.parametrize("control", [0.01, later(0.10)])
def test_a_canary_at_the_limit_of_harm_is_certified_in_at_most_one_of_twenty(
    control: float,
) -> None:
    odds = 2.0 * control / (1.0 - control)
    truth = Truth(control=control, canary=odds / (1.0 + odds), size=40, canaries=10)
    certified = sum(_ever_certified(truth, index, blocks=300) for index in range(250))

    assert certified <= upto(0.05, 250) * 250


def test_a_healthy_canary_is_certified_within_the_planned_exposures() -> None:
    truth = Truth(control=0.001, canary=0.001, size=40, canaries=10)
    certified = sum(_ever_certified(truth, index, blocks=120) for index in range(100))

    assert certified >= 80


def _ever_certified(truth: Truth, index: int, blocks: int) -> bool:
    state = Certificate()
    rng = np.random.default_rng([29, index])
    for block in simulate_traffic(truth, blocks, rng).counts():
        state = add_block(state, _tuple(block), rho_ni=2.0)
        if log_certificate(state, p0=0.01)[0] >= math.log(20.0):
            return True
    return False


def _tuple(block: FailureTally) -> tuple[int, int, int, int]:
    return block.units, block.canary, block.failures, block.canary_failures


def test_a_rightly_split_traffic_raises_no_alarm_and_a_skewed_one_does() -> None:
    rng = np.random.default_rng(31)
    false_alarms, alarms = 0, 0
    for _ in range(300):
        right = np.cumsum(rng.binomial(100, 0.05, 200))
        skewed = np.cumsum(rng.binomial(100, 0.08, 200))
        units = range(100, 20_001, 100)
        false_alarms += any(
            log_srm(int(k), n, 0.05) >= ALARM_LOG_E for k, n in zip(right, units, strict=True)
        )
        alarms += log_srm(int(skewed[-1]), 20_000, 0.05) >= ALARM_LOG_E
    assert false_alarms <= 2
    assert alarms == 300


def test_callers_counted_again_by_a_router_that_forgot_them_loosen_the_promise() -> None:
    """As docs/explanation/canary.md says of one router: 5 % fail, always, whatever answers."""
    level = math.log(50.0)  # the first day's part of 4 %
    assert _counted(1, 200, level) <= 0.02 * 200
    assert _counted(8, 200, level) >= 0.04 * 200


def _counted(times: int, runs: int, level: float) -> int:
    tripped = 0
    for index in range(runs):
        rng = np.random.default_rng([7, index])
        canary, fails = rng.random(2000) < 0.25, rng.random(2000) < 0.05
        order = np.concatenate([rng.permutation(2000) for _ in range(times)]).reshape(-1, 100)
        arms, bad = canary[order], fails[order]
        sums = (arms.sum(axis=1), bad.sum(axis=1), (arms & bad).sum(axis=1))
        blocks = [FailureTally(100, *map(int, row)) for row in zip(*sums, strict=True)]
        tripped += bool(counts_path(blocks).max() >= level)
    return tripped
