"""The demo must end as told: a small share of `python -m benchmarks.demo.run`."""

import random

import pytest

from benchmarks.demo.run import TOLD, rolled_back, verdicts
from evals.sim.item_bank import ItemBank, load_suites, suite_files
from harness import config, package_data
from harness.domain.proposals.policy import Policy


@pytest.fixture(scope="module")
def policy() -> Policy:
    defaults = package_data.path("config/default.yaml")
    return config.load_settings(None, {}, defaults=defaults).policies["demo"]


@pytest.mark.req("F2")
def test_reseeded_candidates_get_the_verdicts_that_the_demo_tells(policy: Policy) -> None:
    bank = ItemBank(load_suites(suite_files(package_data.path("datasets"))))
    for seed in range(50):
        assert verdicts(bank, policy, random.Random(seed)) == TOLD


@pytest.mark.req("F3")
def test_a_failing_canary_is_rolled_back_before_its_first_step_ends(policy: Policy) -> None:
    for seed in range(200):
        assert rolled_back(policy, random.Random(seed)) is not None
