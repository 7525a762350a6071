from dataclasses import replace

import pytest

from harness.control.evals.recomputation import recompute_stored, replay_verdict
from harness.control.proposals import estimate
from harness.control.proposals.submission import ProposalRequest
from harness.domain.evals.suite_plan import ClaimPopulation
from harness.domain.evals.verdict import Passed
from tests.support.control.control_plane import ITEMS, SmallInstallation

pytestmark = pytest.mark.req("F2", "A7", "F5")


def ask_about_these(world: SmallInstallation, n_max: int | None = None) -> None:
    gate = replace(world.policy.gate, population=ClaimPopulation.THESE, epochs=2, n_max=n_max)
    world.policy = replace(world.policy, gate=gate)


def test_the_claim_is_registered_decides_and_is_replayed(world: SmallInstallation) -> None:
    ask_about_these(world)

    decided = world.decided("sim/better")

    (plan,) = decided.plans
    assert (plan.population, plan.suite_items) == (ClaimPopulation.THESE, ITEMS)
    with world.store.read() as tx:
        verdict = tx.verdicts.get(decided.verdict or "")
    assert isinstance(verdict, Passed)
    assert replay_verdict(world.context(), verdict.id).agrees
    with world.store.read() as tx:
        assert recompute_stored(world.context(), tx, verdict, decided).agrees


def test_a_run_budget_that_is_too_small_is_said_beforehand(world: SmallInstallation) -> None:
    ask_about_these(world, n_max=50)
    world.decided("sim/equal")
    request = ProposalRequest("chat", "sim/good")
    (free,) = estimate.estimate_proposal(world.context(), request)
    assert free.incumbent is not None
    assert free.incumbent.cost_usd is not None

    gate = replace(world.policy.gate, max_cost_usd=60 * free.incumbent.cost_usd)
    world.policy = replace(world.policy, gate=gate)
    (capped,) = estimate.estimate_proposal(world.context(), request)

    assert "max_cost_usd" not in free.warning
    assert "The incumbent's run of 100 answers costs about" in capped.warning
    tokens = replace(world.policy.gate, max_cost_usd=None, max_tokens=100)
    world.policy = replace(world.policy, gate=tokens)
    (few,) = estimate.estimate_proposal(world.context(), request)
    assert "`max_tokens` ends it at 100" in few.warning
