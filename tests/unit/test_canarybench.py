"""CanaryBench's parts: its fast ways are the product's ways, its goals."""

import math

import numpy as np
import pytest

from harness.domain.canary.guardrails import Guardrail
from harness.domain.canary.ranking import rank_among
from tests.support.canary.default_canary import TWELVE
from tests.support.canary.guarded_traffic import (
    SIZE,
    SimulatedHarm,
    ranks_of_rows,
    simulate_rollout,
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
    blocks = simulate_rollout(SimulatedHarm(), TWELVE, blocks=30, rng=np.random.default_rng(3))

    for block in blocks:
        assert block.units == SIZE
        assert all(tally.fits for tally in block.counts.values())
        assert set(block.counts) | set(block.ranks) <= set(Guardrail)
        assert block.counts[Guardrail.REFUSALS].units == SIZE
        assert block.counts[Guardrail.JSON_VALIDITY].units < SIZE
        assert all(0.0 <= u <= 1.0 for ranks in block.ranks.values() for u in ranks)
        assert all(math.isfinite(level.canary) for level in block.levels.values())
    assert 0 < sum(Guardrail.INTER_TOKEN_LATENCY in block.ranks for block in blocks) < 30
