"""A judge's calibration goes from the worker that measured it into the audit log."""

from dataclasses import asdict

import pytest

from harness.control.proposals.submission import ProposalRequest
from harness.domain.evals.run import CALIBRATED, EVER, JudgeCalibration
from harness.domain.evals.suite_plan import SuitePin
from harness.domain.operations.audit import AuditEvent
from harness.domain.plain_data import from_plain
from tests.support.control.control_plane import SmallInstallation

pytestmark = pytest.mark.req("F7", "F2")

REQUEST = ProposalRequest("chat", "sim/better", "a test")


def measured(kappa: float) -> JudgeCalibration:
    return JudgeCalibration(50, kappa)


def events(world: SmallInstallation, pin: SuitePin) -> list[AuditEvent]:
    with world.store.read() as tx:
        noted = tx.audit.for_subject(pin.judge_subject, since=EVER, limit=50)
    return [event for event in noted if event.action == CALIBRATED]


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
        assert tx.audit.first_break() is None
