"""CanaryBench's parts: its fast ways are the product's ways, its goals."""

import math

import numpy as np
import pytest

from benchmarks.canary.canary_benchmark import CanaryBenchmarkPlan, run_canary_benchmark
from harness.domain.canary.guardrails import FailureTally, Guardrail
from harness.domain.canary.ranking import rank_among
from tests.support.canary.detection import EVERYTHING
from tests.support.canary.guarded_traffic import (
    SIZE,
    SimulatedHarm,
    Truth,
    ranks_of_rows,
    simulate_rollout,
    simulate_traffic,
)

pytestmark = pytest.mark.req("F3")


def test_ranks_of_many_rows_are_the_products_own_ranks() -> None:
    rng = np.random.default_rng(1)
    values = rng.integers(0, 30, (200, 20)).astype(float)
    ties, among = rng.random(200), rng.random((200, 19)) < 0.7
    floats = ranks_of_rows(values[:, 0], values[:, 1:], ties, among)

    for n in range(200):
        controls = values[n, 1:][among[n]].tolist()
        assert floats[n] == rank_among(float(values[n, 0]), controls, float(ties[n]))


def test_traffic_for_all_guardrails_holds_together() -> None:
    blocks = simulate_rollout(
        SimulatedHarm(), EVERYTHING, blocks=30, rng=np.random.default_rng(3)
    )

    for block in blocks:
        assert block.units == SIZE
        assert all(tally.fits for tally in block.counts.values())
        assert set(block.counts) | set(block.ranks) <= set(Guardrail)
        assert block.counts[Guardrail.REFUSALS].units == SIZE
        assert block.counts[Guardrail.JSON_VALIDITY].units < SIZE
        assert all(0.0 <= u <= 1.0 for ranks in block.ranks.values() for u in ranks)
        assert all(math.isfinite(level.canary) for level in block.levels.values())
    assert 0 < sum(Guardrail.INTER_TOKEN_LATENCY in block.ranks for block in blocks) < 30


def test_an_incident_hits_both_arms() -> None:
    rng = np.random.default_rng(4)
    blocks = simulate_rollout(
        SimulatedHarm(), EVERYTHING, blocks=10, rng=rng, incident=range(4, 6)
    )
    failures = [block.failures for block in blocks]

    assert min(failures[4:6]) > 15
    assert max(failures[:4] + failures[6:]) < 10


def test_a_goal_is_named_with_what_was_found() -> None:
    benchmark = run_canary_benchmark(CanaryBenchmarkPlan(rollouts=5, tables=["errors"]))

    found = {goal.what: goal for goal in benchmark.goals}
    assert found["errors alone, 100 % errors: exposures, median"].found <= 2
    assert found["errors alone, healthy: false rollbacks"].limit == 0.05
    assert len(found) == 4 * 2 + 2


def test_the_tally_of_our_rule_counts_both_arms() -> None:
    traffic = simulate_traffic(Truth(canary=1.0, canaries=5), 2, np.random.default_rng(5))
    assert all(
        isinstance(count, FailureTally) and count.canary == 5 for count in traffic.counts()
    )
