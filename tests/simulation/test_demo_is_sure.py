"""The demo must end as told: reseeded demos, without HTTP, with the product's own functions."""

import random
from datetime import UTC, datetime

import pytest

from harness import config, package_data
from harness.app.demo.environment import FAULT_RATE
from harness.domain.canary.observation import ObservationBlock
from harness.domain.proposals.policy import Policy
from harness.gate.online.rollout_evidence import collect_evidence

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def policy() -> Policy:
    defaults = package_data.path("config/default.yaml")
    return config.load_settings(None, {}, defaults=defaults).policies["demo"]


def is_rolled_back(policy: Policy, rng: random.Random) -> bool:
    step, size = policy.canary.steps[0], policy.canary.block_size
    blocks: list[ObservationBlock] = []
    while sum(block.canary_units for block in blocks) < step.min_exposures:
        canary = sum(rng.random() < step.weight_bps / 10_000 for _ in range(size))
        failed = sum(rng.random() < FAULT_RATE for _ in range(canary))
        number = len(blocks) + 1
        blocks.append(
            ObservationBlock(
                "r", "w", number, 100, size, canary, failed, failed, 0, NOW, NOW, number
            )
        )
        if collect_evidence(blocks, policy.canary).block is not None:
            return True
    return False


@pytest.mark.req("F3")
def test_a_failing_canary_is_rolled_back_before_its_first_step_ends(policy: Policy) -> None:
    for seed in range(200):
        assert is_rolled_back(policy, random.Random(seed))
