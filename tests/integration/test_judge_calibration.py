"""A judge's calibration goes from the worker that measured it into the audit log, and from
there into the plans of proposals.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from harness.control.proposals import estimate, submission
from harness.control.proposals.submission import ProposalRequest
from harness.domain.errors import ProofRefused
from harness.domain.evals.judge_calibration import (
    CALIBRATED,
    EVER,
    JudgeCalibration,
    JudgeSlope,
)
from harness.domain.evals.suite_plan import Claim, SuitePin, SuitePlan
from harness.domain.operations.access import SYSTEM
from harness.domain.operations.audit import AuditEvent
from harness.domain.routing.target import Target
from harness.domain.settings import JudgeSettings
from tests.support.control.control_plane import SmallInstallation

pytestmark = pytest.mark.req("F7", "F2")

REQUEST = ProposalRequest("chat", "sim/better", "a test")


def measured(slope: float, error: float = 0.05) -> JudgeCalibration:
    return JudgeCalibration(50, 0.8, JudgeSlope(slope, error))


def events(world: SmallInstallation, pin: SuitePin) -> list[AuditEvent]:
    with world.store.read() as tx:
        noted = tx.audit.for_subject(pin.judge_subject, since=EVER, limit=50)
    return [event for event in noted if event.action == CALIBRATED]


def note(world: SmallInstallation, pin: SuitePin, *slopes: float) -> None:
    for slope in slopes:
        with world.store.write() as tx:
            tx.audit.append(
                at=world.clock.now(),
                actor=SYSTEM,
                action=CALIBRATED,
                subject=pin.judge_subject,
                details=measured(slope).as_json(),
            )


def judge_by(world: SmallInstallation, model: str = "judge", rubric: str = "x") -> SuitePin:
    """Lets a judge score the world's suite, with references."""
    references = Path(world.folder) / "references.jsonl"
    rows = [{"input": "n?", "answer": f"{n}", "score": float(n % 2)} for n in range(12)]
    references.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    world.suites["colours"] = replace(
        world.suites["colours"],
        scorer="rubric",
        scorer_options={"rubric": rubric},
        judge=JudgeSettings(Target("sim", model), references=references),
    )
    return world.context().suites.pin("colours")


def plan_of(world: SmallInstallation) -> SuitePlan:
    (plan,) = submission.preview_proposal(world.context(), REQUEST).plans
    return plan


def test_a_worker_notes_each_measurement_once_also_of_a_run_that_ends_early(
    world: SmallInstallation,
) -> None:
    pin = world.context().suites.pin("colours")
    world.calibration = measured(0.8)

    world.until_decided(world.propose("sim/worse").id)
    assert [event.details for event in events(world, pin)] == [measured(0.8).as_json()]
    world.calibration = measured(0.7)
    world.until_decided(world.propose("sim/equal").id)

    kept = [JudgeCalibration.from_json(event.details) for event in events(world, pin)]
    assert kept == [measured(0.7), measured(0.8)]
    with world.store.read() as tx:
        assert tx.audit.first_break() is None


def test_a_plan_registers_the_lowest_of_the_newest_calibrations(
    world: SmallInstallation,
) -> None:
    pin = judge_by(world)
    assert plan_of(world).judge is None

    note(world, pin, 0.8, 0.7, 0.95)
    assert plan_of(world).judge == JudgeSlope(0.7, 0.05)
    note(world, pin, *(0.9 + n / 1000 for n in range(8)))
    assert plan_of(world).judge == JudgeSlope(0.9, 0.05)


@pytest.mark.parametrize(
    "details",
    [
        {},
        {**measured(0.9).as_json(), "slope": {"slope": 0.9, "error": -10.0}},
        {**measured(0.9).as_json(), "slope": 0.9},
    ],
)
def test_nothing_is_planned_by_an_event_that_is_no_calibration(
    world: SmallInstallation, details: Mapping[str, object]
) -> None:
    pin = judge_by(world)
    with world.store.write() as tx:
        tx.audit.append(
            at=world.clock.now(),
            actor=SYSTEM,
            action=CALIBRATED,
            subject=pin.judge_subject,
            details=details,
        )
    with pytest.raises(ProofRefused, match="no calibration of its judge"):
        plan_of(world)


def test_another_judge_or_rubric_has_a_calibration_of_its_own(
    world: SmallInstallation,
) -> None:
    note(world, judge_by(world), 0.8)
    assert plan_of(world).judge == JudgeSlope(0.8, 0.05)

    judge_by(world, model="other-judge")
    assert plan_of(world).judge is None
    judge_by(world, rubric="y")
    assert plan_of(world).judge is None
    judge_by(world)
    assert plan_of(world).judge == JudgeSlope(0.8, 0.05)


def test_the_estimate_says_what_the_judge_costs(world: SmallInstallation) -> None:
    gate = replace(world.policy.gate, claim=Claim.SUPERIOR)
    world.policy = replace(world.policy, gate=gate)
    pin = judge_by(world)
    (unknown,) = estimate.estimate_proposal(world.context(), REQUEST)
    assert "The judge was not compared with people" in unknown.warning

    note(world, pin, 0.6)
    (known,) = estimate.estimate_proposal(world.context(), REQUEST)

    assert "The judge shows 0.60 ± 0.05 of a difference" in known.warning
    assert known.mde == pytest.approx(unknown.mde / 0.6)
