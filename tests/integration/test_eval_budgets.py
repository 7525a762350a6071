"""What a run may use: it stops cleanly there, and starts nothing that cannot be measured."""

from dataclasses import replace

import pytest

from harness.control.routing import targets
from harness.domain.evals.run import EvalRun, RunState, Sample
from harness.domain.operations.access import SYSTEM
from harness.domain.proposals.proposal import Proposal, ProposalPhase
from harness.domain.routing.target import Provider
from tests.support.control.control_plane import POLICY, SmallInstallation

pytestmark = pytest.mark.req("F2")


def limited(world: SmallInstallation, **limits: float) -> Proposal:
    world.policy = replace(POLICY, gate=replace(POLICY.gate, **limits))  # type: ignore[arg-type]
    return world.propose("sim/equal")


def candidate_run(world: SmallInstallation, proposal: Proposal) -> tuple[EvalRun, list[Sample]]:
    run = proposal.runs["colours"].candidate
    with world.store.read() as tx:
        return tx.runs.get(run), list(tx.runs.samples(run, below=1000))


def test_a_run_stops_at_the_answer_that_reaches_its_budget(world: SmallInstallation) -> None:
    after = world.until_decided(limited(world, max_tokens=40).id)
    run, samples = candidate_run(world, after)

    assert (after.phase, run.state) == (ProposalPhase.REJECTED, RunState.OVER_BUDGET)
    used = [sample.input_tokens + sample.output_tokens for sample in samples]
    assert sum(used) >= 40 > sum(used) - max(used)
    assert f"{sum(used)} tokens of 40 are used" in run.message
    assert run.message in after.closed_because
    with world.store.read() as tx:
        assert [v.outcome for v in tx.verdicts.for_proposal(after.id)] == ["inconclusive"]


def test_a_run_whose_budget_is_used_already_asks_nothing_more(world: SmallInstallation) -> None:
    after = world.until_decided(limited(world, max_tokens=40).id)
    run, before = candidate_run(world, after)
    with world.store.write() as tx:
        tx.runs.set_state(run.id, RunState.QUEUED)

    world.context().workers.start(run.id)  # type: ignore[union-attr]

    run, samples = candidate_run(world, after)
    assert (run.state, len(samples)) == (RunState.OVER_BUDGET, len(before))


def test_money_is_not_spent_where_its_sum_could_not_be_known(world: SmallInstallation) -> None:
    unpriced = Provider("sim", "sim", "http://127.0.0.1:9/v1")
    targets.put_provider(world.context(), SYSTEM, unpriced)
    after = world.until_decided(limited(world, max_cost_usd=1.0).id)
    run, samples = candidate_run(world, after)

    assert (run.state, samples) == (RunState.OVER_BUDGET, [])
    assert "the price of equal is not known" in run.message
