"""The main job over every store: propose, evaluate, gate, canary, promote or roll back."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from evals.suites.items import Item
from harness.control.proposals import decisions, submission
from harness.control.proposals.submission import ProposalRequest
from harness.control.routing import routes
from harness.domain.errors import InputError
from harness.domain.evals.run import RunState
from harness.domain.evals.suite_plan import Claim
from harness.domain.evals.verdict import Failed
from harness.domain.operations.access import SYSTEM
from harness.domain.proposals.proposal import ProposalPhase
from harness.domain.routing.table import RouteSettings, RouteSuite
from harness.domain.routing.target import Target
from tests.support.control.control_plane import (
    ANN,
    BEN,
    SmallInstallation,
    answer,
    approved,
    read_history,
)
from tests.support.control.inline_workers import InlineWorkers

SETTINGS = RouteSettings(suites=(RouteSuite("colours"),))


@pytest.mark.req("A7", "F2")
def test_a_worse_candidate_is_stopped_by_the_gate_and_never_sees_traffic(
    world: SmallInstallation,
) -> None:
    proposal = world.propose("sim/worse")
    after = world.until_decided(proposal.id)

    assert after.phase is ProposalPhase.REJECTED
    assert "worse" in after.closed_because
    assert world.serving() == "base"
    assert [r.kind for r in read_history(world.context(), "chat")] == ["baseline"]
    with world.store.read() as tx:
        assert isinstance(tx.verdicts.for_proposal(proposal.id)[0], Failed)


def test_two_proposals_share_the_incumbents_run_and_never_a_candidates(
    world: SmallInstallation,
) -> None:
    ctx = world.context()
    routes.create_route(ctx, SYSTEM, "mail", "sim/base", settings=SETTINGS)
    first = world.propose("sim/better")
    second = submission.create_proposal(
        ctx, ANN, ProposalRequest("mail", "sim/better", "another route")
    )
    world.run_once()
    runs, others = world.get(first.id).runs["colours"], world.get(second.id).runs["colours"]
    assert runs.incumbent == others.incumbent
    assert runs.candidate != others.candidate


def test_runs_stop_when_the_gate_has_decided(world: SmallInstallation) -> None:
    proposal = world.propose("sim/worse")
    world.until_decided(proposal.id)
    with world.store.read() as tx:
        states = {run.state for run in tx.runs.list()}
        verdict = tx.verdicts.for_proposal(proposal.id)[0]
    assert states <= {RunState.DONE, RunState.STOPPED}
    assert verdict.suites[0].n_used < verdict.suites[0].n_max


def test_a_refusal_or_silence_ends_a_proposal_that_waits(world: SmallInstallation) -> None:
    world.policy = approved()
    refused = world.propose("sim/better")
    world.until_decided(refused.id)
    decisions.refuse_proposal(world.context(), BEN, refused.id, "not this week")
    assert world.get(refused.id).phase is ProposalPhase.REJECTED

    silent = world.propose("sim/better")
    world.until_decided(silent.id)
    world.clock.advance(8 * 86_400)
    world.run_once()
    assert world.get(silent.id).phase is ProposalPhase.REJECTED


def test_a_worker_that_dies_again_and_again_is_not_held_against_the_candidate(
    world: SmallInstallation,
) -> None:
    def dies(_target: Target, _item: object, _epoch: int) -> str:
        raise RuntimeError("out of memory")

    world.script = dies
    proposal = world.propose("sim/better")
    ctx = world.context()
    for _ in range(200):
        world.run_once(ctx)
        if not world.get(proposal.id).open:
            break
    after = world.get(proposal.id)
    assert after.phase is ProposalPhase.REJECTED
    assert "not measured" in after.closed_because
    with world.store.read() as tx:
        assert {v.outcome for v in tx.verdicts.for_proposal(proposal.id)} == {"infra_error"}


@pytest.mark.req("A7")
def test_the_claim_non_inferior_needs_a_reason(world: SmallInstallation) -> None:
    request = ProposalRequest("chat", "sim/better", claim=Claim.NON_INFERIOR)
    with pytest.raises(InputError, match="reason"):
        submission.create_proposal(world.context(), ANN, request)


class Killed(InlineWorkers):
    """Whose workers die by signal 9 where others fail."""

    def __init__(self, others: InlineWorkers) -> None:
        super().__init__(others._work)

    def reap(self) -> Sequence[tuple[str, str, int, str]]:
        return [
            (run, owner, -9 if code else 0, words) for run, owner, code, words in super().reap()
        ]


@pytest.mark.req("F5")
def test_a_worker_that_is_killed_again_and_again_costs_no_verdict(
    world: SmallInstallation,
) -> None:
    calls = deaths = 0

    def dies(target: Target, item: Item, epoch: int) -> str:
        nonlocal calls, deaths
        calls += 1
        if deaths < 9 and calls % 3 == 0:
            deaths += 1
            raise RuntimeError("killed")
        return answer(target, item, epoch)

    world.script = dies
    proposal = world.propose("sim/better")
    ctx = world.context()
    assert isinstance(ctx.workers, InlineWorkers)
    ctx = replace(ctx, workers=Killed(ctx.workers))
    for _ in range(60):
        world.run_once(ctx)
        if world.get(proposal.id).verdict:
            break

    assert deaths == 9
    with world.store.read() as tx:
        assert [v.outcome for v in tx.verdicts.for_proposal(proposal.id)] == ["passed"]
