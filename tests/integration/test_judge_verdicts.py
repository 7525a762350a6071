"""A judge that contradicts people decides nothing (fault 27); its measurements are shown."""

from dataclasses import asdict

import pytest

from evals.suites.items import Item
from harness.frame.errors import JudgeUnfit
from harness.frame.plain_data import from_plain
from harness.frame.signing.audit import AuditEvent
from harness.frame.signing.audit_log import AuditLog
from harness.gate.run import CALIBRATED, EVER, JudgeCalibration, RunState
from harness.gate.suite_plan import SuitePin
from harness.gate.verdict import InfraError
from harness.proposals.submission import ProposalRequest
from harness.providers.target import Target
from harness.routing.records.runs import EvalRuns
from harness.routing.records.verdicts import Verdicts
from tests.support.control.colours_suite import answer
from tests.support.control.control_plane import SmallInstallation

TOLD = "suite colours: the judge sim/j does not agree with the 20 human references"


def outcome(world: SmallInstallation, verdict: str | None) -> str:
    assert verdict
    with world.store.read() as tx:
        return Verdicts(tx).get(verdict).outcome


@pytest.mark.req("F7")
def test_a_judge_below_the_floor_ends_in_not_measured_with_the_figure(
    world: SmallInstallation,
) -> None:
    def unfit(
        _target: Target,
        _item: Item,
        _epoch: int,
    ) -> str:
        raise JudgeUnfit(f"{TOLD}: Cohen's kappa is 0.31")

    world.script = unfit
    proposal = world.until_decided(world.propose().id, turns=60)

    assert proposal.verdict
    with world.store.read() as tx:
        verdict = Verdicts(tx).get(proposal.verdict)
        runs = [
            EvalRuns(tx).get(run)
            for pair in proposal.runs.values()
            for run in (pair.incumbent, pair.candidate)
        ]
    assert isinstance(verdict, InfraError)
    assert "Cohen's kappa is 0.31" in verdict.reason
    assert RunState.FAILED in {run.state for run in runs}


@pytest.mark.req("F7")
def test_once_the_judge_is_back_the_proposal_is_measured_again(
    world: SmallInstallation,
) -> None:
    away = True

    def sometimes(
        target: Target,
        item: Item,
        epoch: int,
    ) -> str:
        if away:
            raise JudgeUnfit("suite colours: Swapproof could not check its judge: HTTP 503")
        return answer(target, item, epoch)

    world.script = sometimes
    first = world.decided()
    assert (outcome(world, first.verdict), first.retry_at is None) == (
        "infra_error",
        False,
    )
    away = False

    world.run_once(turns=20)

    assert outcome(world, world.get(first.id).verdict) == "passed"


REQUEST = ProposalRequest("chat", "sim/better", "a test")


def measured(kappa: float) -> JudgeCalibration:
    return JudgeCalibration(50, kappa)


def events(world: SmallInstallation, pin: SuitePin) -> list[AuditEvent]:
    with world.store.read() as tx:
        noted = AuditLog(tx).for_subject(pin.judge_subject, since=EVER, limit=50)
    return [event for event in noted if event.action == CALIBRATED]


@pytest.mark.req("F7", "F2")
def test_a_worker_notes_each_measurement_once_also_of_a_run_that_ends_early(
    world: SmallInstallation,
) -> None:
    pin = world.context().suites.pin("colours")
    world.calibration = measured(0.8)

    world.decided("sim/worse")
    assert [event.details for event in events(world, pin)] == [asdict(measured(0.8))]
    world.calibration = measured(0.7)
    world.decided("sim/equal")

    kept = [from_plain(JudgeCalibration, event.details) for event in events(world, pin)]
    assert kept == [measured(0.7), measured(0.8)]
    with world.store.read() as tx:
        assert AuditLog(tx).first_break() is None
