from dataclasses import replace

import pytest

from harness.control.context import Context
from harness.control.evals import eval_queue, worker_supervision
from harness.control.privacy import housekeeping
from harness.control.proposals import alpha_spending, submission
from harness.control.routing import targets
from harness.domain.errors import IllegalTransition, InputError, NotAllowed, NotFound
from harness.domain.evals.run import EvalRun, RunState, Sample
from harness.domain.operations.access import SYSTEM, Actor, Role
from harness.domain.proposals.proposal import Proposal, ProposalPhase
from harness.domain.routing.target import Provider
from tests.support.control.control_plane import ANN, POLICY, SmallInstallation


class Held:
    """Workers that start nothing: what is asked of them is kept."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.stopped: list[str] = []

    def start(self, run: str) -> str:
        self.started.append(run)
        return f"w-{run}"

    def alive(self) -> dict[str, str]:
        return {}

    def reap(self) -> list[tuple[str, str, int, str]]:
        return []

    def stop(self, run: str) -> None:
        self.stopped.append(run)

    def stop_all(self) -> None: ...


@pytest.mark.req("A7")
def test_a_schedule_skips_a_run_whose_twin_is_queued_or_running(
    world: SmallInstallation,
) -> None:
    ctx = world.context()
    [first] = housekeeping.evaluate_incumbents(ctx, suite="colours")
    assert housekeeping.evaluate_incumbents(ctx, suite="colours") == []
    with world.store.write() as tx:
        tx.runs.set_state(first.id, RunState.RUNNING)
    assert housekeeping.evaluate_incumbents(ctx, suite="colours") == []
    with world.store.write() as tx:
        tx.runs.set_state(first.id, RunState.DONE)
    assert housekeeping.evaluate_incumbents(ctx, suite="colours") == []  # in this minute
    world.clock.advance(60)
    [again] = housekeeping.evaluate_incumbents(ctx, suite="colours")
    assert again.id != first.id
    # Who asks by hand gets what he asks for.
    assert worker_supervision.start_run(ctx, ANN, "colours", "sim/base").id != again.id


@pytest.mark.req("A7")
def test_what_a_proposal_waits_for_goes_before_a_schedule(world: SmallInstallation) -> None:
    held = Held()
    [scheduled] = housekeeping.evaluate_incumbents(world.context(), suite="colours")
    world.clock.advance(60)
    proposal = world.propose("sim/better")
    ctx = replace_workers(world, held)
    world.run_once(ctx)
    pairs = world.get(proposal.id).runs.values()
    ours = {run for pair in pairs for run in (pair.incumbent, pair.candidate)}
    worker_supervision.run_once(ctx)
    assert set(held.started[:2]) == ours
    assert scheduled.id not in held.started[:2]
    queue = eval_queue.load_queue(ctx)
    assert {queue[run].needed_by for run in ours} == {(proposal.id,)}
    assert queue[scheduled.id].text == (
        "waits behind 2 runs; what proposals wait for is taken first"
    )


@pytest.mark.req("A7")
def test_a_run_is_cancelled_with_a_reason_and_its_proposal_with_it(
    world: SmallInstallation,
) -> None:
    held = Held()
    ctx = replace_workers(world, held)
    proposal = world.propose("sim/better")
    world.run_once(ctx)
    [pair] = world.get(proposal.id).runs.values()

    with pytest.raises(InputError, match="needs a reason"):
        worker_supervision.cancel_run(ctx, ANN, pair.candidate, " ")
    with pytest.raises(NotFound):
        worker_supervision.cancel_run(ctx, ANN, "run_nothing", "why not")
    with pytest.raises(NotAllowed):
        worker_supervision.cancel_run(
            ctx, Actor("dan", Role.PROPOSER, "pr_dan"), pair.candidate, "a rival"
        )
    ended = worker_supervision.cancel_run(ctx, ANN, pair.candidate, "the wrong model")

    assert ended.state is RunState.STOPPED
    assert "cancelled by ann: the wrong model" in ended.message
    assert pair.candidate in held.stopped
    after = world.get(proposal.id)
    assert after.phase is ProposalPhase.CANCELLED
    assert f"its run {pair.candidate} was cancelled by ann: the wrong model" in (
        after.closed_because
    )
    with world.store.read() as tx:
        assert tx.runs.get(pair.incumbent).state is RunState.STOPPED
        assert not alpha_spending.has_looked(tx, after)  # nothing of the candidate was scored
    with pytest.raises(IllegalTransition, match="ended already"):
        worker_supervision.cancel_run(ctx, ANN, pair.candidate, "again")
    world.run_once(ctx)
    assert (
        submission.get_proposal(ctx, world.propose("sim/better").id).phase
        is ProposalPhase.PROPOSED
    )


def replace_workers(world: SmallInstallation, held: Held) -> Context:
    return replace(world.context(), workers=held)


def limited(world: SmallInstallation, **limits: float) -> Proposal:
    world.policy = replace(POLICY, gate=replace(POLICY.gate, **limits))  # type: ignore[arg-type]
    return world.propose("sim/equal")


def candidate_run(world: SmallInstallation, proposal: Proposal) -> tuple[EvalRun, list[Sample]]:
    run = proposal.runs["colours"].candidate
    with world.store.read() as tx:
        return tx.runs.get(run), list(tx.runs.samples(run, below=1000))


@pytest.mark.req("F2")
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


@pytest.mark.req("F2")
def test_a_run_whose_budget_is_used_already_asks_nothing_more(world: SmallInstallation) -> None:
    after = world.until_decided(limited(world, max_tokens=40).id)
    run, before = candidate_run(world, after)
    with world.store.write() as tx:
        tx.runs.set_state(run.id, RunState.QUEUED)

    world.context().workers.start(run.id)  # type: ignore[union-attr]

    run, samples = candidate_run(world, after)
    assert (run.state, len(samples)) == (RunState.OVER_BUDGET, len(before))


@pytest.mark.req("F2")
def test_money_is_not_spent_where_its_sum_could_not_be_known(world: SmallInstallation) -> None:
    unpriced = Provider("sim", "sim", "http://127.0.0.1:9/v1")
    targets.put_provider(world.context(), SYSTEM, unpriced)
    after = world.until_decided(limited(world, max_cost_usd=1.0).id)
    run, samples = candidate_run(world, after)

    assert (run.state, samples) == (RunState.OVER_BUDGET, [])
    assert "the price of equal is not known" in run.message
