"""What becomes of a proposal whose suite's judge is no judge (fault 27)."""

import pytest

from evals.suites.items import Item
from harness.domain.errors import JudgeUnfit
from harness.domain.evals.run import RunState
from harness.domain.evals.verdict import InfraError
from harness.domain.routing.target import Target
from tests.support.control.control_plane import SmallInstallation, answer

TOLD = "suite colours: the judge sim/j does not agree with the 20 human references"


def outcome(world: SmallInstallation, verdict: str | None) -> str:
    assert verdict
    with world.store.read() as tx:
        return tx.verdicts.get(verdict).outcome


@pytest.mark.req("F7")
def test_a_judge_below_the_floor_ends_in_not_measured_with_the_figure(
    world: SmallInstallation,
) -> None:
    def unfit(_target: Target, _item: Item, _epoch: int) -> str:
        raise JudgeUnfit(f"{TOLD}: Cohen's kappa is 0.31")

    world.script = unfit
    proposal = world.until_decided(world.propose().id, turns=60)

    assert proposal.verdict
    with world.store.read() as tx:
        verdict = tx.verdicts.get(proposal.verdict)
        runs = [tx.runs.get(run) for pair in proposal.runs.values()
                for run in (pair.incumbent, pair.candidate)]  # fmt: skip
    assert isinstance(verdict, InfraError)
    assert "Cohen's kappa is 0.31" in verdict.reason
    assert RunState.FAILED in {run.state for run in runs}


@pytest.mark.req("F7")
def test_once_the_judge_is_back_the_proposal_is_measured_again(
    world: SmallInstallation,
) -> None:
    away = True

    def sometimes(target: Target, item: Item, epoch: int) -> str:
        if away:
            raise JudgeUnfit("suite colours: its judge could not be checked: HTTP 503")
        return answer(target, item, epoch)

    world.script = sometimes
    first = world.decided()
    assert (outcome(world, first.verdict), first.retry_at is None) == ("infra_error", False)
    away = False

    for _ in range(20):
        world.run_once()

    assert outcome(world, world.get(first.id).verdict) == "passed"
