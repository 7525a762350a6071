"""The demo must end as told: reseeded demos, without HTTP, with the product's own functions."""

import random
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from evals.sim import profiles
from evals.sim.simulated_model import ItemBank, SimulatedModel, load_suites, suite_files
from harness import config, package_data
from harness.app.demo.environment import (
    BETTER,
    FAULT_RATE,
    FRAGILE,
    INCUMBENT,
    MODELS,
    SUITE,
    WORSE,
)
from harness.domain.canary.observation import ObservationBlock
from harness.domain.proposals.policy import Policy
from harness.gate.offline.design import Design
from harness.gate.offline.sequential import judge_differences
from harness.gate.online.rollout_evidence import collect_evidence
from tests.support.sampling import later

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TOLD = {BETTER: "promote", WORSE: "reject", FRAGILE: "promote"}


@pytest.fixture(scope="module")
def policy() -> Policy:
    defaults = package_data.path("config/default.yaml")
    return config.load_settings(None, {}, defaults=defaults).policies["demo"]


def verdicts(bank: ItemBank, policy: Policy, rng: random.Random) -> dict[str, str]:
    """Each candidate's outcome with answers and order drawn anew."""
    models = {
        name: SimulatedModel(replace(profile, seed=rng.randrange(2**31)), bank)
        for name, profile in profiles.load_profiles(MODELS).items()
    }
    items = rng.sample(bank.suites[SUITE], k=policy.gate.n_max or len(bank.suites[SUITE]))
    right = {name: [m.sit(item).right for item in items] for name, m in models.items()}
    base = right[INCUMBENT.partition("/")[2]]
    design = Design(policy.gate.claim, policy.gate.margin, len(items), policy.gate.alpha)
    return {
        name: judge_differences(
            [float(b) - float(a) for a, b in zip(base, right[model], strict=True)], design
        ).outcome
        for name in TOLD
        for model in [name.partition("/")[2]]
    }


def is_rolled_back(policy: Policy, rng: random.Random) -> bool:
    """Whether the failing candidate is rolled back before it moves up."""
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


@pytest.mark.req("F2")
@pytest.mark.parametrize("seeds", [range(10), later(range(10, 50))], ids=str)
def test_reseeded_candidates_get_the_verdicts_that_the_demo_tells(
    policy: Policy, seeds: range
) -> None:
    bank = ItemBank(load_suites(suite_files(package_data.path("datasets"))))
    for seed in seeds:
        assert verdicts(bank, policy, random.Random(seed)) == TOLD


@pytest.mark.req("F3")
def test_a_failing_canary_is_rolled_back_before_its_first_step_ends(policy: Policy) -> None:
    for seed in range(200):
        assert is_rolled_back(policy, random.Random(seed))
